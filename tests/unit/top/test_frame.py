"""What does the live view show of a state, at each size of the terminal?"""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

from orchestrator.history import History
from orchestrator.status import Event, Quantiles, RouterStatus, Status, Verified
from orchestrator.supervisor.past import Past
from orchestrator.top.columns import SORTS
from orchestrator.top.frame import Frame, Heard, frame
from orchestrator.top.text import cells, plain
from orchestrator.top.view import View


def busy(documents: Any, uptime: float = 600.0, **given: Any) -> Status:
    """Three instances: one at work, one that fails, one that is elsewhere."""
    made: Status = documents.status(
        uptime,
        documents.instance(
            sequences_per_second=24.5, tokens_per_second=1234.5, latency_ms=Quantiles(2.5, 5.0, 9.25), queue_depth=3,
            batch_mean=3.4, padding_ratio=0.062, busy_ratio=0.83, cpu_seconds=uptime * 0.9,
        ),
        documents.instance(
            "long-0", cpus=[2, 3], bucket=None, state="backoff", pid=None, verified=None, rss_bytes=None, restarts=3
        ),
        documents.instance("odd-0", cpus=[4], verified=Verified([4, 5], [0], "default", 4, False, ["on CPU 5"])),
        **{
            "state": "degraded",
            "router": RouterStatus("ready", queued=3, in_flight=2, rejected={"too_long": 3, "queue_full": 40}),
            "warnings": ["long-0 is in backoff: exit 139", "odd-0 is not where it was planned: on CPU 5"],
            "events": [Event(582.0, "long-0", "worker", 2, "ready", "backoff", "SIGSEGV")],
            **given,
        },
    )  # fmt: skip
    return made


def remembered(documents: Any, until: float = 600.0) -> History:
    past = Past()
    for at in range(int(until) - 62, int(until) + 1, 2):
        past.record(busy(documents, float(at)))
    return past.document(2, 60, version="0.1.0", pid=1, time_unix=1e6 + until, uptime_seconds=until)


def text(drawn: Frame) -> list[str]:
    return [plain(line) for line in drawn.lines]


def drawn(documents: Any, width: int, height: int | None, view: View = View(), **given: Any) -> list[str]:  # noqa: B008 - frozen
    return text(frame(Heard(busy(documents, **given), remembered(documents)), view, width, height, UTC))


def test_a_wide_terminal_has_everything(documents: Any) -> None:
    assert drawn(documents, 150, 14) == [
        "▲ degraded  http://127.0.0.1:8080  up 10m00s  policy by-seqlen  pid 3999" + " " * 70 + "13:56:40",
        "model org/all-MiniLM (bert, fp32, onnxruntime), up to 256 tokens",
        (
            "requests/s 38  sequences/s 24.5  tokens/s 1,234  p50 ms 4.2  p99 ms 58.0  queued 3  in flight 2  2 of 3 ready"
            "  refused queue_full 40, too_long 3"
        ),
        "1 of 2: warning: long-0 is in backoff: exit 139",
        (
            "instance state    placement      CPUs  node tokens  seq/s last minute       tok/s p50 ms p99 ms queue  busy"
            " batch padding RSS MiB CPU % restarts"
        ),
        (
            "short-0  ready    as planned     0-1      0 1-64     24.5 ███████████████   1,234    2.5    9.2     3  83 %"
            "   3.4   6.2 %     312    90        0"
        ),
        (
            "long-0   backoff  -              -        0 all         0 ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁       0      -      -     0   0 %"
            "     0     0 %       -     -        3"
        ),
        (
            "odd-0    ready    NOT AS PLANNED 4-5      0 1-64        0 ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁       0      -      -     0   0 %"
            "     0     0 %     312     -        0"
        ),
        "events",
        "13:56:22 long-0 ready→backoff (SIGSEGV)",
        "",
        "",
        "",
        "q quit  s sort  r reverse  ↑↓ PgUp PgDn scroll  ? help",
    ]


def test_a_narrow_and_low_one_keeps_what_matters_most(documents: Any) -> None:
    assert drawn(documents, 60, 12) == [
        "▲ degraded  http://127.0.0.1:8080  up 10m00s  policy by-seq…",
        "model org/all-MiniLM (bert, fp32, onnxruntime), up to 256 t…",
        "requests/s 38  sequences/s 24.5  tokens/s 1,234  p50 ms 4.2",
        "p99 ms 58.0  queued 3  in flight 2  2 of 3 ready",
        "1 of 2: warning: long-0 is in backoff: exit 139",
        "instance state    placement       seq/s p99 ms queue",
        "short-0  ready    as planned       24.5    9.2     3",
        "long-0   backoff  -                   0      -     0",
        "odd-0    ready    NOT AS PLANNED      0      -     0",
        "events",
        "13:56:22 long-0 ready→backoff (SIGSEGV)",
        "q quit  s sort  r reverse  ↑↓ PgUp PgDn scroll  ? help",
    ]


