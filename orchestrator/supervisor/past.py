"""What does the supervisor remember of its Status documents? Pure.

Theory of operation. `Past.record` gets every Status that is published and keeps numbers of some: a *fine* series has the first document
of every 2 s for ten minutes, a *coarse* one a point per minute for six hours, made of the fine points of that minute (of rates and
ratios the mean, of p99, queues and memory the largest, of states the most troubling). Memory is bounded: about 60 KiB per instance.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from orchestrator.history import (
    COARSE_POINTS,
    COARSE_SECONDS,
    FINE_POINTS,
    FINE_SECONDS,
    STATES,
    Growth,
    History,
    InstancePast,
    QuantilesPast,
    Step,
    TotalsPast,
    Values,
    slowest_gateway,
)
from orchestrator.status import Event, InstanceStatus, Status
from orchestrator.supervisor.series import NAN, Counter, Points, Series

MOST_EVENTS: Final = 500
LONGEST_WHY: Final = 300
MOST_VALUES: Final = 800_000
"""In one document, which has to fit into a line of the channel (`workers.channel.LARGEST_LINE`): of more than about 200 instances every
second point is left out, of more than 400 two of three."""
NOTHING_GREW: Final[Mapping[Counter, int]] = {}

# What becomes of the points of one minute: m the mean, l the largest, s the smallest.
INSTANCE_COLUMNS: Final = {
    "state": "l", "sequences_per_second": "m", "tokens_per_second": "m", "p50": "m", "p99": "l", "queue_depth": "l",
    "batch_mean": "m", "padding_ratio": "m", "busy_ratio": "m", "cpu_ratio": "m", "rss_bytes": "l",
}  # fmt: skip
TOTAL_COLUMNS: Final = {
    "requests_per_second": "m", "p50": "m", "p99": "l", "queued": "l", "in_flight": "l", "ready": "s",
}  # fmt: skip
_TOTALS: Final = ""
"""The name under which the whole stands among the instances, none of which can be called so."""


class Past:
    """What `record` was given, as far back as is kept. Belongs to one thread."""

    def __init__(self) -> None:
        self._fine = Series(FINE_SECONDS, FINE_POINTS)
        self._coarse = Series(COARSE_SECONDS, COARSE_POINTS)
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


def counters(status: Status) -> dict[Counter, int]:
    """Those whose growth an operator should hear of, by kind, what and part; what is zero is left out."""
    found: dict[Counter, int] = {
        ("rejected", reason, "router"): count for reason, count in status.router.rejected.items()
    }
    found["malformed", "router", "router"] = status.router.malformed_frames
    found["restarted", "router", "router"] = status.router.restarts
    for gateway in status.gateways:
        found["restarted", gateway.name, gateway.name] = gateway.restarts
        for what, count in gateway.responses.items():
            if what.rpartition(" ")[2].startswith("5"):
                found["response", what, gateway.name] = count
    for one in status.instances:
        found["restarted", one.name, one.name] = one.restarts
    return {key: count for key, count in found.items() if count}


def increases(before: Mapping[Counter, int], now: Mapping[Counter, int]) -> dict[Counter, int]:
    """By how much each counter grew. One that fell began anew at zero; of a part that is gone there is nothing to tell."""
    grown = {key: count - before.get(key, 0) if count >= before.get(key, 0) else count for key, count in now.items()}
    return {key: count for key, count in grown.items() if count}


def _as_one(points: Points) -> tuple[dict[str, list[float]], dict[Counter, int]]:
    """What several points come to: a row per part, and what grew in all of them."""
    rows = {
        name: [
            _together(column, how)
            for column, how in zip(columns, (INSTANCE_COLUMNS if name else TOTAL_COLUMNS).values(), strict=True)
        ]
        for name, columns in points.columns.items()
        if any(value == value for value in columns[0])  # it was there
    }
    grown: dict[Counter, int] = {}
    for growth in points.grown:
        key = (growth.kind, growth.what, growth.part)
        grown[key] = grown.get(key, 0) + growth.count
    return rows, grown


def _with(points: Points, at: float, rows: Mapping[str, Sequence[float]], grown: Mapping[Counter, int]) -> Points:
    """One point more at the end."""
    before = len(points.at)
    columns = {
        name: points.columns.get(name) or [[NAN] * before for _ in rows[name]] for name in {**points.columns, **rows}
    }
    return Points(
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
