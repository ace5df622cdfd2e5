"""How long does a batch really take on an instance that is not there? Pure.

Theory of operation. A table holds measured points (threads, batch, length → seconds). Between the points of one thread
seconds are interpolated linearly, first over the length within each measured batch, then over the batch; beyond the
last point the last slope goes on, before the first one a call costs what the first costs in proportion, never less than nothing.

An instance with more threads is scaled from one thread by

    seconds(p) = sync · log2(p) + seconds(1) · (serial + (1 − serial) / p)

Amdahl's law (AFIPS 1967) plus one barrier tree per call that deepens with the logarithm of the threads: short input, whose
products are too small to split, pays the barrier and gains nothing; long input meets the serial share. `serial` and `sync` are
the least squares of the relative error over the measured points of more than one thread, or said by the file. Where a number of
threads was measured in part, the law is corrected by the ratio of measured to predicted at the nearest measured place. An instance whose
cores lie on several NUMA nodes is slower by `remote`: ONNX Runtime's documentation reports about 20 % won by staying on
one node.

The router knows nothing of this: it fits its own shape (`orchestrator.router.cost`) to the few points that a worker measures before it
is ready, and corrects that by what it sees.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import log2
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from workers.wire import Cost

# The shapes of `workers.costs`, which cannot be imported without numpy.
_WORKER_LENGTHS: Final = (8, 16, 32, 64, 128, 256, 512)
_WORKER_BATCHES: Final = (1, 2, 8)
_WORKER_TOKENS: Final = 1024

VERSION: Final = 1
REMOTE_FACTOR: Final = 1.25


class CostError(Exception):
    """A cost table that cannot be used: says which, what is wrong with it, and what to do."""


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    threads: Annotated[int, Meta(ge=1, le=1 << 16)]
    batch: Annotated[int, Meta(ge=1, le=1 << 16)]
    length: Annotated[int, Meta(ge=1, le=1 << 20)]
    """Tokens of each sequence."""
    seconds: Annotated[float, Meta(gt=0.0, le=3600.0)]
    """Of one call of the engine."""


class Scaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    serial: Annotated[float, Meta(ge=0.0, le=1.0)]
    """Share of a call's time that more threads do not shorten."""
    sync_seconds: Annotated[float, Meta(ge=0.0, le=1.0)]
    """Added to a call per doubling of the threads."""
    remote: Annotated[float, Meta(ge=1.0, le=100.0)] = REMOTE_FACTOR
    """Factor where the cores lie on more than one NUMA node."""

    def seconds(self, alone: float, threads: int) -> float:
        """What takes `alone` seconds with one thread."""
        if threads == 1:
            return alone
        return self.sync_seconds * log2(threads) + alone * (self.serial + (1.0 - self.serial) / threads)


class Crowd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many times as long one sequence of `length` tokens takes while all cores of the machine compute such sequences."""

    length: Annotated[int, Meta(ge=1, le=1 << 20)]
    factor: Annotated[float, Meta(ge=0.5, le=100.0)]


class CostFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file as it is written by `orchestrator bench matrix --costs-out FILE`."""

    version: int
    model: str
    engine: str
    engine_version: str
    precision: str
    cpu: str
    """Model name of the CPU it was measured on, as the kernel gives it."""
    source: str = ""
    """How it was measured."""
    scaling: Scaling | None = None
    """Omitted: fitted to the points of more than one thread."""
    crowded: list[Crowd] = []
    """Omitted: instances are assumed not to slow each other down."""
    points: Annotated[list[Point], Meta(min_length=2)]


class _Line:
    """Seconds over one variable, given at ascending places."""

    __slots__ = ("at", "seconds")

    def __init__(self, at: Sequence[int], seconds: Sequence[float]) -> None:
        self.at = at
        self.seconds = seconds

    def __call__(self, x: float) -> float:
        at, seconds = self.at, self.seconds
        if len(at) == 1:
            return seconds[0] * x / at[0]
        upper = min(max(bisect_left(at, x), 1), len(at) - 1)
        lower = upper - 1
        slope = (seconds[upper] - seconds[lower]) / (at[upper] - at[lower])
        # Noise may make a short row fall; more tokens are never cheaper than proportion allows.
        return max(seconds[lower] + slope * (x - at[lower]), seconds[0] * min(1.0, x / at[0]))