@pytest.mark.parametrize("height", [1, 2, 3, 5, 8, 13, 24, 50, 200])
@pytest.mark.parametrize("width", [1, 3, 10, 20, 37, 60, 80, 101, 160, 400])
@pytest.mark.parametrize("help_", [False, True])
def test_no_line_is_longer_and_no_frame_higher_than_the_terminal(
    documents: Any, width: int, height: int, help_: bool
) -> None:
    heard = Heard(busy(documents), remembered(documents), 5.0, "no orchestrator runs here")
    made = frame(heard, View(sort="p99 ms", help=help_), width, height, UTC)
    assert len(made.lines) == height
    assert max(sum(cells(span.text) for span in line) for line in made.lines) <= width


def test_without_placements_that_differ_there_is_no_column_for_them(documents: Any) -> None:
    status = documents.status(600.0, documents.instance())
    lines = text(frame(Heard(status, None), View(), 100, 12, UTC))
    assert not any("placement" in line or "PLANNED" in line for line in lines)


def test_without_a_history_the_last_minute_is_blank(documents: Any) -> None:
    lines = text(frame(Heard(busy(documents), None), View(), 150, 14, UTC))
    assert any("last minute" in line for line in lines)
    assert not any("█" in line or "▁" in line for line in lines)


def test_what_was_refused_is_told_by_reason_and_that_of_the_last_minute_apart(documents: Any) -> None:
    past = Past()
    for at, full in ((500.0, 7), (570.0, 7), (590.0, 52)):
        router = RouterStatus("ready", rejected={"too_long": 3, "queue_full": full})
        status = documents.status(at, documents.instance(), router=router)
        past.record(status)
    history = past.document(2, 60, version="", pid=1, time_unix=1e6, uptime_seconds=600.0)
    lines = text(frame(Heard(status, history), View(), 200, 12, UTC))
    assert "refused queue_full 52, too_long 3 (in the last minute queue_full 45)" in lines[2]
    quiet = documents.status(600.0, documents.instance())
    assert "refused 0" in text(frame(Heard(quiet, None), View(), 200, 12, UTC))[2]


def many(documents: Any, count: int = 192) -> Status:
    instances = [documents.instance(f"one-{number}", queue_depth=number % 7) for number in range(count)]
    made: Status = documents.status(600.0, *instances)
    return made


def test_of_192_instances_a_page_is_shown_and_which_rows_it_has(documents: Any) -> None:
    first = frame(Heard(many(documents), None), View(), 120, 30, UTC)
    assert (first.rows, first.page) == (192, 25)
    assert text(first)[-1].endswith("rows 1-25 of 192")
    middle = text(frame(Heard(many(documents), None), View(offset=100), 120, 30, UTC))
    assert middle[4].startswith("one-100 ")
    assert middle[-1].endswith("rows 101-125 of 192")
    beyond = text(frame(Heard(many(documents), None), View(offset=10_000), 120, 30, UTC))
    assert beyond[-2].startswith("one-191 ")
    assert beyond[-1].endswith("rows 168-192 of 192")


def test_without_a_height_every_row_every_warning_and_every_event_is_there_and_no_keys(documents: Any) -> None:
    status = many(documents)
    status.warnings = [f"something is odd {number}" for number in range(9)]
    status.events = [Event(float(at), "one-1", "worker", 1, "ready", "backoff", "") for at in range(16)]
    lines = text(frame(Heard(status, None), View(), 100, None, UTC))
    assert sum(line.startswith("one-") for line in lines) == 192
    assert sum(line.startswith("warning: something is odd") for line in lines) == 9
    assert sum("ready→backoff" in line for line in lines) == 16
    assert not any("q quit" in line for line in lines)


def test_many_warnings_leave_room_for_the_rows_and_say_how_many_there_are(documents: Any) -> None:
    warnings = [f"something is odd {number}" for number in range(9)]
    lines = drawn(documents, 100, 24, warnings=warnings)
    assert [line for line in lines if "odd " in line or "more" in line] == [
        "warning: something is odd 0",
        "warning: something is odd 1",
        "and 7 more: orchestrator status",
    ]


