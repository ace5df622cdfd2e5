"""Which waiting sequences make the next batch? Pure.

Theory of operation. A queue holds what one tenant has waiting in one class of priority (`flows`): a row of bins, one per
class of lengths, each a deque ordered by arrival. The oldest head of all bins goes first, so nothing starves. The batch is
filled from the head's own bin and then from the next shorter ones, in order of arrival, while three things hold: padded
tokens (longest × n) stay within the budget; the cost of the batch grows by less than the newcomer would cost alone; the
batch ends by the time it has to. A decision costs O(bins), however long the queue is.

A cancelled sequence stays where it is, marked SETTLED, and is dropped when it surfaces; when more dead than living are
kept, the bins are swept. A requeued one goes to the front, and to its place by rank if others came back before it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Final

from orchestrator.router.buckets import LengthClasses
from orchestrator.router.cost import Shape
from orchestrator.router.events import QUEUED, Item

# A newcomer has to save this share of what it costs alone. With the measured int8 costs that ends batching between 64 and
# 128 tokens, where the measurements stop showing a gain; without it any two long sequences of equal length would wait for one another.
LEAST_GAIN: Final = 0.08
# How many bins below the head's own are searched: padding of more than a factor of two never pays.
_NEIGHBOURS: Final = 2
_SWEEP_ABOVE: Final = 64
MAX_BATCH: Final = 1024


class LengthQueue:
    """Sequences that wait, by class of length. The caller marks an item SETTLED before `forget`."""

    __slots__ = ("_bins", "_classes", "_dead", "_limits", "_mask", "size", "squares", "tokens")

    def __init__(self, classes: LengthClasses) -> None:
        self._classes = classes
        self._limits = classes.limits
        self._bins: list[deque[Item]] = [deque() for _ in classes.limits]
        self._mask = 0
        self._dead = 0
        self.size = 0
        """Living sequences."""
        self.tokens = 0
        self.squares = 0
        """Sum of squared lengths; with `size` and `tokens` it gives the backlog in seconds for any `Shape`."""

    def push(self, item: Item) -> None:
        length = item.length
        index = bisect_left(self._limits, length)
        self._bins[index].append(item)
        self._mask |= 1 << index
        self.size += 1
        self.tokens += length
        self.squares += length * length

    def push_front(self, items: Sequence[Item]) -> None:
        """Puts items back that were taken before, each before all that arrived after it."""
        by_bin: dict[int, list[Item]] = {}
        for item in sorted(items, key=_rank):
            by_bin.setdefault(self._classes.of(item.length), []).append(item)
            self.size += 1
            self.tokens += item.length
            self.squares += item.length * item.length
        for index, returned in by_bin.items():
            waiting = self._bins[index]
            if waiting and waiting[0].rank < returned[-1].rank:
                self._bins[index] = deque(sorted([*returned, *waiting], key=_rank))
            else:
                waiting.extendleft(reversed(returned))
            self._mask |= 1 << index

    def backlog(self, shape: Shape) -> float:
        """Seconds that all of it would take one sequence at a time, before the instance's correction."""
        return shape.call * self.size + shape.token * self.tokens + shape.square * self.squares

    def oldest(self, classes: int) -> Item | None:
        """The sequence that has waited longest among these classes (a bit mask)."""
        found = self._find(classes)
        return None if found < 0 else self._bins[found][0]

    def has(self, classes: int) -> bool:
        """Whether anything waits in these classes (a bit mask)."""
        return self._find(classes) >= 0 if self._dead else bool(self._mask & classes)

    def take(
        self, classes: int, shape: Shape, *, max_tokens: int, max_n: int = MAX_BATCH, max_seconds: float = inf
    ) -> list[Item]:
        """The next batch, removed from the queue; empty if nothing waits in these classes (a bit mask).

        `max_seconds` bounds what joins the oldest sequence, not that one itself. In units of `shape`.
        """
        index = self._find(classes)
        if index < 0:
            return []
        waiting = self._bins[index]
        head = waiting.popleft()
        if not waiting:
            self._mask ^= 1 << index
        longest = head.length
        batch = [head]
        self.size -= 1
        self.tokens -= longest
        self.squares -= longest * longest
        if max_n > 1 and self._mask and not head.alone:
            cost = shape.call + (shape.token + shape.square * longest) * longest
            self._fill(batch, index, longest, cost, shape, max_tokens, max_n, max_seconds)
        return batch

    def join(
        self, batch: list[Item], longest: int, shape: Shape, *, max_tokens: int, max_n: int, max_seconds: float
    ) -> int:
        """Fills a batch of up to `longest` tokens that another queue of the same classes began; how long it is then."""
        index = bisect_left(self._limits, longest)
        cost = shape.seconds(longest, len(batch))
        return self._fill(batch, index, longest, cost, shape, max_tokens, max_n, max_seconds)

    def _fill(
        self,
        batch: list[Item],
        index: int,
        longest: int,
        cost: float,
        shape: Shape,
        max_tokens: int,
        max_n: int,
        max_seconds: float,
    ) -> int:
        """Lets join what pays, from bin `index` and the next shorter ones. The batch costs `cost` so far. How long it is then."""
        call, token, square = shape.call, shape.token, shape.square
        n = started = len(batch)
        total = squares = 0
        for at in range(index, max(-1, index - _NEIGHBOURS - 1), -1):
            waiting = self._bins[at]
            if not waiting:
                continue
            while waiting:
                item = waiting[0]
                if item.state is not QUEUED:
                    waiting.popleft()
                    self._dead -= 1
                    continue
                length = item.length
                padded = longest if longest > length else length
                tokens = padded * (n + 1)
                joined = call + (token + square * padded) * tokens
                alone = call + (token + square * length) * length
                if (
                    tokens > max_tokens
                    or n >= max_n
                    or joined > max_seconds
                    or joined - cost > (1.0 - LEAST_GAIN) * alone
                    or item.alone
                ):
                    break
                waiting.popleft()
                batch.append(item)
                n += 1
                longest, cost = padded, joined
                total += length
                squares += length * length
            if not waiting:
                self._mask &= ~(1 << at)
        self.size -= n - started
        self.tokens -= total
        self.squares -= squares
        return longest

    def forget(self, item: Item) -> None:
        """A sequence that waits here was settled by other means (cancelled, expired). `sweep` after the last one."""
        self.size -= 1
        self.tokens -= item.length
        self.squares -= item.length * item.length
        self._dead += 1

    def sweep(self) -> None:
        """Throws the dead out if there are more of them than of the living: what a client submits and cancels for ever
        must not pile up where nothing is taken."""
        if self._dead <= self.size + _SWEEP_ABOVE:
            return
        for index, waiting in enumerate(self._bins):
            living = deque(item for item in waiting if item.state is QUEUED)
            self._bins[index] = living
            if not living:
                self._mask &= ~(1 << index)
        self._dead = 0

    def drain(self) -> list[Item]:
        """Everything that waits, oldest first; the queue is empty afterwards."""
        items = sorted((item for waiting in self._bins for item in waiting if item.state is QUEUED), key=_rank)
        for waiting in self._bins:
            waiting.clear()
        self._mask = self._dead = self.size = self.tokens = self.squares = 0
        return items

    def waiting(self) -> list[Item]:
        """Everything that waits, in no order. O(n): for reports and checks."""
        return [item for waiting in self._bins for item in waiting if item.state is QUEUED]

    def newest(self) -> Item | None:
        """The living sequence that came last."""
        newest = None
        for waiting in self._bins:
            last = next((item for item in reversed(waiting) if item.state is QUEUED), None)
            if last is not None and (newest is None or last.rank > newest.rank):
                newest = last
        return newest

    def clear_dead(self) -> None:
        """Throws the dead out of a queue in which nothing lives."""
        if self._dead:
            self.drain()

    def _find(self, classes: int) -> int:
        """The bin whose living head is the oldest, −1 if all are empty. Drops the dead on its way."""
        best, rank = -1, 0
        left = self._mask & classes
        while left:
            bit = left & -left
            left ^= bit
            index = bit.bit_length() - 1
            waiting = self._bins[index]
            head = waiting[0]
            while head.state is not QUEUED:
                waiting.popleft()
                self._dead -= 1
                if not waiting:
                    self._mask ^= bit
                    break
                head = waiting[0]
            else:
                if best < 0 or head.rank < rank:
                    best, rank = index, head.rank
        return best

    def validate(self) -> None:
        """AssertionError if the counts or the order are wrong. For tests: O(n log n)."""
        living = self.waiting()
        dead = sum(len(waiting) for waiting in self._bins) - len(living)
        found = (len(living), dead, sum(item.length for item in living), sum(item.length**2 for item in living))
        counted = (self.size, self._dead, self.tokens, self.squares)
        if found != counted:
            raise AssertionError(f"queue holds (living, dead, tokens, squares) {found} and counts {counted}")
        for index, waiting in enumerate(self._bins):
            if bool(waiting) != bool(self._mask & 1 << index):
                raise AssertionError(f"bin {index} of {len(waiting)} sequences, mask {self._mask:b}")
            ranks = [item.rank for item in waiting]
            if ranks != sorted(ranks):
                raise AssertionError(f"bin {index} is out of order: {ranks}")
            if any(self._classes.of(item.length) != index for item in waiting):
                raise AssertionError(f"bin {index} holds lengths of another class")


def _rank(item: Item) -> int:
    return item.rank
