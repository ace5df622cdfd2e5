"""Which lane does a sequence of this length wait in, and which bin of it? Pure.

A *lane* is a queue that one or several instances call home. A *bin* holds the sequences of one class of lengths, so that
batches are made of similar lengths at a cost that does not grow with the queue. Class limits lie on every bucket's end and on
every instance's longest sequence, so that an instance can hold a whole bin or nothing of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

# About a factor of √2 apart: padding inside a bin stays under a third.
_STEPS: Final = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
_CLASSES: Final = 16
NOWHERE: Final = -1


class LengthClasses(msgspec.Struct, frozen=True):
    """`limits[i]` is the longest length of class i, ascending."""

    limits: tuple[int, ...]

    @staticmethod
    def over(required: Iterable[int]) -> LengthClasses:
        """Classes that end at every required limit and, as far as 16 classes go, at the steps between."""
        limits = {limit for limit in required if limit > 0} or {1}
        longest = max(limits)
        steps = [step for step in _STEPS if step < longest and step not in limits]
        spare = max(0, _CLASSES - len(limits))
        # The longest steps are dropped first: a batch of two long sequences gains nothing anyway.
        return LengthClasses(tuple(sorted(limits | set(steps[:spare]))))

    def of(self, length: int) -> int:
        """The class of a length. One beyond the last limit has no class: callers refuse it first."""
        return bisect_left(self.limits, length)

    def held_by(self, max_seqlen: int) -> int:
        """Bit mask of the classes that lie within `max_seqlen` as a whole."""
        return sum(1 << index for index, limit in enumerate(self.limits) if limit <= max_seqlen)


class Home(msgspec.Struct, frozen=True):
    """What the choice of a lane needs of one lane: its bucket's end and what its instances can hold at most."""

    bucket_max: int
    holds: int


def lane_by_length(homes: Sequence[Home]) -> tuple[int, ...]:
    """For each length from 0 to the longest that anyone holds: the lane of the smallest bucket that holds it.

    A length beyond every bucket, or in a bucket whose instances turned out too small, goes to the lane whose instances can
    hold it with the least room to spare. Index with the length; lengths beyond the end of the table fit nowhere.
    """
    longest = max((home.holds for home in homes), default=0)
    table = [NOWHERE] * (longest + 1)
    by_bucket = sorted(range(len(homes)), key=lambda lane: (homes[lane].bucket_max, homes[lane].holds, lane))
    by_room = sorted(range(len(homes)), key=lambda lane: (homes[lane].holds, lane))
    for length in range(1, longest + 1):
        table[length] = next(
            (lane for lane in by_bucket if homes[lane].bucket_max >= length and homes[lane].holds >= length),
            next((lane for lane in by_room if homes[lane].holds >= length), NOWHERE),
        )
    return tuple(table)