def test_one_who_does_not_answer_is_told_with_the_reason_and_what_was_known_stays(documents: Any) -> None:
    heard = Heard(
        busy(documents), remembered(documents), 75.0, "no orchestrator runs here (control.sock does not answer)"
    )
    lines = text(frame(heard, View(), 150, 20, UTC))
    assert lines[2] == (
        "✖ no answer for 1m15s; what follows is from 13:56:40. Trying again: no orchestrator runs here (control.sock does"
        " not answer)"
    )
    assert any(line.startswith("short-0  ready") for line in lines)


def test_what_is_being_done_and_parts_that_are_not_ready_are_told_above_the_table(documents: Any) -> None:
    status = documents.status(
        600.0, documents.instance(), changing="restart short-0 (pid 7 of user 0)", router=RouterStatus("backoff")
    )
    status.gateways[0].state = "starting"
    lines = text(frame(Heard(status, None), View(), 120, 30, UTC))
    assert lines[3:6] == ["changing: restart short-0 (pid 7 of user 0)", "router is backoff", "gateway-0 is starting"]


def test_text_from_outside_cannot_steer_the_terminal(documents: Any) -> None:
    evil = "x\x1b[2J\x1b]0;owned\x07\r\n  second\u202eline\x9b31m"
    status = busy(documents, warnings=[evil], changing=evil, events=[Event(1.0, evil, "worker", 1, evil, evil, evil)])
    status.endpoint = evil
    for line in text(frame(Heard(status, None, 1.0, evil), View(), 300, None, UTC)):
        assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 or letter == "\u202e" for letter in line), line


def test_wide_letters_take_two_cells(documents: Any) -> None:
    status = busy(documents, warnings=["模型" * 40])
    for width in (20, 21, 60):
        made = frame(Heard(status, None), View(), width, 24, UTC)
        assert max(sum(cells(span.text) for span in line) for line in made.lines) <= width


@pytest.mark.parametrize(
    ("sort", "reverse", "names"),
    [
        ("", False, ["short-0", "long-0", "odd-0"]),
        ("", True, ["odd-0", "long-0", "short-0"]),
        ("instance", False, ["long-0", "odd-0", "short-0"]),
        ("instance", True, ["short-0", "odd-0", "long-0"]),
        ("state", False, ["long-0", "short-0", "odd-0"]),
        ("restarts", False, ["long-0", "short-0", "odd-0"]),
        ("p99 ms", False, ["short-0", "long-0", "odd-0"]),
        ("p99 ms", True, ["short-0", "long-0", "odd-0"]),  # who has none is last either way
        ("RSS MiB", False, ["short-0", "odd-0", "long-0"]),
        ("CPU %", False, ["short-0", "long-0", "odd-0"]),
    ],
)
def test_rows_are_ordered_by_the_column_that_was_chosen(
    documents: Any, sort: str, reverse: bool, names: list[str]
) -> None:
    assert sort in SORTS
    lines = drawn(documents, 150, 20, View(sort=sort, reverse=reverse))
    assert [line.split()[0] for line in lines if line.startswith(("short-0 ", "long-0 ", "odd-0 "))] == names
    if sort or reverse:
        assert lines[-1].endswith(f"by {sort or 'plan'}{' reversed' if reverse else ''}")


def test_the_column_that_rows_are_sorted_by_has_a_sign_for_the_direction(documents: Any) -> None:
    def titles(view: View) -> str:
        return next(line for line in drawn(documents, 150, 20, view) if line.startswith("instance"))

    assert "p99 ms▼" in titles(View(sort="p99 ms"))
    assert "p99 ms▲" in titles(View(sort="p99 ms", reverse=True))
    assert "instance▲" in titles(View(sort="instance"))


def test_events_are_dated_by_the_clock_as_it_is_now(documents: Any) -> None:
    set_forward = busy(documents)
    set_forward.time_unix += 3600.0
    lines = text(frame(Heard(set_forward, None), View(), 100, 30, UTC))
    assert "14:56:22 long-0 ready→backoff (SIGSEGV)" in lines


def test_an_event_of_another_day_has_its_date(documents: Any) -> None:
    status = busy(documents, uptime=90_000.0)
    assert "1970-01-12 13:56:22 long-0 ready→backoff (SIGSEGV)" in text(
        frame(Heard(status, None), View(), 100, 30, UTC)
    )


def test_help_tells_every_key(documents: Any) -> None:
    lines = drawn(documents, 120, 30, View(help=True))
    for words in ("quit", "sort by the next", "the other way round", "a page up, down", "the last row"):
        assert any(words in line for line in lines)
