"""Which worker is due for a fresh process, because it has grown too large or too old? Pure.

At most one at a time, and only while all the others are where they are wanted: a recycle is a rolling restart, never a loss of more
than one instance. A worker that is over the ceiling right after its start is left alone for SETTLE_SECONDS: then the ceiling is too low,
and restarting it without pause would serve nobody.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

Seconds = float

SETTLE_SECONDS = 60.0
"""A worker younger than this is not recycled for its memory."""
JITTER = 0.1
"""By up to this share of the maximum age a worker is recycled earlier, so that those that started together do not end together."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """None: no ceiling."""

    most_bytes: int | None = None
    most_age: Seconds | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that serves."""

    name: str
    incarnation: int
    age: Seconds
    """Since it was ready."""
    held_bytes: int | None
    """Its share of memory (PSS, or RSS where the kernel does not say); None where that is unknown."""


def due(workers: Iterable[Worker], ceiling: Ceiling) -> tuple[str, str] | None:
    """(name, why) of the one that is most overdue; None if none is."""
    found: list[tuple[float, str, str]] = []
    for one in workers:
        if ceiling.most_bytes is not None and one.held_bytes is not None and one.age >= SETTLE_SECONDS:
            excess = one.held_bytes / ceiling.most_bytes
            if excess > 1:
                why = f"holds {one.held_bytes >> 20} MiB of {ceiling.most_bytes >> 20} (supervision.max_rss_mb)"
                found.append((excess, one.name, why))
        if ceiling.most_age is not None:
            excess = one.age / age_of_recycle(one.name, one.incarnation, ceiling.most_age)
            if excess >= 1:
                why = f"is {one.age:.0f} s old, {ceiling.most_age:g} at most (supervision.max_age_s)"
                found.append((excess, one.name, why))
    if not found:
        return None
    _, name, why = max(found)
    return name, why


def age_of_recycle(name: str, incarnation: int, most_age: Seconds) -> Seconds:
    """When this incarnation is due: at most `most_age`, earlier by a share that is its own."""
    return most_age * (1.0 - JITTER * random.Random(f"{name}#{incarnation}").random())
