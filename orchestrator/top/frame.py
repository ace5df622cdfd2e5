"""What is on the screen? A pure function of what was heard, what the reader chose, and the size of the terminal.

Theory of operation. From above: head, totals, what is wrong, the table of instances, the last events, the keys. On a low
terminal totals and warnings get shorter, the model goes; then come the rows, at least three; events get what is left. Without a height
(`--once`) nothing is cut. The order of colours is that of the dashboard, and none of them is the only sign of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from orchestrator.figures import counts_by_reason, duration, headline, milliseconds, model_line, number
from orchestrator.history import History, slowest_gateway
from orchestrator.status import Event, Status
from orchestrator.top.columns import GAP, STATE_STYLES, Placed, Row, fitting, ordered, rows_of
from orchestrator.top.sparkline import SECONDS
from orchestrator.top.text import Line, Span, Style, cells, crop, fit, flow, printable
from orchestrator.top.view import KEYS, View

MOST_WARNINGS = 3
LOW = 10
"""Lines of a terminal below which the model is not named."""
MOST_EVENTS = 8
FEWEST_ROWS = 3
SIGNS = {"ready": "●", "initial": "○", "starting": "◌", "draining": "◐", "degraded": "▲", "failed": "✖", "stopped": "■"}
HINT = "q quit  s sort  r reverse  ↑↓ PgUp PgDn scroll  ? help"


@dataclass(frozen=True, slots=True)
class Heard:
    """What the orchestrator said last, and whether it still does."""

    status: Status
    history: History | None
    """The last minute; None where it is of a version that keeps none."""
    silent_seconds: float = 0.0
    """For how long it has not answered."""
    trouble: str = ""
    """Why not; empty while it does."""


@dataclass(frozen=True, slots=True)
class Frame:
    lines: list[Line]
    rows: int
    """Instances that there are."""
    page: int
    """Rows that are shown."""


def frame(heard: Heard, view: View, width: int, height: int | None, zone: tzinfo | None = None) -> Frame:
    """:param height: lines of the terminal; None: as many as it takes, and no line about keys
    :param zone: in which events are dated; None: the local one
    """
    status = heard.status
    rows = ordered(rows_of(status.instances, heard.history), view.sort, reverse=view.reverse)
    head, totals, wrong = _head(heard, width, zone), _totals(heard, width), _wrong(heard)
    events = _events(status, zone)
    if height is None:
        lines = [
            *head,
            *totals,
            *wrong,
            (),
            *_table(rows, rows, view, width),
            *([(), *events] if len(events) > 1 else []),
        ]
        return Frame([crop(line, width) for line in lines], len(rows), len(rows))
    if height < LOW:
        del head[1]
    top = [*head, *totals[: max(1, height // 6)], *_shortened(wrong, min(MOST_WARNINGS, max(1, height // 8)))]
    room = height - len(top) - 1  # the keys
    if view.help:
        body = _help(width)[: max(0, room)]
        page = 0
    else:
        spare = room - 1 - min(len(rows), max(FEWEST_ROWS, room - 2 - MOST_EVENTS))
        shown = min(len(events) - 1, MOST_EVENTS, spare - 1)
        below = [events[0], *events[-shown:]] if shown > 0 else []
        page = max(0, min(len(rows), room - 1 - len(below)))
        first = min(view.offset, len(rows) - page)
        body = [*_table(rows, rows[first : first + page], view, width), *below]
    lines = [*top, *body][: max(0, height - 1)]
    lines += [()] * (height - 1 - len(lines))
    lines.append(_foot(view, rows, page, width))
    return Frame([crop(line, width) for line in lines][-height:] if height > 0 else [], len(rows), page)


def _shortened(wrong: list[Line], most: int) -> list[Line]:
    if len(wrong) <= most:
        return wrong
    if most == 1:
        return [(Span(f"1 of {len(wrong)}: ", "warn"), *wrong[0])]
    return [*wrong[: most - 1], (Span(f"and {len(wrong) - most + 1} more: orchestrator status", "warn"),)]


def _head(heard: Heard, width: int, zone: tzinfo | None) -> list[Line]:
    status = heard.status
    style: Style = "faint" if heard.trouble else STATE_STYLES.get(status.state, "")
    said = clock(status.time_unix, zone)
    title = f"{SIGNS.get(status.state, '●')} {printable(headline(status))}"
    blanks = width - cells(title) - len(said)
    lines: list[Line] = [(Span(title, style), Span(" " * blanks + said)) if blanks > 0 else (Span(title, style),)]
    lines.append((Span(printable(model_line(status))),))
    if heard.trouble:
        banner = f"✖ no answer for {duration(heard.silent_seconds)}; what follows is from {said}. Trying again: {heard.trouble}"
        lines.append((Span(fit(printable(banner), width), "bad"),))
    return lines


def _totals(heard: Heard, width: int) -> list[Line]:
    status = heard.status
    slowest = slowest_gateway(status)
    ready = sum(one.state == "ready" for one in status.instances)
    figures = [
        ("requests/s", number(round(sum(one.requests_per_second for one in status.gateways), 2))),
        ("sequences/s", number(round(sum(one.sequences_per_second for one in status.instances), 2))),
        ("tokens/s", number(round(sum(one.tokens_per_second for one in status.instances), 2))),
        ("p50 ms", milliseconds(slowest.p50)),
        ("p99 ms", milliseconds(slowest.p99)),
        ("queued", number(status.router.queued)),
        ("in flight", number(status.router.in_flight)),
    ]
    parts = [Span(f"{name} {value}") for name, value in figures]
    parts.append(Span(f"{ready} of {len(status.instances)} ready", "" if ready == len(status.instances) else "warn"))
    refused = counts_by_reason(status.router.rejected)
    lately = _refused_lately(heard.history)
    said = f"refused {refused or 0}" + (f" (in the last minute {lately})" if lately else "")
    parts.append(Span(printable(said), "warn" if lately else ""))
    return flow(parts, width)


def _refused_lately(history: History | None) -> str:
    if history is None:
        return ""
    since = history.uptime_seconds - SECONDS
    counts: dict[str, int] = {}
    for growth in history.grown:
        if growth.kind == "rejected" and growth.uptime_seconds >= since:
            counts[growth.what] = counts.get(growth.what, 0) + growth.count
    return counts_by_reason(counts)


def _wrong(heard: Heard) -> list[Line]:
    status = heard.status
    lines = [(Span(f"changing: {printable(status.changing)}", "busy"),)] if status.changing else []
    parts = [("router", status.router.state), *((one.name, one.state) for one in status.gateways)]
    lines += [
        (Span(f"{printable(name)} is {printable(state)}", STATE_STYLES.get(state, "warn")),)
        for name, state in parts
        if state != "ready" and not any(warning.startswith(f"{name} is ") for warning in status.warnings)
    ]
    return [*lines, *((Span(f"warning: {printable(warning)}", "warn"),) for warning in status.warnings)]


def _table(rows: Sequence[Row], shown: Sequence[Row], view: View, width: int) -> list[Line]:
    """Columns are as wide as all rows need them, so that they stay where they are while one scrolls."""
    placed = fitting(rows, width, view.sort)
    gap = " " * GAP
    titles = gap.join(fit(_title(one, view), one.width, right=one.column.right) for one in placed)
    lines: list[Line] = [(Span(fit(titles, width), "bar"),)]
    for row in shown:
        spans: list[Span] = []
        for one in placed:
            text = fit(printable(one.column.text(row)), one.width, right=one.column.right)
            spans += [Span(text, one.column.style(row)), Span(gap)]
        lines.append(tuple(spans[:-1]))
    return lines


def _title(placed: Placed, view: View) -> str:
    title = placed.column.title
    if title != view.sort:
        return title
    sign = "▲" if (view.sort == "instance") != view.reverse else "▼"
    return f"{title}{sign}"


def _events(status: Status, zone: tzinfo | None) -> list[Line]:
    """A title and the events, the newest last; nothing where nothing has happened."""
    began = status.time_unix - status.uptime_seconds
    lines = [_event(event, clock(began + event.uptime_seconds, zone, status.time_unix)) for event in status.events]
    return [(Span("events", "strong"),), *lines] if lines else []


def _event(event: Event, at: str) -> Line:
    change = f"{event.before}→{event.after}" if event.before else event.after
    why = "" if event.why in ("", event.after) else f" ({printable(event.why)})"
    style: Style = STATE_STYLES.get(event.after, "") if event.after not in ("ready", "starting") else ""
    return (Span(f"{at} ", "faint"), Span(printable(event.part)), Span(" "), Span(printable(change), style), Span(why))


def _help(width: int) -> list[Line]:
    wide = max(cells(keys) for keys, _ in KEYS)
    return [
        (Span(fit("keys", width), "bar"),),
        *((Span(f" {fit(keys, wide)}  ", "strong"), Span(what)) for keys, what in KEYS),
        (),
        (
            Span(
                " seq/s, tok/s, p50 and p99: of the last ten seconds. CPU %: 100 is one core. batch, padding: since the start."
            ),
        ),
        (Span(" last minute: seq/s from zero to the row's own highest; a blank is a time of which nothing is known."),),
        (
            Span(
                " CPUs as the kernel says. p50 ms and p99 ms of the whole: of the slowest gateway, the whole pipeline."
            ),
        ),
    ]


def _foot(view: View, rows: Sequence[Row], page: int, width: int) -> Line:
    first = min(view.offset, max(0, len(rows) - page))
    where = f"rows {first + 1}-{first + page} of {len(rows)}" if 0 < page < len(rows) else ""
    order = f"by {view.sort or 'plan'}{' reversed' if view.reverse else ''}" if view.sort or view.reverse else ""
    said = "  ".join(part for part in (where, order) if part)
    hint = HINT if cells(HINT) + cells(said) + 2 <= width else "q quit  ? help"
    return (Span(fit(f"{hint}{' ' * max(2, width - cells(hint) - cells(said))}{said}", width), "bar"),)


def clock(unix: float, zone: tzinfo | None, now: float | None = None) -> str:
    """A moment as people date it: with its day, where that is not the one of `now`."""
    moment = datetime.fromtimestamp(unix, UTC).astimezone(zone)
    today = now is None or moment.date() == datetime.fromtimestamp(now, UTC).astimezone(zone).date()
    return f"{moment:%H:%M:%S}" if today else f"{moment:%Y-%m-%d %H:%M:%S}"
