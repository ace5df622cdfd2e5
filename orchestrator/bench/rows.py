"""What is one line of a load test, measured or simulated? One schema, printed as a table or as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from orchestrator.bench.columns import aligned, milliseconds

CLASSES = ("short", "medium", "long")


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds from the moment a request was due to its last answer; None with no request."""

    count: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    p90_ms: float | None = None
    max_ms: float | None = None


class InstanceRow(msgspec.Struct, frozen=True):
    name: str
    threads: int
    utilisation: float
    """Share of the time that its engine was busy."""
    sequences: int
    batch_mean: float
    padding_ratio: float
    """Share of the tokens computed that were padding."""


class ServedBy(msgspec.Struct, frozen=True):
    """What one instance answered, as the headers of the answers say."""

    count: int
    p50_ms: float
    p99_ms: float
    batch_mean: float
    """Sequences in the batches of these answers, mean over the answers."""


class LoadRow(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """The policy, or what was compared with it."""
    seconds: float
    """Of the window that is counted, without warm-up."""
    per_second: float
    """Requests answered per second."""
    goodput_per_second: float | None
    """Of these, the ones answered within `goodput_ms`; None where latencies are not measured."""
    goodput_ms: float
    latency: Latency
    classes: dict[str, Latency]
    """By class of length: short, medium, long."""
    refused: dict[str, int] = {}
    """Requests by reason."""
    batch_mean: float | None = None
    padding_ratio: float | None = None
    spilled: int | None = None
    """Sequences that a larger instance took over from a smaller bucket."""
    stolen: int | None = None
    """Sequences that an instance took over from a larger bucket, or from one as large."""
    cpu_seconds_per_1000: float | None = None
    """CPU time of all processes per 1,000 requests; None where it is not measured."""
    instances: list[InstanceRow] = []
    load: str = ""
    """`120/s` or `16 in flight`."""
    rate: float | None = None
    """Open loop: requests per second that were asked for."""
    offered_per_second: float | None = None
    """Open loop: that were due; arrivals are random."""
    in_flight: int | None = None
    """Closed loop."""
    rounds: int = 1
    spread: float | None = None
    """How much more requests a second the best round answered than the worst; None with one round."""
    stages: dict[str, Latency] = {}
    """By stage of Server-Timing: tokenize, queue, inference, post."""
    served_by: dict[str, ServedBy] = {}
    """By x-instance."""
    lag_p99_ms: float | None = None
    """Open loop: how late the generator itself sent."""
    held_back: int = 0
    """Open loop: requests that waited for a free connection of the generator's."""
    invalid: str | None = None
    """Why the figures say something else than they should."""


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank of values in ascending order; at least one value."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def latency(seconds: Iterable[float]) -> Latency:
    ordered = sorted(seconds)
    if not ordered:
        return Latency()
    p50, p95, p99, p90 = (round(quantile(ordered, share) * 1e3, 4) for share in (0.5, 0.95, 0.99, 0.9))
    return Latency(len(ordered), p50, p95, p99, p90, round(ordered[-1] * 1e3, 4))


def table(rows: Sequence[LoadRow]) -> str:
    """For people; milliseconds where nothing else is said."""
    kinds = [kind for kind in CLASSES if any(kind in row.classes for row in rows)]
    kinds += sorted({kind for row in rows for kind in row.classes} - set(CLASSES))
    head = ["", "/s", "good/s", "p50", "p95", "p99"]
    for kind in kinds:
        head += [f"{kind} p50", "p99"]
    head += ["busy", "batch", "padding", "spilled", "stolen", "refused"]
    with_cpu = any(row.cpu_seconds_per_1000 is not None for row in rows)
    if with_cpu:
        head.append("CPU s/1000")
    lines = [head]
    for row in rows:
        overall = row.latency
        good = "-" if row.goodput_per_second is None else f"{row.goodput_per_second:.1f}"
        line = [row.name, f"{row.per_second:.1f}", good]
        line += [milliseconds(overall.p50_ms), milliseconds(overall.p95_ms), milliseconds(overall.p99_ms)]
        for kind in kinds:
            of_kind = row.classes.get(kind, Latency())
            line += [milliseconds(of_kind.p50_ms), milliseconds(of_kind.p99_ms)]
        line += [
            _busy(row.instances),
            "-" if row.batch_mean is None else f"{row.batch_mean:.2f}",
            "-" if row.padding_ratio is None else f"{row.padding_ratio:.1%}",
            "-" if row.spilled is None else str(row.spilled),
            "-" if row.stolen is None else str(row.stolen),
            _reasons(row.refused),
        ]
        if with_cpu:
            line.append("-" if row.cpu_seconds_per_1000 is None else f"{row.cpu_seconds_per_1000:.2f}")
        lines.append(line)
    return aligned(lines)


def _busy(instances: Sequence[InstanceRow]) -> str:
    if not instances:
        return "-"
    shares = sorted(one.utilisation for one in instances)
    if len(shares) == 1:
        return f"{shares[0]:.0%}"
    return f"{shares[0]:.0%} to {shares[-1]:.0%}"


def _reasons(refused: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items())) or "0"
