"""How long will this batch take on that instance? Pure.

seconds = factor · (a + b·tokens + c·length²·n), with tokens = length·n, padding included: a call's overhead, the products
that grow with tokens, the attention that grows with the square of the length. The shape comes from a default per number of
threads, or from a measurement; the factor is corrected online from what was observed, so a slow instance (heat, a noisy
neighbour) is predicted slow after a few batches and sheds load by itself.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

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


class Shape(msgspec.Struct, frozen=True):
    """Seconds per call, per token and per squared length of each sequence."""

    call: float
    token: float
    square: float

    def seconds(self, length: int, n: int) -> float:
        return self.call + (self.token + self.square * length) * length * n


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
    observations: int = 0

    def seconds(self, length: int, n: int) -> float:
        """Predicted service time of `n` sequences padded to `length` tokens."""
        shape = self.shape
        return self.factor * (shape.call + (shape.token + shape.square * length) * length * n)

    def observe(self, predicted: float, observed: float) -> None:
        """One batch took `observed` seconds where `predicted` were expected (with the factor of that time or now: the same
        weight either way). The first batches count in full, so that a wrong default lasts for one batch."""
        if predicted <= 0.0 or observed <= 0.0:
            return
        self.observations += 1
        weight = 1.0 / self.observations
        if weight < _LEAST_WEIGHT:
            weight = _LEAST_WEIGHT
        factor = self.factor * (1.0 + weight * (observed / predicted - 1.0))
        self.factor = min(max(factor, _FASTEST), _SLOWEST)

    @property
    def trusted(self) -> bool:
        """Whether enough was observed to refuse a request on the strength of a prediction."""
        return self.observations >= 8
