"""Which row do the rounds of one load make? Pure."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from orchestrator.bench.rows import Latency, LoadRow, ServedBy, latency, quantile

LATE_SECONDS = 0.005
LATE_SHARE = 0.1
"""A generator whose p99 of lag is over both 5 ms and a tenth of the p99 that it measured has measured itself."""
_TIMING = re.compile(rb"([a-z]+);dur=([0-9.]+)")
_HEADER = re.compile(rb"\r\n(server-timing|x-instance|x-batch-size): *([^\r]*)")


@dataclass(frozen=True)
class Load:
    """What was asked for; exactly one of the two."""

    rate: float | None = None
    """Requests per second, as they come."""
    in_flight: int | None = None

    def __str__(self) -> str:
        return f"{self.rate:g}/s" if self.rate is not None else f"{self.in_flight} in flight"


class Seen(Protocol):
    """One round, as `load.LoadResult` gives it."""

    seconds: float
    window: float
    in_time: int
    latencies: list[float]
    by_kind: dict[str, list[float]]
    failures: dict[int, int]
    broken: dict[str, int]
    heads: list[bytes]
    lags: list[float]
    held_back: int

    @property
    def per_second(self) -> float: ...


class Ratio(msgspec.Struct, frozen=True):
    """One contestant against the first, round by round; medians over the rounds."""

    name: str
    against: str
    load: str
    per_second: float
    p50: float
    p99: float


def load_row(
    name: str, load: Load, rounds: Sequence[Seen], goodput_ms: float, cpu_seconds: float | None = None
) -> LoadRow:
    """Throughput is the median over the rounds, latencies are of all of them; `cpu_seconds`: of the server, over all."""
    every = [took for each in rounds for took in each.latencies]
    window = sum(each.window for each in rounds)
    rates = [each.per_second for each in rounds]
    refused: Counter[str] = Counter()
    kinds: dict[str, list[float]] = {}
    for each in rounds:
        refused.update({str(code): count for code, count in each.failures.items()})
        refused.update(each.broken)
        for kind, took in each.by_kind.items():
            kinds.setdefault(kind, []).extend(took)
    stages, served_by, batches = _heads(rounds)
    overall = latency(every)
    lags = sorted(lag for each in rounds for lag in each.lags)
    lag = quantile(lags, 0.99) if lags else None
    due = len(every) + refused.total()
    per_second = statistics.median(rates)
    good = sum(took * 1e3 <= goodput_ms for took in every)
    return LoadRow(
        name=name,
        seconds=round(sum(each.seconds for each in rounds), 3),
        per_second=round(per_second, 2),
        # A share of what counts as throughput, which leaves out what was answered after the window.
        goodput_per_second=round(per_second * good / len(every), 2) if every else 0.0,
        goodput_ms=goodput_ms,
        latency=overall,
        classes={kind: latency(took) for kind, took in sorted(kinds.items()) if kind},
        refused=dict(sorted(refused.items())),
        batch_mean=round(statistics.mean(batches), 3) if batches else None,
        cpu_seconds_per_1000=None if cpu_seconds is None or not every else round(cpu_seconds / len(every) * 1e3, 3),
        load=str(load),
        rate=load.rate,
        offered_per_second=round(due / window, 2) if load.rate is not None else None,
        in_flight=load.in_flight,
        rounds=len(rounds),
        spread=round(max(rates) / min(rates) - 1.0, 4) if len(rates) > 1 and min(rates) > 0.0 else None,
        stages=stages,
        served_by=served_by,
        lag_p99_ms=None if lag is None else round(lag * 1e3, 3),
        held_back=sum(each.held_back for each in rounds),
        invalid=_invalid(lag, overall, every),
    )


def ratios(load: Load, rounds: dict[str, Sequence[Seen]]) -> list[Ratio]:
    """Of each contestant to the first one. A round in which either answered nothing compares nothing."""
    names = list(rounds)
    found = []
    for name in names[1:]:
        pairs = [(a, b) for a, b in zip(rounds[name], rounds[names[0]], strict=True) if a.latencies and b.latencies]
        if pairs:
            found.append(
                Ratio(
                    name, names[0], str(load),
                    round(statistics.median(a.per_second / b.per_second for a, b in pairs if b.per_second), 3),
                    round(statistics.median(_at(a, 0.5) / _at(b, 0.5) for a, b in pairs), 3),
                    round(statistics.median(_at(a, 0.99) / _at(b, 0.99) for a, b in pairs), 3),
                )
            )  # fmt: skip
    return found


def is_fine(row: LoadRow, p99_ms: float) -> bool:
    """Whether a server bears this rate: everything answered, and its p99 within the limit."""
    return not row.refused and row.latency.p99_ms is not None and row.latency.p99_ms <= p99_ms


def _at(seen: Seen, share: float) -> float:
    return quantile(sorted(seen.latencies), share)


def _invalid(lag: float | None, overall: Latency, every: Sequence[float]) -> str | None:
    if not every:
        return "nothing was answered"
    assert overall.p99_ms is not None
    if lag is not None and lag > max(LATE_SECONDS, LATE_SHARE * overall.p99_ms / 1e3):
        return f"the generator was late itself: p99 {lag * 1e3:.1f} ms; lower the rate, or run it on another machine"
    return None


def _heads(rounds: Sequence[Seen]) -> tuple[dict[str, Latency], dict[str, ServedBy], list[int]]:
    """What the answers' headers say: by stage, by instance, and the sizes of the batches."""
    stages: dict[str, list[float]] = {}
    instances: dict[str, tuple[list[float], list[int]]] = {}
    batches: list[int] = []
    for each in rounds:
        for took, head in zip(each.latencies, each.heads, strict=True):
            found = dict(_HEADER.findall(head))
            for stage, milliseconds in _TIMING.findall(found.get(b"server-timing", b"")):
                stages.setdefault(stage.decode(), []).append(float(milliseconds) / 1e3)
            size = found.get(b"x-batch-size", b"")
            if size.isdigit():
                batches.append(int(size))
            if b"x-instance" in found:
                took_there, sizes = instances.setdefault(found[b"x-instance"].decode("ascii", "replace"), ([], []))
                took_there.append(took)
                sizes.append(int(size) if size.isdigit() else 1)
    served_by = {}
    for name, (latencies, sizes) in sorted(instances.items()):
        of = latency(latencies)
        assert of.p50_ms is not None
        assert of.p99_ms is not None
        served_by[name] = ServedBy(len(latencies), of.p50_ms, of.p99_ms, round(statistics.mean(sizes), 3))
    return {stage: latency(took) for stage, took in stages.items()}, served_by, batches
