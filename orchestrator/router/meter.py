"""How fast was each instance, over its life and lately? Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from itertools import pairwise
from typing import Final

from orchestrator.router.events import Flight, Seconds
from orchestrator.status import LATENCY_BOUNDS_SECONDS, Quantiles

WINDOW_SECONDS: Final = 10.0
"""Rates and quantiles are over this much of the past."""


def _finer(bounds: tuple[float, ...], steps: int) -> list[float]:
    """The bounds with `steps − 1` more between each two neighbours, in a geometric row."""
    fine = [
        low * (high / low) ** (step / steps)
        for low, high in pairwise((bounds[0] / 16, *bounds))
        for step in range(1, steps)
    ]
    return sorted({*fine, *bounds})


# One search finds the place of a latency both in the histogram that is published and in a finer one for the quantiles
# (steps of about 5 %).
_FINE: Final = _finer(LATENCY_BOUNDS_SECONDS, 8)
_PUBLISHED: Final = [_FINE.index(bound) for bound in LATENCY_BOUNDS_SECONDS]


class BucketCounts:
    """What left one bucket's queue over the router's life."""

    __slots__ = ("dispatched", "spilled", "wait_seconds")

    def __init__(self) -> None:
        self.dispatched = 0
        self.spilled = 0
        """Sequences that an instance of another bucket took."""
        self.wait_seconds = 0.0


class InstanceCounts:
    """What one instance did over the router's life."""

    __slots__ = (
        "_past", "batches", "busy_seconds", "latency", "latency_sum_seconds", "padded_tokens", "predicted_seconds",
        "retried", "sequences", "served", "stolen", "tokens", "wait_seconds",
    )  # fmt: skip

    def __init__(self) -> None:
        self.served = 0
        """Sequences answered."""
        self.sequences = 0
        """Sequences computed, whether somebody still wanted the answer or not."""
        self.batches = 0
        self.tokens = 0
        """Without padding."""
        self.padded_tokens = 0
        """With padding: longest × n of each batch."""
        self.stolen = 0
        self.busy_seconds = 0.0
        self.predicted_seconds = 0.0
        """What was predicted for the batches of `busy_seconds`."""
        self.wait_seconds = 0.0
        """From arrival to the start of the batch, summed over all sequences computed."""
        self.retried = 0
        """Sequences that it held and did not compute."""
        self.latency = [0] * (len(_FINE) + 1)
        self.latency_sum_seconds = 0.0
        self._past: deque[_Snapshot] = deque()

    def computed(self, flight: Flight, seconds: Seconds) -> None:
        """A batch came back after it ran for `seconds`."""
        items = flight.items
        n = len(items)
        tokens = 0
        arrived = 0.0
        for item in items:
            tokens += item.length
            arrived += item.request.arrived
        self.batches += 1
        self.sequences += n
        self.tokens += tokens
        self.padded_tokens += flight.longest * n
        self.busy_seconds += seconds
        self.predicted_seconds += flight.predicted
        self.wait_seconds += flight.started * n - arrived
        if not flight.home:
            self.stolen += n

    def answered(self, latency: Seconds) -> None:
        self.served += 1
        self.latency[bisect_left(_FINE, latency)] += 1
        self.latency_sum_seconds += latency

    def latency_buckets(self) -> list[int]:
        """Cumulative counts per bound of LATENCY_BOUNDS_SECONDS, and one more for +Inf."""
        running, cumulative = 0, []
        for count in self.latency:
            running += count
            cumulative.append(running)
        return [cumulative[index] for index in _PUBLISHED] + [running]

    def recent(self, now: Seconds, running_seconds: Seconds) -> Recent:
        """Rates since the snapshot of `WINDOW_SECONDS` ago, or since the first one; takes a snapshot.

        `running_seconds`: how long the current batch has been running; `busy_seconds` knows only those that ended.
        """
        latest = _Snapshot(self, now, running_seconds)
        past = self._past
        while len(past) > 1 and past[1].time <= now - WINDOW_SECONDS:
            past.popleft()
        before = past[0] if past else None
        past.append(latest)
        if before is None or now <= before.time:
            return Recent(0.0, 0.0, 0.0, Quantiles())
        span = now - before.time
        counts = [now_ - then for now_, then in zip(latest.latency, before.latency, strict=True)]
        return Recent(
            (latest.served - before.served) / span,
            (latest.tokens - before.tokens) / span,
            min(1.0, max(0.0, (latest.busy - before.busy) / span)),
            quantiles(counts),
        )


class _Snapshot:
    __slots__ = ("busy", "latency", "served", "time", "tokens")

    def __init__(self, counts: InstanceCounts, now: Seconds, running_seconds: Seconds) -> None:
        self.time = now
        self.served = counts.served
        self.tokens = counts.tokens
        self.busy = counts.busy_seconds + running_seconds
        self.latency = counts.latency.copy()


class Recent:
    __slots__ = ("busy_ratio", "latency_ms", "sequences_per_second", "tokens_per_second")

    def __init__(
        self, sequences_per_second: float, tokens_per_second: float, busy_ratio: float, latency_ms: Quantiles
    ) -> None:
        self.sequences_per_second = sequences_per_second
        self.tokens_per_second = tokens_per_second
        self.busy_ratio = busy_ratio
        self.latency_ms = latency_ms


def quantiles(counts: list[int]) -> Quantiles:
    """p50, p95, p99 in milliseconds from counts per fine bucket; None where all counts are 0."""
    total = sum(counts)
    if total == 0:
        return Quantiles()
    found: list[float] = []
    targets = [0.5 * total, 0.95 * total, 0.99 * total]
    below = 0
    for index, count in enumerate(counts):
        while count and len(found) < 3 and below + count >= targets[len(found)]:
            low = _FINE[index - 1] if index else 0.0
            high = _FINE[index] if index < len(_FINE) else _FINE[-1]
            share = (targets[len(found)] - below) / count
            found.append(round((low + (high - low) * share) * 1e3, 4))
        below += count
    return Quantiles(*found)
