"""When are requests due where they come by themselves? Seeded, so that each contestant gets the same ones. Pure."""

from __future__ import annotations

import random


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Seconds from the start, ascending, all before `seconds`; `rate` per second in the mean, independent of one another."""
    rng = random.Random(seed)
    due, found = rng.expovariate(rate), []
    while due < seconds:
        found.append(due)
        due += rng.expovariate(rate)
    return found
