"""Which part dies when, and how? From a seed, so that a bad run can be had again. Pure.

Signals to workers, router and gateways in random order. In the last part of a run (`CALM_SHARE`) only workers die: so router and
gateways live long enough, and through enough deaths of workers, for their memory and descriptors to be judged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

CALM_SHARE = 0.4
STOP_APART_SECONDS = 9.0
"""Between two SIGSTOPs. A stopped worker is found out after five seconds; were the one that takes over its requests stopped within them,
a request would have seen two workers die, which by design is refused as poison."""

# How often, relative to each other.
PARTS = {"worker": 6, "router": 2, "gateway": 2}
SIGNALS = {"SIGKILL": 4, "SIGSEGV": 3, "SIGTERM": 2, "SIGSTOP": 1}


@dataclass(frozen=True, slots=True)
class Blow:
    at: float
    """Seconds after the load began."""
    part: str
    signal: str


def schedule(seed: int, seconds: float, kills: int, workers: list[str], gateways: list[str]) -> list[Blow]:
    """`kills` blows, one in each equal slice of the time, at a random moment of it."""
    rng = random.Random(seed)
    named = {"worker": workers, "router": ["router"], "gateway": gateways}
    slice_seconds = seconds / kills
    blows: list[Blow] = []
    stopped_at = -STOP_APART_SECONDS
    for number in range(kills):
        at = (number + rng.uniform(0.1, 0.9)) * slice_seconds
        calm = at >= (1 - CALM_SHARE) * seconds
        kind = "worker" if calm else rng.choices(list(PARTS), list(PARTS.values()))[0]
        part = rng.choice(named[kind])
        signal = rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        if signal == "SIGSTOP":
            if at - stopped_at < STOP_APART_SECONDS:
                signal = "SIGKILL"
            else:
                stopped_at = at
        blows.append(Blow(at, part, signal))
    return blows
