"""How do several tasks wait for the same thing to change, and none misses it?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Pulse:
    """`beat` wakes everybody who waits at that moment; each looks for himself whether it was what he waited for.

    An asyncio.Event that each waiter clears loses wake-ups as soon as there are two of them.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def beat(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for one in waiting:
            if not one.done():
                one.set_result(None)

    async def next(self, within: float | None = None) -> None:
        """Until the next beat, `within` seconds at most."""
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(one)
        try:
            await asyncio.wait((one,), timeout=within)
        finally:
            self._waiting.discard(one)

    async def until(self, reached: Callable[[], bool], within: float | None = None) -> bool:
        """Whether `reached` became true; it is asked at once and after each beat. False after `within` seconds."""
        deadline = None if within is None else time.monotonic() + within
        while not reached():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            await self.next(left)
        return True
