"""Who waits for the disk or the terminal, so that the supervisor does not? A thread with a bounded queue."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Background(Generic[Item]):
    """`perform(items, dropped)` runs in the thread, with all that has come since its last call; it must not raise.

    `dropped` is how many items found the queue full meanwhile. With `idle_seconds` it is also called when nothing came for so long.
    """

    def __init__(
        self,
        name: str,
        perform: Callable[[list[Item], int], None],
        *,
        most: int,
        idle_seconds: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._perform = perform
        self._most = most
        self._idle_seconds = idle_seconds
        self._items: deque[Item] = deque()
        self._dropped = 0
        self._closing = False
        self._busy_since: float | None = None
        self._changed = threading.Condition()
        # A daemon: a terminal that is held with Ctrl-S holds up no end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Never waits: where the queue is full the item is dropped and counted."""
        with self._changed:
            if len(self._items) >= self._most:
                self._dropped += 1
                return
            self._items.append(item)
            if len(self._items) == 1:
                self._changed.notify()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stuck_seconds(self) -> float:
        """How long it has been in its present `perform`; 0 if it is in none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self, seconds: float) -> bool:
        """Performs what is queued and ends the thread; False if that takes longer."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._items and not self._closing:
                    self._changed.wait(self._idle_seconds())
                items, dropped = list(self._items), self._dropped
                self._items.clear()
                self._dropped = 0
                last = self._closing
            self._busy_since = time.monotonic()
            self._perform(items, dropped)
            self._busy_since = None
            if last:
                return
