"""What is the highest rate that a server bears? Which one is to be tried next, by bisection. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_TRIES = 16


@dataclass(frozen=True)
class Tried:
    rate: float
    fine: bool
    """The latency stayed within the limit, and nothing was refused."""


@dataclass(frozen=True)
class Knee:
    """Between these two rates it lies."""

    fine: float | None
    """The highest rate at which all was fine, below every one at which it was not; None: not even the lowest that was tried."""
    over: float | None
    """The lowest rate at which it was not; None: there was none."""


def knee(tried: Sequence[Tried]) -> Knee:
    """A rate that was fine above one that was not is taken for luck."""
    over = min((each.rate for each in tried if not each.fine), default=None)
    fine = max((each.rate for each in tried if each.fine and (over is None or each.rate < over)), default=None)
    return Knee(fine, over)


def next_rate(tried: Sequence[Tried], start: float, resolution: float) -> float | None:
    """None: the knee is known within `resolution` (a share of it), or further tries say nothing.

    It begins at `start`, goes up by half until it is too much and down to half until it is fine, then in between.
    """
    if not tried:
        return start
    if len(tried) >= MOST_TRIES:
        return None
    found = knee(tried)
    if found.over is None:
        return max(each.rate for each in tried) * 1.5
    if found.fine is None:
        lower = found.over / 2
        return lower if lower >= start / 64 else None
    if found.over - found.fine <= resolution * found.over:
        return None
    return (found.fine + found.over) / 2
