"""What need not be computed again? Tokens of a text, and rows of a sequence, kept while there is room. Pure.

Least recently used goes first; the bound is in bytes, an estimate of what the entries take in memory. Both keys are exact (the text
itself, the ids themselves): two inputs that differ never share an entry. One event loop owns a cache; it is not for several threads.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from orchestrator.status import CacheStatus

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 240
"""Of the ordered dictionary per entry, with the headers of key and value. Measured: 150 to 230."""

LARGEST_SHARE = 16
"""An entry larger than the budget divided by this is not kept: it would push out too many others."""


class BoundedCache(Generic[K, V]):
    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, size: int) -> None:
        """`size` is that of key and value in bytes."""
        size += ENTRY_BYTES
        if size * LARGEST_SHARE > self.budget_bytes:
            return
        old = self._entries.pop(key, None)
        if old is not None:
            self.bytes -= old[1]
        self._entries[key] = (value, size)
        self.bytes += size
        while self.bytes > self.budget_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self.bytes -= freed

    def report(self) -> CacheStatus:
        return CacheStatus(self.hits, self.misses, len(self._entries), self.bytes, self.budget_bytes)

    def validate(self) -> None:
        """Raises AssertionError where the state contradicts itself. For tests, after each step."""
        assert self.bytes == sum(size for _, size in self._entries.values())
        assert 0 <= self.bytes <= max(self.budget_bytes, 0)


def text_bytes(text: str) -> int:
    """What a text takes in memory: one to four bytes a character."""
    return sys.getsizeof(text)
