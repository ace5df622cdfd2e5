"""How was it in the last minutes and hours? A bounded past of the Status document. Kept by the supervisor; read by dashboard and top. Pure.

Theory of operation. `Past.record` gets every Status that is published and keeps numbers of some: a *fine* series has the first document
of every 2 s for ten minutes, a *coarse* one a point per minute for six hours, made of the fine points of that minute (of rates and
ratios the mean, of p99, queues and memory the largest, of states the most troubling). A column is an array of doubles with NaN where
nothing is known, so that memory is bounded: about 60 KiB per instance. Time is the supervisor's uptime, which no clock that is set
changes; who shows a point dates it by `time_unix - uptime_seconds` of the document. Where no document was published there is no point: a
gap, not a line.

`batch_mean` and `padding_ratio` are those of the time since the point before, where Status gives them since the start.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal

import msgspec

from orchestrator.status import Event, InstanceState, InstanceStatus, Quantiles, Status

FINE_SECONDS: Final = 2.0
FINE_POINTS: Final = 300
COARSE_SECONDS: Final = 60.0
COARSE_POINTS: Final = 360
LONGEST_SECONDS: Final = COARSE_SECONDS * COARSE_POINTS
MOST_EVENTS: Final = 500
MOST_GONE: Final = 64
"""Instances that are no more and whose past is still kept: a reload every minute must not make this grow."""
MOST_VALUES: Final = 800_000
"""In one document, which has to fit into a line of the channel (`workers.channel.LARGEST_LINE`): of more than about 200 instances every
second point is left out, of more than 400 two of three."""
LONGEST_WHY: Final = 300

Step = Literal[2, 60]
Trouble = Literal["rejected", "restarted", "malformed", "response"]
Counter = tuple[Trouble, str]
"""Of what, and the reason of the refusal, who was restarted, `router`, or `route status` of an answer from 500 on."""
Values = list[float | None]

NAN: Final = math.nan
NOTHING_GREW: Final[Mapping[Counter, int]] = {}

STATES: Final[tuple[InstanceState, ...]] = (
    "ready", "drained", "initial", "starting", "draining", "stopping", "stopped", "killing", "backoff", "failed",
)  # fmt: skip
"""Least troubling first: of a minute the last of them is kept."""

# What becomes of the points of one minute: m the mean, l the largest.
INSTANCE_COLUMNS: Final = {
    "state": "l", "sequences_per_second": "m", "tokens_per_second": "m", "p50": "m", "p99": "l", "queue_depth": "l",
    "batch_mean": "m", "padding_ratio": "m", "busy_ratio": "m", "cpu_ratio": "m", "rss_bytes": "l",
}  # fmt: skip
TOTAL_COLUMNS: Final = {
    "requests_per_second": "m", "p50": "m", "p99": "l", "queued": "l", "in_flight": "l", "ready": "s",
}  # fmt: skip
"""s: the smallest."""
_TOTALS: Final = ""
"""The name under which the whole stands among the instances, none of which can be called so."""


class QuantilesPast(msgspec.Struct, frozen=True):
    """Milliseconds, one value per point."""

    p50: Values
    p99: Values


class InstancePast(msgspec.Struct, frozen=True):
    """One value per point of the document; None where it was not there, or nothing is known. Words and units are those of Status."""

    name: str
    state: list[InstanceState | None]
    sequences_per_second: Values
    tokens_per_second: Values
    latency_ms: QuantilesPast
    queue_depth: Values
    batch_mean: Values
    """Of the batches since the point before."""
    padding_ratio: Values
    """Of the batches since the point before."""
    busy_ratio: Values
    cpu_ratio: Values
    """CPU seconds per second of its process since the point before, all threads; 1 is one core."""
    rss_bytes: Values


class TotalsPast(msgspec.Struct, frozen=True):
    """Of the whole, one value per point."""

    requests_per_second: Values
    """Over all gateways."""
    latency_ms: QuantilesPast
    """Of the slowest gateway, whole pipeline."""
    queued: Values
    in_flight: Values
    ready: Values
    """Instances that serve; of a minute the fewest."""


class Growth(msgspec.Struct, frozen=True):
    """A counter of trouble that grew."""

    uptime_seconds: float
    """Of the point until which it had."""
    kind: Trouble
    what: str
    count: int


class History(msgspec.Struct, frozen=True):
    """`GET /api/history`, and the request `history` of the control socket."""

    version: str
    pid: int
    """Of the supervisor: another one has another past."""
    time_unix: float
    uptime_seconds: float
    """When this was said. A point was at `time_unix - uptime_seconds` plus its own uptime."""
    step_seconds: float
    """A point per so many seconds; where two are much further apart, nothing is known of the time between."""
    points: list[float]
    """Uptime of each point in seconds, ascending."""
    totals: TotalsPast
    instances: list[InstancePast]
    grown: list[Growth]
    """Since the point before, where it was the first: since the start."""
    counts: list[Growth]
    """All those counters as they stood at the last fine point: who goes on counting begins here."""
    events: list[Event]
    """The last of them, oldest first, whatever the step."""


class _Series:
    """Points in rings that grow until they are full."""

    def __init__(self, step: float, capacity: int) -> None:
        self.step = step
        self._capacity = capacity
        self._next = 0
        """Where the next point goes, once the rings are full."""
        self._at = array("d")
        self._columns: dict[str, list[array[float]]] = {}
        self._missed: dict[str, int] = {}
        """For how many points in a row this one has not been there."""
        self._grown: list[Mapping[Counter, int]] = []

    @property
    def last_at(self) -> float:
        """Uptime of the newest point, 0 before the first."""
        return self._at[self._next - 1] if self._at else 0.0

    def add(self, at: float, rows: Mapping[str, Sequence[float]], grown: Mapping[Counter, int]) -> None:
        for name, row in rows.items():
            if name not in self._columns:
                self._columns[name] = [array("d", [NAN]) * len(self._at) for _ in row]
        for name, columns in list(self._columns.items()):
            self._missed[name] = 0 if name in rows else self._missed[name] + 1
            if self._missed[name] >= self._capacity:
                self._forget(name)
                continue
            for column, value in zip(columns, rows.get(name) or [NAN] * len(columns), strict=True):
                self._put(column, value)
        gone = sorted((count, name) for name, count in self._missed.items() if count)
        for _, name in gone[MOST_GONE:]:
            self._forget(name)
        self._put(self._at, at)
        if len(self._grown) < self._capacity:
            self._grown.append(grown)
        else:
            self._grown[self._next] = grown
            self._next = (self._next + 1) % self._capacity

    def _put(self, column: array[float], value: float) -> None:
        if len(column) < self._capacity:
            column.append(value)
        else:
            column[self._next] = value

    def _forget(self, name: str) -> None:
        del self._columns[name], self._missed[name]

    def since(self, uptime: float, most_values: float = math.inf) -> _Points:
        """The points that are not older; every second, third, … one where all were more values than this. The newest one stays."""
        at = self._from(0, self._at)
        first = bisect_left(at, uptime)
        values = (len(at) - first) * sum(map(len, self._columns.values()))
        stride = max(1, math.ceil(values / most_values))
        start = first + max(0, len(at) - first - 1) % stride
        grown = self._grown[self._next :] + self._grown[: self._next]
        return _Points(
            self.step * stride,
            at[start::stride],
            {name: [self._from(start, one)[::stride] for one in columns] for name, columns in self._columns.items()},
            [
                Growth(at[index + (start - index) % stride], *key, count)  # at the next point that stays
                for index in range(first, len(at))
                for key, count in grown[index].items()
            ],
        )

    def _from(self, first: int, column: array[float]) -> list[float]:
        """A column from its first-th oldest point on, oldest first."""
        start = self._next + first
        if start < len(column):
            return (column[start:] + column[: self._next]).tolist()
        return column[start - len(column) : self._next].tolist()


class _Points(msgspec.Struct, frozen=True):
    step: float
    at: list[float]
    columns: dict[str, list[list[float]]]
    grown: list[Growth]


class Past:
    """What `record` was given, as far back as is kept. Belongs to one thread."""

    def __init__(self) -> None:
        self._fine = _Series(FINE_SECONDS, FINE_POINTS)
        self._coarse = _Series(COARSE_SECONDS, COARSE_POINTS)
        self._minute = 0
        self._slot = -1
        self._before: dict[str, _Counted] = {}
        self._counts: dict[Counter, int] = {}
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._changing = ""

    def record(self, status: Status) -> None:
        """A document that was just published. One in two seconds is kept; one that is older than the last is not."""
        at = status.uptime_seconds
        if status.changing != self._changing:
            if status.changing:
                self.happened(Event(at, "orchestrator", "operator", 0, "", "asked", status.changing))
            self._changing = status.changing
        slot = int(at // FINE_SECONDS)
        if slot <= self._slot:
            return
        self._slot = slot
        rows = {one.name: self._row(one, at) for one in status.instances}
        self._before = {one.name: _counted(one, at) for one in status.instances}
        rows[_TOTALS] = _totals(status)
        counts = counters(status)
        grown = increases(self._counts, counts) or NOTHING_GREW
        self._counts = counts
        if at // COARSE_SECONDS != self._minute:
            self._end_minute()
            self._minute = int(at // COARSE_SECONDS)
        self._fine.add(at, rows, grown)

    def _end_minute(self) -> None:
        fine = self._fine.since(self._minute * COARSE_SECONDS)
        if fine.at:
            self._coarse.add(fine.at[-1], *_as_one(fine))

    def happened(self, event: Event) -> None:
        """Something changed; of a long reason only the beginning is kept."""
        self._events.append(msgspec.structs.replace(event, why=event.why[:LONGEST_WHY]))

    def latest_events(self, most: int) -> list[Event]:
        """Oldest first."""
        return list(self._events)[-most:]

    def document(
        self, step: Step, seconds: float, *, version: str, pid: int, time_unix: float, uptime_seconds: float
    ) -> History:
        """The points of the last `seconds`, as far back as there are any."""
        series = self._fine if step == FINE_SECONDS else self._coarse
        points = series.since(uptime_seconds - seconds, MOST_VALUES)
        present = self._fine.since(self._minute * COARSE_SECONDS)
        if step != FINE_SECONDS and present.at:  # the minute that is not over
            points = _with(points, present.at[-1], *_as_one(present))
        at = self._fine.last_at
        return History(
            version=version,
            pid=pid,
            time_unix=time_unix,
            uptime_seconds=uptime_seconds,
            step_seconds=points.step,
            points=points.at,
            totals=_totals_past(points.columns.get(_TOTALS) or [[] for _ in TOTAL_COLUMNS]),
            instances=[_instance_past(name, columns) for name, columns in points.columns.items() if name != _TOTALS],
            grown=points.grown,
            counts=[Growth(at, *key, count) for key, count in self._counts.items()],
            events=list(self._events),
        )

    def validate(self) -> None:
        """What must hold after each step; called by tests."""
        for series in (self._fine, self._coarse):
            points = series.since(-math.inf)
            assert len(points.at) <= max(FINE_POINTS, COARSE_POINTS)
            assert all(one < other for one, other in pairwise(points.at)), points.at
            assert all(len(column) == len(points.at) for columns in points.columns.values() for column in columns)

    def _row(self, one: InstanceStatus, at: float) -> list[float]:
        now, before = _counted(one, at), self._before.get(one.name)
        batches = sequences = tokens = padded = cpu = NAN
        if before is not None:
            batches, sequences = now.batches - before.batches, now.sequences - before.sequences
            tokens, padded = now.tokens - before.tokens, now.padded_tokens - before.padded_tokens
            if now.pid == before.pid:
                cpu = (now.cpu_seconds - before.cpu_seconds) / (at - before.at)
        return [
            float(STATES.index(one.state)),
            _short(one.sequences_per_second),
            _short(one.tokens_per_second),
            _short(_number(one.latency_ms.p50)),
            _short(_number(one.latency_ms.p99)),
            float(one.queue_depth),
            _short(sequences / batches) if batches > 0 and sequences >= 0 else NAN,
            _short(1.0 - tokens / padded) if padded > 0 and 0 <= tokens <= padded else NAN,
            _short(one.busy_ratio),
            _short(cpu),
            _number(one.rss_bytes),
        ]


class _Counted(msgspec.Struct, frozen=True):
    """Counters of one instance at a point, of which the next one needs the difference."""

    at: float
    pid: int | None
    batches: int
    sequences: int
    tokens: int
    padded_tokens: int
    cpu_seconds: float


def _counted(one: InstanceStatus, at: float) -> _Counted:
    return _Counted(at, one.pid, one.batches, one.sequences, one.tokens, one.padded_tokens, _number(one.cpu_seconds))


def _totals(status: Status) -> list[float]:
    slowest = slowest_gateway(status)
    return [
        _short(sum(one.requests_per_second for one in status.gateways)),
        _short(_number(slowest.p50)),
        _short(_number(slowest.p99)),
        float(status.router.queued),
        float(status.router.in_flight),
        float(sum(one.state == "ready" for one in status.instances)),
    ]


def slowest_gateway(status: Status) -> Quantiles:
    """Milliseconds of the whole pipeline: with several gateways an upper bound of the whole, with one the whole."""

    def worst(values: Iterable[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    return Quantiles(
        p50=worst(one.latency_ms.p50 for one in status.gateways),
        p95=worst(one.latency_ms.p95 for one in status.gateways),
        p99=worst(one.latency_ms.p99 for one in status.gateways),
    )


def counters(status: Status) -> dict[Counter, int]:
    """Those whose growth an operator should hear of, by (kind, what); what is zero is left out."""
    found: dict[Counter, int] = {("rejected", reason): count for reason, count in status.router.rejected.items()}
    found["malformed", "router"] = status.router.malformed_frames
    found["restarted", "router"] = status.router.restarts
    for gateway in status.gateways:
        found["restarted", gateway.name] = gateway.restarts
        for what, count in gateway.responses.items():
            if what.rpartition(" ")[2].startswith("5"):
                found["response", what] = found.get(("response", what), 0) + count
    for one in status.instances:
        found["restarted", one.name] = one.restarts
    return {key: count for key, count in found.items() if count}


def increases(before: Mapping[Counter, int], now: Mapping[Counter, int]) -> dict[Counter, int]:
    """By how much each counter grew. One that fell began anew at zero."""
    grown = {key: count - before.get(key, 0) if count >= before.get(key, 0) else count for key, count in now.items()}
    return {key: count for key, count in grown.items() if count}


def _as_one(points: _Points) -> tuple[dict[str, list[float]], dict[Counter, int]]:
    """What several points come to: a row per part, and what grew in all of them."""
    rows = {
        name: [
            _together(column, how)
            for column, how in zip(columns, (INSTANCE_COLUMNS if name else TOTAL_COLUMNS).values(), strict=True)
        ]
        for name, columns in points.columns.items()
    }
    grown: dict[Counter, int] = {}
    for growth in points.grown:
        grown[growth.kind, growth.what] = grown.get((growth.kind, growth.what), 0) + growth.count
    return rows, grown


def _with(points: _Points, at: float, rows: Mapping[str, Sequence[float]], grown: Mapping[Counter, int]) -> _Points:
    """One point more at the end."""
    before = len(points.at)
    columns = {
        name: points.columns.get(name) or [[NAN] * before for _ in rows[name]] for name in {**points.columns, **rows}
    }
    return _Points(
        points.step,
        [*points.at, at],
        {
            name: [[*column, value] for column, value in zip(of, rows.get(name) or [NAN] * len(of), strict=True)]
            for name, of in columns.items()
        },
        [*points.grown, *(Growth(at, *key, count) for key, count in grown.items())],
    )


def _totals_past(columns: Sequence[list[float]]) -> TotalsPast:
    requests_per_second, p50, p99, queued, in_flight, ready = columns
    return TotalsPast(
        _known(requests_per_second), QuantilesPast(_known(p50), _known(p99)), _known(queued), _known(in_flight),
        _known(ready),
    )  # fmt: skip


def _instance_past(name: str, columns: Sequence[list[float]]) -> InstancePast:
    state, *numbers = columns
    sequences, tokens, p50, p99, queue, batch, padding, busy, cpu, rss = map(_known, numbers)
    return InstancePast(
        name, [None if code != code else STATES[int(code)] for code in state], sequences, tokens,
        QuantilesPast(p50, p99), queue, batch, padding, busy, cpu, rss,
    )  # fmt: skip


def _known(column: list[float]) -> Values:
    """NaN is None for who reads it; in JSON both are null."""
    return [None if value != value else value for value in column]


def _together(values: Iterable[float], how: str) -> float:
    known = [value for value in values if value == value]
    if not known:
        return NAN
    return max(known) if how == "l" else min(known) if how == "s" else _short(sum(known) / len(known))


def _number(value: float | None) -> float:
    return NAN if value is None else float(value)


def _short(value: float) -> float:
    """What a chart can show: a document of ten thousand numbers is read over the network."""
    return round(value, 1 if value >= 100 else 3)
