"""Which columns has the table of instances, which of them fit, and how do they order the rows? Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.figures import NONE, lengths, mebibytes, milliseconds, number, percent
from orchestrator.history import STATES, History, InstancePast
from orchestrator.status import InstanceStatus
from orchestrator.top.sparkline import sparkline
from orchestrator.top.text import Style, cells, printable
from topology.cpuset import format_cpulist

GAP = 1
"""Cells between two columns."""
NOT_AS_PLANNED = "NOT AS PLANNED"
LONGEST_CELL = 24
SPARKS = (30, 15, 10)
"""Cells of the last minute: as many of its points to each."""

STATE_STYLES: dict[str, Style] = {
    "ready": "good", "initial": "busy", "starting": "busy", "draining": "warn", "drained": "warn", "stopping": "warn",
    "killing": "warn", "backoff": "warn", "degraded": "warn", "failed": "bad", "stopped": "bad",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One instance: as it is, and as it was."""

    instance: InstanceStatus
    past: InstancePast | None = None
    points: Sequence[float] = ()
    """Uptime of each value of `past`."""
    step: float = 2.0

    @property
    def cpu_ratio(self) -> float | None:
        """Of the last point; None where it was not running then."""
        return self.past.cpu_ratio[-1] if self.past is not None and self.past.cpu_ratio else None


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    rank: int
    """What fits is chosen by it: 0 is always there, the highest goes first."""
    text: Callable[[Row], str]
    key: Callable[[Row], float | str | None] | None = None
    """What rows are sorted by; None: not by this column."""
    right: bool = True
    style: Callable[[Row], Style] = lambda row: ""  # noqa: ARG005
    least: int = 0
    """Cells that it takes at least, so that it does not jump from one second to the next."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A column and the cells it has."""

    column: Column
    width: int


def _cpus(row: Row) -> str:
    verified = row.instance.verified
    return format_cpulist(verified.cpus) if verified else NONE


def _placement(row: Row) -> str:
    verified = row.instance.verified
    return NONE if verified is None else "as planned" if verified.matches_plan else NOT_AS_PLANNED


def _spark(width: int) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        if row.past is None:
            return ""
        return sparkline(row.points, row.past.sequences_per_second, row.step, width)

    return text


INSTANCE = Column("instance", 0, lambda row: row.instance.name, lambda row: row.instance.name, right=False)
STATE = Column(
    "state", 1, lambda row: row.instance.state, lambda row: STATES.index(row.instance.state), right=False, least=8,
    style=lambda row: STATE_STYLES[row.instance.state],
)  # fmt: skip
PLACEMENT = Column(
    "placement", 2, _placement, None, right=False,
    style=lambda row: "bad" if _placement(row) == NOT_AS_PLANNED else "",
)  # fmt: skip
"""Only while some instance is not where it was planned."""
RATE = Column(
    "seq/s", 3, lambda row: number(row.instance.sequences_per_second), lambda row: row.instance.sequences_per_second,
    least=6,
)  # fmt: skip
MINUTE = Column("last minute", 8, _spark(SPARKS[-1]), None, right=False)
COLUMNS: tuple[Column, ...] = (
    INSTANCE,
    STATE,
    PLACEMENT,
    Column("CPUs", 9, _cpus, None, right=False, least=5),
    Column("node", 14, lambda row: NONE if row.instance.node is None else str(row.instance.node), None),
    Column("tokens", 10, lambda row: lengths(row.instance.bucket), None, right=False),
    RATE,
    MINUTE,
    Column("tok/s", 16, lambda row: number(row.instance.tokens_per_second), lambda row: row.instance.tokens_per_second, least=7),
    Column("p50 ms", 7, lambda row: milliseconds(row.instance.latency_ms.p50), lambda row: row.instance.latency_ms.p50, least=6),
    Column("p99 ms", 4, lambda row: milliseconds(row.instance.latency_ms.p99), lambda row: row.instance.latency_ms.p99, least=6),
    Column("queue", 5, lambda row: number(row.instance.queue_depth), lambda row: row.instance.queue_depth),
    Column("busy", 12, lambda row: percent(row.instance.busy_ratio), lambda row: row.instance.busy_ratio, least=5),
    Column("batch", 13, lambda row: number(row.instance.batch_mean), lambda row: row.instance.batch_mean),
    Column("padding", 15, lambda row: percent(row.instance.padding_ratio), lambda row: row.instance.padding_ratio),
    Column("RSS MiB", 11, lambda row: mebibytes(row.instance.rss_bytes), lambda row: row.instance.rss_bytes),
    Column("CPU %", 12, lambda row: NONE if row.cpu_ratio is None else f"{row.cpu_ratio * 100:.0f}", lambda row: row.cpu_ratio),
    Column("restarts", 6, lambda row: number(row.instance.restarts), lambda row: row.instance.restarts,
           style=lambda row: "warn" if row.instance.restarts else ""),
)  # fmt: skip
SORTS: tuple[str, ...] = ("", *(column.title for column in COLUMNS if column.key is not None))


def rows_of(instances: Iterable[InstanceStatus], history: History | None) -> list[Row]:
    if history is None:
        return [Row(instance) for instance in instances]
    past = {one.name: one for one in history.instances}
    return [Row(instance, past.get(instance.name), history.points, history.step_seconds) for instance in instances]


def ordered(rows: list[Row], sort: str, *, reverse: bool) -> list[Row]:
    """By a column: names from A, numbers and states from the largest and most troubling. What has none comes last, either way round."""
    key = next((column.key for column in COLUMNS if column.title == sort), None)
    if key is None:
        return rows[::-1] if reverse else rows
    known = [row for row in rows if key(row) is not None]
    unknown = [row for row in rows if key(row) is None]
    downwards = sort != INSTANCE.title
    return sorted(known, key=key, reverse=downwards != reverse) + unknown  # type: ignore[arg-type]


def fitting(rows: Sequence[Row], width: int, sort: str = "") -> list[Placed]:
    """The columns that have room, in order. What is over goes to the last minute, which shows more with it."""
    wanted = [
        Placed(column, _wide(column, rows, marked=column.title == sort))
        for column in COLUMNS
        if column is not PLACEMENT or any(_placement(row) == NOT_AS_PLANNED for row in rows)
    ]
    while len(wanted) > 1 and _taken(wanted) > width:
        wanted.remove(max(wanted, key=lambda placed: placed.column.rank))
    over = max(0, width - _taken(wanted))
    return [_minute(placed.width + over) if placed.column is MINUTE else placed for placed in wanted]


def _minute(room: int) -> Placed:
    width = next((cells for cells in SPARKS if max(cells, len(MINUTE.title)) <= room), SPARKS[-1])
    return Placed(dataclasses.replace(MINUTE, text=_spark(width)), max(width, len(MINUTE.title)))


def _wide(column: Column, rows: Sequence[Row], *, marked: bool) -> int:
    """`marked`: the title has a sign beside it."""
    longest = 0 if column is MINUTE else max((cells(printable(column.text(row))) for row in rows), default=0)
    return max(len(column.title) + marked, column.least, min(LONGEST_CELL, longest))


def _taken(placed: Sequence[Placed]) -> int:
    return sum(one.width for one in placed) + GAP * (len(placed) - 1)
