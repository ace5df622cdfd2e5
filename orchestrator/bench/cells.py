"""What is one cell of the measured matrix, and which figures does it have? Pure.

A cell is one shape (batch, length) of one form of a model (engine, precision) on one placement: so many instances at once, each on so
many cores of its own. All instances run the same shape over and over at the same time, so that what they share (memory bandwidth,
caches, clock) shows.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from orchestrator.bench.rows import quantile
from workers.spec import Artefact, Binding

NOISY = 0.10
"""Spread from which on a row is marked: twice what the rounds of an idle machine differ by."""
DISTURBED = 0.05
"""Share of the time that an instance's threads waited for a CPU that something else had, from which on a row is marked."""


class Shape(msgspec.Struct, frozen=True, order=True):
    """Of one call of the engine."""

    batch: int
    """Sequences, or images."""
    length: int
    """Tokens of each."""


class Place(msgspec.Struct, frozen=True):
    """Where one instance runs."""

    cpus: tuple[int, ...]
    """One PU per physical core, and a thread on each."""
    membind: tuple[int, ...]
    """Nodes of its memory; empty: not bound."""


class Placement(msgspec.Struct, frozen=True):
    """The instances that run at once."""

    cores: int
    """Of each instance."""
    places: tuple[Place, ...]
    nodes_on_machine: int
    """With memory; one needs no policy."""

    @property
    def instances(self) -> int:
        return len(self.places)


class Subject(msgspec.Struct, frozen=True):
    """A form of a model."""

    model: str
    artefacts: dict[int, Artefact]
    """What an instance loads whose memory is on this node; 0 where memory is not bound."""

    @property
    def engine(self) -> str:
        return next(iter(self.artefacts.values())).engine

    @property
    def precision(self) -> str:
        return next(iter(self.artefacts.values())).precision

    def artefact(self, place: Place) -> Artefact:
        return self.artefacts[place.membind[0] if place.membind else 0]


class Visit(msgspec.Struct, frozen=True):
    """Parent → measuring process: run this shape once, then from `at` on over and over for `seconds`."""

    shape: Shape
    at: float
    """Of CLOCK_MONOTONIC, which all processes of a host share."""
    seconds: float
    """0: once and no more, to warm up; the answer's shape and numbers are checked then."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded"):
    """Measuring process → parent: bound and loaded."""

    seconds: float
    binding: Binding


class Seen(msgspec.Struct, frozen=True, tag="seen"):
    """Measuring process → parent: what one visit showed."""

    first: float
    """Seconds of the first run, which came after another shape."""
    runs: list[float]
    """Seconds of each run after it."""
    cpu_seconds: float
    """Of the whole process during `runs`."""
    waited_seconds: float | None
    """How long its threads could have run and did not during `runs`, all together; None where the kernel does not say."""
    private_bytes: int
    rss_bytes: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Measuring process → parent: cannot, in its own words. It goes on where a visit failed, and ends where loading did."""

    error: str


FromCell = Loaded | Seen | Failed


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """One cell. Times are milliseconds of one call of the engine, over all instances and rounds together."""

    model: str
    engine: str
    precision: str
    instances: int
    cores: int
    """Of each instance; as many threads."""
    cpus: list[list[int]]
    """Of each instance."""
    batch: int
    length: int
    runs: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    min_ms: float
    first_ms: float
    """Median of the runs that came straight after another shape."""
    sequences_per_second: float
    """All instances together."""
    tokens_per_second: float
    cpu_seconds_per_1000: float
    """CPU time of all threads per 1,000 sequences."""
    private_mib: float
    """Memory of one instance that no other process shares, mean."""
    rss_mib: float
    spread: float | None
    """How much longer the median of the slowest round is than that of the fastest, 0.1 = 10 %; None with one round."""
    waited: float | None
    """Share of the time that threads waited for a CPU that something else had; None where the kernel does not say."""

    @property
    def noisy(self) -> bool:
        """Whether something else used these CPUs."""
        return (self.spread or 0.0) > NOISY or (self.waited or 0.0) > DISTURBED


class LostCell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that could not be measured; batch and length None: nothing of this form on this placement could."""

    model: str
    engine: str
    precision: str
    instances: int
    cores: int
    cpus: list[list[int]]
    batch: int | None
    length: int | None
    error: str

    def __str__(self) -> str:
        what = "" if self.batch is None else f", batch {self.batch}, {self.length} tokens"
        where = f"{self.instances} × {self.cores} core{'s' if self.cores > 1 else ''}"
        return f"{self.precision} on {self.engine}, {where}{what}: not measured: {self.error}"


def row_of(subject: Subject, placement: Placement, shape: Shape, rounds: Sequence[Sequence[Seen]]) -> MatrixRow:
    """The figures of one cell: `rounds` holds, per round, what each instance saw; at least one round with at least one run each."""
    every = [seen for round_ in rounds for seen in round_]
    runs = sorted(took for seen in every for took in seen.runs)
    medians = [statistics.median(took for seen in round_ for took in seen.runs) for round_ in rounds]
    by_instance = list(zip(*rounds, strict=True))
    per_second = sum(
        shape.batch * sum(len(seen.runs) for seen in mine) / sum(sum(seen.runs) for seen in mine)
        for mine in by_instance
    )
    last = rounds[-1]
    waited = [seen.waited_seconds for seen in every if seen.waited_seconds is not None]
    return MatrixRow(
        model=subject.model,
        engine=subject.engine,
        precision=subject.precision,
        instances=placement.instances,
        cores=placement.cores,
        cpus=[list(place.cpus) for place in placement.places],
        batch=shape.batch,
        length=shape.length,
        runs=len(runs),
        p50_ms=_ms(statistics.median(runs)),
        p95_ms=_ms(quantile(runs, 0.95)),
        p99_ms=_ms(quantile(runs, 0.99)),
        min_ms=_ms(runs[0]),
        first_ms=_ms(statistics.median(seen.first for seen in every)),
        sequences_per_second=round(per_second, 2),
        tokens_per_second=round(per_second * shape.length, 1),
        cpu_seconds_per_1000=round(sum(seen.cpu_seconds for seen in every) / (len(runs) * shape.batch) * 1e3, 4),
        private_mib=_mib(seen.private_bytes for seen in last),
        rss_mib=_mib(seen.rss_bytes for seen in last),
        spread=round(max(medians) / min(medians) - 1.0, 4) if len(medians) > 1 else None,
        waited=round(sum(waited) / (sum(runs) * placement.cores), 4) if len(waited) == len(every) else None,
    )


def lost(subject: Subject, placement: Placement, shape: Shape | None, error: str) -> LostCell:
    return LostCell(
        model=subject.model,
        engine=subject.engine,
        precision=subject.precision,
        instances=placement.instances,
        cores=placement.cores,
        cpus=[list(place.cpus) for place in placement.places],
        batch=None if shape is None else shape.batch,
        length=None if shape is None else shape.length,
        error=error,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 4)


def _mib(sizes: Iterable[int]) -> float:
    return round(statistics.mean(sizes) / (1 << 20), 1)
