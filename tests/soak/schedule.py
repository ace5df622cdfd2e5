"""Which part dies when, and how, and what does an operator do meanwhile? From a seed, so that a bad run can be had again. Pure.

Signals to workers, router and gateways in random order; now and then to every worker at once; and between them operations. In the last
part of a run (`CALM_SHARE`) only workers die: so router and gateways live long enough, and through enough deaths of workers, for their
memory and descriptors to be judged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

CALM_SHARE = 0.4
STOP_APART_SECONDS = 9.0
"""Between two SIGSTOPs: each holds up some requests until it is found out, after five seconds."""
KILLS_PER_OPERATION = 15

# How often, relative to each other.
PARTS = {"worker": 11, "every worker": 1, "router": 4, "gateway": 4}
SIGNALS = {"SIGKILL": 4, "SIGSEGV": 3, "SIGTERM": 2, "SIGSTOP": 1}
EVERY_WORKER = "every worker"
OPERATIONS = ("restart", "drain and resume", "restart --all", "reload", "restart router", "restart gateway")


@dataclass(frozen=True, slots=True)
class Blow:
    at: float
    """Seconds after the load began."""
    part: str
    how: str
    """The name of a signal, or one of OPERATIONS."""

    @property
    def is_operation(self) -> bool:
        return self.how in OPERATIONS


def schedule(seed: int, seconds: float, kills: int, workers: list[str], gateways: list[str]) -> list[Blow]:
    """`kills` blows, one in each equal slice of the time, at a random moment of it, and an operation for every KILLS_PER_OPERATION."""
    rng = random.Random(seed)
    named = {"worker": workers, EVERY_WORKER: [EVERY_WORKER], "router": ["router"], "gateway": gateways}
    slice_seconds = seconds / kills
    blows: list[Blow] = []
    stopped_at = -STOP_APART_SECONDS
    for number in range(kills):
        at = (number + rng.uniform(0.1, 0.9)) * slice_seconds
        calm = at >= (1 - CALM_SHARE) * seconds
        kind = "worker" if calm else rng.choices(list(PARTS), list(PARTS.values()))[0]
        signal = rng.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        if kind == EVERY_WORKER and signal == "SIGSEGV":
            signal = "SIGKILL"  # of that all do not die at once; and a request that two crash over is refused as poison, by design
        if signal == "SIGSTOP":
            if at - stopped_at < STOP_APART_SECONDS or kind == EVERY_WORKER:
                signal = "SIGKILL"
            else:
                stopped_at = at
        blows.append(Blow(at, rng.choice(named[kind]), signal))
    for number in range(kills // KILLS_PER_OPERATION):
        at = (number + rng.random()) * KILLS_PER_OPERATION * slice_seconds
        how = OPERATIONS[(seed + number) % len(OPERATIONS)]
        if at >= (1 - CALM_SHARE) * seconds and how in ("restart router", "restart gateway"):
            how = "restart"
        part = {"restart router": "router", "restart gateway": rng.choice(gateways)}.get(how, rng.choice(workers))
        blows.append(Blow(at, part, how))
    return sorted(blows, key=lambda blow: blow.at)
