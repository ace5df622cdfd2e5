"""Has this been answered before, or is it being answered now? Between the routes and the router; does nothing unless switched on.

Theory of operation. The rows of a sequence depend on its ids and on nothing else, so a request is known by its ids, lengths and splits.
The answer cache keeps complete answers. Joining makes one request to the router of those that are alike and under way at the same time:
the first starts it, the others wait for the same task; it is cancelled when the last of them has gone. Each keeps its own deadline. An
answer is shared, a refusal is not: it may have been the first one's deadline, so the others then ask for themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator.client.link import Answered, Declined, Part
from orchestrator.client.texts import Tokens
from orchestrator.gateway.caches import BoundedCache
from orchestrator.gateway.caller import ANYBODY, Caller
from workers.wire import RequestId

Outcome = Answered | Declined
Infer = Callable[[Tokens, float, Caller], Coroutine[Any, Any, Outcome]]
Key = tuple[bytes, tuple[int, ...], tuple[int, ...] | None]

FROM_CACHE = Part("cache", (0, 0), 0, 0, 0, 1)
"""What the headers say of an answer that no instance computed now."""


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Outcome]
    waiting: int


class Answers:
    """`infer` asks the router. `cache` None keeps nothing; without `join` every request goes its own way."""

    def __init__(self, infer: Infer, cache: BoundedCache[Key, Answered] | None, *, join: bool) -> None:
        self.joined = 0
        """Requests that waited for another's answer."""
        self.cache = cache
        self._infer = infer
        self._join = join
        self._flights: dict[tuple[Key, int], _Flight] = {}
        """By what is asked and the priority: who is in a hurry does not wait for one who is not."""

    async def infer(self, tokens: Tokens, timeout_seconds: float, caller: Caller = ANYBODY) -> Outcome:
        if self.cache is None and not self._join:
            return await self._infer(tokens, timeout_seconds, caller)
        splits = None if tokens.splits is None else tuple(tokens.splits)
        key = (tokens.ids, tuple(tokens.lengths), splits)
        if self.cache is not None:
            known = self.cache.get(key)
            if known is not None:
                return known
        if self._join:
            outcome = await self._together(key, tokens, timeout_seconds, caller)
        else:
            outcome = await self._infer(tokens, timeout_seconds, caller)
        if self.cache is not None and isinstance(outcome, Answered):
            kept = msgspec.structs.replace(outcome, parts=[FROM_CACHE])
            size = len(tokens.ids) + sum(row.nbytes for row in outcome.rows) + 200 * len(outcome.rows)
            self.cache.put(key, kept, size)
        return outcome

    async def _together(self, asked: Key, tokens: Tokens, timeout_seconds: float, caller: Caller) -> Outcome:
        key = (asked, caller.priority)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        flight = self._flights.get(key)
        first = flight is None
        if flight is None:
            flight = _Flight(loop.create_task(self._infer(tokens, timeout_seconds, caller)), 0)
            self._flights[key] = flight
        else:
            self.joined += 1
        flight.waiting += 1
        try:
            # The first one's deadline is kept by the uplink, which prefers the router's own verdict.
            await asyncio.wait({flight.task}, timeout=None if first else timeout_seconds)
        finally:
            flight.waiting -= 1
            if flight.waiting == 0:
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.task.cancel()  # does nothing to a task that is done
        if not flight.task.done():
            return Declined(RequestId(0), "deadline", 0.0, "no answer came before the deadline")
        if self._flights.get(key) is flight:
            del self._flights[key]
        outcome = flight.task.result()
        if first or isinstance(outcome, Answered):
            return outcome
        left = deadline - loop.time()
        if left <= 0:
            return Declined(RequestId(0), "deadline", 0.0, "no answer came before the deadline")
        return await self._infer(tokens, left, caller)
