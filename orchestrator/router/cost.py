"""How long will this batch take on that instance? Pure.

seconds = overhead + factor · (a + b·tokens + c·length²·n), with tokens = length·n, padding included: a call's overhead, the products
that grow with tokens, the attention that grows with the square of the length. The shape is fitted to what the worker
measured before it was ready (`workers.costs`), else it comes from a default per number of threads. Overhead and factor are corrected
online from what was observed, so a slow instance (heat, a noisy neighbour) is predicted slow after a few batches and sheds
load by itself. They are told apart by the worker, which says how long its engine took: messages and wake-ups cost a batch of short
sequences half as much again, and a long one nothing that counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, Protocol

import msgspec

from workers.wire import Cost

# all-MiniLM-L6-v2, int8, one core, least squares through 1.00, 3.22, 6.34, 29.6, 43.6 ms at 16, 64, 128, 384, 512 tokens.
_CALL_SECONDS: Final = 0.4e-3
_TOKEN_SECONDS: Final = 38e-6
_SQUARE_SECONDS: Final = 0.09e-6
# Measured from one core to two: 1.0 × at 16 tokens, 1.39 × at 128. A call's overhead does not scale at all.
_THREADS_EXPONENT: Final = 0.55

_SLOWEST: Final = 200.0
_FASTEST: Final = 0.005
# An error of one batch moves the factor by at least a tenth of it: a step in speed is 90 % learnt after 22 batches.
_LEAST_WEIGHT: Final = 0.1
_EARLY_SECONDS: Final = 0.05
"""A worker begins with a prefetched batch before the router has its last result: so much later than the worker may the router be."""


class Shape(msgspec.Struct, frozen=True):
    """Seconds per call, per token and per squared length of each sequence."""

    call: float
    token: float
    square: float

    def seconds(self, length: int, n: int) -> float:
        return self.call + (self.token + self.square * length) * length * n


def fitted(points: Sequence[Cost]) -> Shape | None:
    """The shape with the least squares of the relative error over measured points; None if they cannot be of an engine.

    No parameter may be negative: of all choices of parameters that are not zero the best one is taken (Lawson and Hanson 1974;
    three parameters have seven choices). Few points leave parameters at zero.
    """
    usable = [one for one in points if one.length >= 1 and one.n >= 1 and 0.0 < one.seconds < inf]
    if not usable or len(usable) < len(points):
        return None
    rows = []
    for one in usable:
        tokens = one.length * one.n
        rows.append((1.0 / one.seconds, tokens / one.seconds, one.length * tokens / one.seconds))
    best, least = None, inf
    for chosen in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        values = _least_squares([[row[k] for k in chosen] for row in rows])
        if values is None or min(values) < 0.0:
            continue
        full = [0.0, 0.0, 0.0]
        for k, value in zip(chosen, values, strict=True):
            full[k] = value
        error = sum((sum(a * b for a, b in zip(full, row, strict=True)) - 1.0) ** 2 for row in rows)
        if error < least - 1e-12:
            best, least = Shape(*full), error
    return best


def _least_squares(rows: list[list[float]]) -> list[float] | None:
    """x with |rows·x − 1| least, by Cramer's rule on normal equations of scaled columns; None if they are singular."""
    width = len(rows[0])
    scale = [sum(row[k] ** 2 for row in rows) ** 0.5 for k in range(width)]
    gram = [[sum(row[i] * row[k] for row in rows) / (scale[i] * scale[k]) for k in range(width)] for i in range(width)]
    against = [sum(row[k] for row in rows) / scale[k] for k in range(width)]
    whole = _determinant(gram)
    if whole < 1e-9:
        return None
    found = []
    for k in range(width):
        replaced = [[against[i] if j == k else gram[i][j] for j in range(width)] for i in range(width)]
        found.append(_determinant(replaced) / whole / scale[k])
    return found


def _determinant(m: list[list[float]]) -> float:
    if len(m) == 1:
        return m[0][0]
    if len(m) == 2:
        return m[0][0] * m[1][1] - m[0][1] * m[1][0]
    return sum(
        m[0][k] * (m[1][(k + 1) % 3] * m[2][(k + 2) % 3] - m[1][(k + 2) % 3] * m[2][(k + 1) % 3]) for k in range(3)
    )


class CostTable(Protocol):
    """Where shapes come from: the default below, or a table that was measured on this CPU with this model."""

    def shape(self, instance: str, threads: int) -> Shape: ...


class DefaultCosts(msgspec.Struct, frozen=True):
    """One measured small model scaled by threads. The factor, corrected online, makes up for the rest."""

    def shape(self, instance: str, threads: int) -> Shape:  # noqa: ARG002 - a measured table knows instances by name
        scale = max(1, threads) ** -_THREADS_EXPONENT
        return Shape(_CALL_SECONDS, _TOKEN_SECONDS * scale, _SQUARE_SECONDS * scale)


class Predictor(msgspec.Struct):
    """The costs of one instance, corrected by what it was seen to take."""

    shape: Shape
    factor: float = 1.0
    """How many times as long as `shape` the engine takes."""
    overhead: float = 0.0
    """Seconds per batch from sending to its result, without the engine's."""
    observations: int = 0

    def seconds(self, length: int, n: int) -> float:
        """Predicted service time of `n` sequences padded to `length` tokens."""
        shape = self.shape
        return self.overhead + self.factor * (shape.call + (shape.token + shape.square * length) * length * n)

    def room(self, seconds: float) -> float:
        """How much of `shape` fits into `seconds`."""
        return (seconds - self.overhead) / self.factor

    def observe(self, length: int, n: int, engine: float, observed: float) -> None:
        """A batch took `observed` seconds, of which the worker says `engine` were its engine's; where it cannot have been so, all count
        as that. The first batches count in full, so that a wrong default lasts for one batch."""
        expected = self.shape.seconds(length, n)
        if expected <= 0.0 or observed <= 0.0:
            return
        if not 0.0 < engine <= observed + _EARLY_SECONDS:
            engine = observed
        self.observations += 1
        weight = 1.0 / self.observations
        if weight < _LEAST_WEIGHT:
            weight = _LEAST_WEIGHT
        self.factor += weight * (min(max(engine / expected, _FASTEST), _SLOWEST) - self.factor)
        self.overhead += weight * (max(0.0, observed - engine) - self.overhead)

    @property
    def trusted(self) -> bool:
        """Whether enough was observed to refuse a request on the strength of a prediction."""
        return self.observations >= 8