class _Surface:
    """Seconds over (batch, length) at one number of threads."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._rows: list[tuple[int, _Line]] = []
        for batch in sorted({point.batch for point in points}):
            row = sorted((point.length, point.seconds) for point in points if point.batch == batch)
            self._rows.append((batch, _Line([length for length, _ in row], [seconds for _, seconds in row])))

    def seconds(self, n: int, length: int) -> float:
        here = [(batch, row(length)) for batch, row in self._rows]
        if len(here) == 1:  # only one batch size was measured: no gain from batching is assumed
            return here[0][1] * n / here[0][0]
        return _Line([batch for batch, _ in here], [seconds for _, seconds in here])(n)

    def nearest(self, n: int, length: int) -> tuple[int, int]:
        """The place nearest to this one that lies between measured ones."""
        batches = [batch for batch, _ in self._rows]
        n = min(max(n, batches[0]), batches[-1])
        at = self._rows[min(bisect_left(batches, n), len(batches) - 1)][1].at
        return n, min(max(length, at[0]), at[-1])


class TrueCosts:
    """What the simulated workers take, before noise. CostError if the table says too little."""

    def __init__(self, file: CostFile, name: str = "cost table") -> None:
        self.file = file
        by_threads: dict[int, list[Point]] = {}
        seen: set[tuple[int, int, int]] = set()
        for point in file.points:
            key = (point.threads, point.batch, point.length)
            if key in seen:
                raise CostError(
                    f"{name}: measured twice: {point.threads} threads, batch {point.batch}, length {point.length}; keep one"
                )
            seen.add(key)
            by_threads.setdefault(point.threads, []).append(point)
        if 1 not in by_threads:
            raise CostError(f"{name}: no points with one thread, which all others are scaled from; measure it too")
        if len({point.length for point in by_threads[1]}) < 2:
            raise CostError(
                f"{name}: one length measured with one thread: it takes two or more to tell what a token costs"
            )
        self._surfaces = {threads: _Surface(points) for threads, points in by_threads.items()}
        self._scaling = file.scaling or _fit(self._surfaces[1], [p for p in file.points if p.threads > 1])
        crowded = sorted((each.length, each.factor) for each in file.crowded)
        if len({length for length, _ in crowded}) < len(crowded):
            raise CostError(f'{name}: "crowded" names a length twice; keep one')
        self._crowded = crowded
        self._name = name
        self._known: dict[tuple[int, bool, int, int], float] = {}

    @property
    def scaling(self) -> Scaling | None:
        """None where nothing but one thread was measured and the file says nothing."""
        return self._scaling

    @property
    def crowds(self) -> bool:
        """Whether it says how instances slow each other down."""
        return bool(self._crowded)

    def crowding(self, length: int) -> float:
        """How many times as long a batch of this length takes while all other cores compute; 1.0 where nothing is said.

        Between two measured lengths it is interpolated, outside of all the nearest one counts.
        """
        known = self._crowded
        at = bisect_left(known, (length, 0.0))
        if not known or at == 0:
            return known[0][1] if known else 1.0
        if at == len(known):
            return known[-1][1]
        (low, before), (high, behind) = known[at - 1], known[at]
        return before + (behind - before) * (length - low) / (high - low)

    def seconds(self, threads: int, crosses_nodes: bool, n: int, length: int) -> float:
        """Service time of `n` sequences padded to `length` tokens."""
        key = (threads, crosses_nodes, n, length)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._computed(threads, crosses_nodes, n, length)
        return found

    def _computed(self, threads: int, crosses_nodes: bool, n: int, length: int) -> float:
        alone = self._surfaces[1].seconds(n, length)
        remote = 1.0
        if crosses_nodes:
            remote = self._scaling.remote if self._scaling is not None else REMOTE_FACTOR
        if threads == 1:
            return alone * remote
        if self._scaling is None:
            raise CostError(
                f"{self._name}: measured with one thread only, and an instance has {threads}; "
                'measure with more threads too, or say "scaling"'
            )
        scaled = self._scaling.seconds(alone, threads)
        surface = self._surfaces.get(threads)
        if surface is not None:
            there = surface.nearest(n, length)
            scaled *= surface.seconds(*there) / self._scaling.seconds(self._surfaces[1].seconds(*there), threads)
        return scaled * remote

    def measured(self, threads: int, crosses_nodes: bool, longest: int) -> tuple[Cost, ...]:
        """What a worker of this size would have measured before it was ready, on a machine with nothing else to do."""
        return tuple(
            Cost(length, n, self.seconds(threads, crosses_nodes, n, length))
            for n in _WORKER_BATCHES
            for length in _WORKER_LENGTHS
            if length <= longest and (n == 1 or n * length <= _WORKER_TOKENS)
        )


def decode_costs(raw: bytes, name: str) -> CostFile:
    """CostError with the place if this is no cost table."""
    try:
        file = msgspec.json.decode(raw, type=CostFile)
    except msgspec.DecodeError as error:
        raise CostError(
            f"{name}: not a cost table: {error}; make one with `orchestrator bench matrix --costs-out FILE`"
        ) from None
    if file.version != VERSION:
        raise CostError(
            f"{name}: format {file.version}, this program reads {VERSION}; measure anew with `orchestrator bench matrix --costs-out FILE`"
        )
    return file


def encode_costs(file: CostFile) -> str:
    """The file's text."""
    return msgspec.json.format(msgspec.json.encode(file), indent=1).decode() + "\n"


