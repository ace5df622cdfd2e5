"""How long does a child wait before it is started again, and when is it no longer? Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Doubles from `first` to `most` seconds, with ± `jitter`; a run of `good_run` seconds forgets the failures before it."""

    first: float = 0.1
    most: float = 30.0
    jitter: float = 0.25
    good_run: float = 10.0
    served: float = 1.0
    """The most after a run that had become ready: what comes back and serves is worth the seconds that its start costs, and only a start
    that fails is likely to fail again."""

    def delay(self, failures: int, rng: random.Random, *, was_ready: bool = False) -> float:
        """Seconds to wait after the `failures`-th failure in a row (1, 2, …); `was_ready`: this run had got so far."""
        # 2**20 × 0.1 s is over a day: beyond that the exponent would only overflow.
        plain = min(self.served if was_ready else self.most, self.first * 2.0 ** min(failures - 1, 20))
        return plain * (1 + self.jitter * (2 * rng.random() - 1))


@dataclass(frozen=True, slots=True)
class Flapping:
    """`failures` within `window` seconds, ready between them or not, are too many: it stays down and says why."""

    failures: int = 10
    window: float = 600.0
