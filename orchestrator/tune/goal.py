"""When is one layout better than another? Goals, loads, limits of latency, and the figures that are compared. Pure.

The p99 of each class of lengths has a limit: what the operator says, else `MULTIPLE` times what its longest sequence takes alone on one
core, and `LEAST_MS` at least, since a front end on shared cores costs everybody a few milliseconds now and then. How near a layout comes
to its limits is one number, the *pressure*: the largest of p99 / limit over the classes. Up to 1 it holds them. Who falls behind an open
load has more than 1, however patient the limits are.

`throughput` wants the highest rate of Poisson arrivals with a pressure of at most 1, or, with so many clients that wait for their
answers, the most answers a second. `latency` wants the lowest pressure at the rate that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from orchestrator.bench.rows import LoadRow

MOST_BEHIND: Final = 0.03
"""Share of the requests of an open load that may be left over at its end: more is a queue that grows, and breaks every limit in time."""

Goal = Literal["throughput", "latency"]

MULTIPLE: Final = 10.0
LEAST_MS: Final = 10.0
REFUSED: Final = 100.0
"""Added to the pressure of who refuses requests: no p99 makes up for that."""


class Load(msgspec.Struct, frozen=True):
    """How much is asked: one of the two."""

    rate: float | None = None
    """Requests per second, Poisson."""
    in_flight: int | None = None
    """So many clients, each of which waits for its answer."""

    @property
    def words(self) -> str:
        return f"{self.in_flight} in flight" if self.in_flight is not None else f"{self.rate or 0.0:.4g} requests/s"


class Figures(msgspec.Struct, frozen=True):
    """What a layout did under a load, simulated or measured."""

    load: Load
    per_second: float
    p99_ms: dict[str, float]
    """By class of lengths."""
    p50_ms: dict[str, float]
    pressure: float
    refused: int = 0

    @property
    def holds(self) -> bool:
        return self.pressure <= 1.0


class Verified(msgspec.Struct, frozen=True):
    """What a layout did when it was served in turns with others."""

    figures: Figures
    ratio: float
    """Of its requests per second to the default's, the median over the rounds."""
    rounds: list[float]
    """Requests per second in each."""


def limits_of(
    kinds: Mapping[str, int], seconds: Callable[[int], float], p99_ms: float | None = None
) -> dict[str, float]:
    """Milliseconds for the p99 of each class. `kinds`: its longest sequence in tokens; `seconds`: of one such alone on one core."""
    if p99_ms is not None:
        return dict.fromkeys(kinds, p99_ms)
    return {kind: round(max(LEAST_MS, MULTIPLE * 1e3 * seconds(longest)), 1) for kind, longest in kinds.items()}


def figures(row: LoadRow, load: Load, limits: Mapping[str, float]) -> Figures:
    """Of a row; a class of which nothing was answered counts for nothing."""
    p99 = {kind: each.p99_ms for kind, each in row.classes.items() if each.p99_ms is not None}
    p50 = {kind: each.p50_ms for kind, each in row.classes.items() if each.p50_ms is not None}
    refused = sum(row.refused.values())
    pressure = max((p99[kind] / limits[kind] for kind in p99), default=0.0)
    if load.rate is not None and row.latency.count:
        behind = 1.0 - row.per_second * row.seconds / row.latency.count
        if behind > MOST_BEHIND:
            pressure = max(pressure, 1.0 + 10.0 * behind)
    if refused or not p99:
        pressure += REFUSED
    return Figures(load, row.per_second, p99, p50, round(pressure, 4), refused)


def mean(of: Sequence[Figures]) -> Figures:
    """Of several runs under one load."""
    kinds = {kind for each in of for kind in each.p99_ms}

    def over(values: Sequence[float]) -> float:
        return round(sum(values) / len(values), 4)

    return Figures(
        of[0].load,
        over([each.per_second for each in of]),
        {kind: over([each.p99_ms[kind] for each in of if kind in each.p99_ms]) for kind in sorted(kinds)},
        {kind: over([each.p50_ms[kind] for each in of if kind in each.p50_ms]) for kind in sorted(kinds)},
        over([each.pressure for each in of]),
        sum(each.refused for each in of),
    )


def score(goal: Goal, found: Figures) -> float:
    """The higher the better; only figures under loads of the same kind may be compared.

    Of open load at which the limits are just held this is the rate, of clients that wait the answers a second; less where limits are
    broken.
    """
    if goal == "latency":
        return 1.0 / max(found.pressure, 1e-6)
    reached = found.load.rate if found.load.rate is not None else found.per_second
    return reached if found.holds else reached / found.pressure
