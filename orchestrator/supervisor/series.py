"""Where do points of many columns lie, so that their memory is bounded? Pure.

A column is an array of doubles with NaN where nothing is known. All columns of a series grow together until they are full; from then on
the newest point takes the place of the oldest.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from orchestrator.history import Growth, Trouble

Counter = tuple[Trouble, str, str]
"""Kind, what and part of a Growth."""

NAN: Final = math.nan
MOST_GONE: Final = 64
"""Parts that are no more and whose past is still kept: a reload every minute must not make this grow."""


class Points(msgspec.Struct, frozen=True):
    """What was asked of a series: uptimes ascending, and as many values in each column."""

    step: float
    at: list[float]
    columns: dict[str, list[list[float]]]
    grown: list[Growth]


class Series:
    """Points in rings that grow until they are full."""

    def __init__(self, step: float, capacity: int) -> None:
        self.step = step
        self._capacity = capacity
        self._next = 0
        """Where the next point goes, once the rings are full."""
        self._at = array("d")
        self._columns: dict[str, list[array[float]]] = {}
        self._missed: dict[str, int] = {}
        """For how many points in a row this one has not been there."""
        self._grown: list[Mapping[Counter, int]] = []

    @property
    def last_at(self) -> float:
        """Uptime of the newest point, 0 before the first."""
        return self._at[self._next - 1] if self._at else 0.0

    def add(self, at: float, rows: Mapping[str, Sequence[float]], grown: Mapping[Counter, int]) -> None:
        for name, row in rows.items():
            if name not in self._columns:
                self._columns[name] = [array("d", [NAN]) * len(self._at) for _ in row]
        for name, columns in list(self._columns.items()):
            self._missed[name] = 0 if name in rows else self._missed[name] + 1
            if self._missed[name] >= self._capacity:
                self._forget(name)
                continue
            for column, value in zip(columns, rows.get(name) or [NAN] * len(columns), strict=True):
                self._put(column, value)
        gone = sorted((count, name) for name, count in self._missed.items() if count)
        for _, name in gone[MOST_GONE:]:
            self._forget(name)
        self._put(self._at, at)
        if len(self._grown) < self._capacity:
            self._grown.append(grown)
        else:
            self._grown[self._next] = grown
            self._next = (self._next + 1) % self._capacity

    def _put(self, column: array[float], value: float) -> None:
        if len(column) < self._capacity:
            column.append(value)
        else:
            column[self._next] = value

    def _forget(self, name: str) -> None:
        del self._columns[name], self._missed[name]

    def since(self, uptime: float, most_values: float = math.inf) -> Points:
        """The points that are not older; every second, third, … one where all were more values than this. The newest one stays."""
        at = self._from(0, self._at)
        first = bisect_left(at, uptime)
        values = (len(at) - first) * sum(map(len, self._columns.values()))
        stride = max(1, math.ceil(values / most_values))
        start = first + max(0, len(at) - first - 1) % stride
        grown = self._grown[self._next :] + self._grown[: self._next]
        return Points(
            self.step * stride,
            at[start::stride],
            {name: [self._from(start, one)[::stride] for one in columns] for name, columns in self._columns.items()},
            [
                Growth(at[index + (start - index) % stride], *key, count)  # at the next point that stays
                for index in range(first, len(at))
                for key, count in grown[index].items()
            ],
        )

    def _from(self, first: int, column: array[float]) -> list[float]:
        """A column from its first-th oldest point on, oldest first."""
        start = self._next + first
        if start < len(column):
            return (column[start:] + column[: self._next]).tolist()
        return column[start - len(column) : self._next].tolist()