def refuse_foreign(file: CostFile, name: str, cpu: str, engine_version: str | None) -> None:
    """CostError if the table is of another CPU than this one or was made with another version of the engine."""
    again = "measure anew with `orchestrator bench matrix --costs-out FILE`, or say --any-costs to use it all the same"
    if file.cpu != cpu:
        raise CostError(
            f"{name}: measured on {file.cpu or 'an unnamed CPU'}, the machine is {cpu or 'unnamed'}; {again}"
        )
    if engine_version is not None and file.engine_version != engine_version:
        raise CostError(
            f"{name}: stale: measured with {file.engine} {file.engine_version}, {engine_version} is installed; {again}"
        )


def _fit(one: _Surface, points: Sequence[Point]) -> Scaling | None:
    """Least squares over seconds(p) = sync·log2 p + alone·(1/p) + serial·alone·(1 − 1/p)."""
    rows = []
    for point in points:
        alone = one.seconds(point.batch, point.length)
        gain = alone * (1.0 - 1.0 / point.threads) / point.seconds
        rows.append(((gain, log2(point.threads) / point.seconds), 1.0 - alone / point.threads / point.seconds))
    if not rows:
        return None
    serial, sync = _non_negative(rows)
    return Scaling(min(serial, 1.0), sync)


def _non_negative(rows: Sequence[tuple[tuple[float, ...], float]]) -> list[float]:
    """Least squares with no coefficient below zero, by coordinate descent: few columns, a convex problem (Lawson and Hanson 1974)."""
    width = len(rows[0][0])
    scale = [sum(row[k] ** 2 for row, _ in rows) ** 0.5 or 1.0 for k in range(width)]
    gram = [[sum(r[i] * r[k] for r, _ in rows) / (scale[i] * scale[k]) for k in range(width)] for i in range(width)]
    against = [sum(r[k] * y for r, y in rows) / scale[k] for k in range(width)]
    found = [0.0] * width
    for _ in range(2000):
        for k in range(width):
            if gram[k][k] > 0.0:
                rest = against[k] - sum(gram[k][i] * found[i] for i in range(width) if i != k)
                found[k] = max(0.0, rest / gram[k][k])
    return [value / scale[k] for k, value in enumerate(found)]
