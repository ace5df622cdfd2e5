"""How was it in the last minutes and hours, in one typed document? Made by the supervisor; read by dashboard and top. Pure.

Time is the supervisor's uptime, which no clock that is set changes; who shows a point dates it by `time_unix - uptime_seconds` of the
document. Where no document was published there is no point: a gap, not a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from orchestrator.status import Event, InstanceState, Quantiles, Status

FINE_SECONDS: Final = 2.0
FINE_POINTS: Final = 300
COARSE_SECONDS: Final = 60.0
COARSE_POINTS: Final = 360
LONGEST_SECONDS: Final = COARSE_SECONDS * COARSE_POINTS

Step = Literal[2, 60]
Values = list[float | None]
Trouble = Literal["rejected", "restarted", "malformed", "response"]

STATES: Final[tuple[InstanceState, ...]] = (
    "ready", "drained", "initial", "starting", "draining", "stopping", "stopped", "killing", "backoff", "failed",
)  # fmt: skip
"""Least troubling first: of a minute the last of them is kept."""


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
    """The reason of a refusal, `route status` of an answer from 500 on, else the part."""
    part: str
    """Whose counter it is: `router`, gateway-0, short-0."""
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


def slowest_gateway(status: Status) -> Quantiles:
    """Milliseconds of the whole pipeline: with several gateways an upper bound of the whole, with one the whole."""

    def worst(values: Iterable[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    return Quantiles(
        p50=worst(one.latency_ms.p50 for one in status.gateways),
        p95=worst(one.latency_ms.p95 for one in status.gateways),
        p99=worst(one.latency_ms.p99 for one in status.gateways),
    )
