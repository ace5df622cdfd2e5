"""Whose turn is it among those who wait in one lane? Pure.

Theory of operation. What waits in a lane is kept in *flows*, one per class of priority and tenant, each a `LengthQueue`. A
batch begins with the head of one flow, chosen in two steps:

- Within a class tenants share the work, not the number of requests: start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM
  1996). Each flow carries a tag, the virtual time at which its next work begins; the smallest goes first and is moved on by the
  work it was given. A tenant that was away begins at the present virtual time: it can neither save up turns nor lose them.
- Between classes the order is strict with aging: each request has a *turn*, its arrival plus `HEAD_START_SECONDS` of its
  class, and the class whose head has the earlier turn goes first. So a bulk request gives way to all that is interactive and
  arrives within 30 s after it, and to nothing that arrives later: whatever the load, bulk never starves.

A batch is filled from its head's flow and then from flows of the same or a more urgent class, never from a less urgent one,
which would make the head slower for the sake of what can wait. With one tenant and one class all this is one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final
from zlib import crc32

from orchestrator.router.buckets import LengthClasses
from orchestrator.router.cost import Shape
from orchestrator.router.events import Item, Request, Seconds
from orchestrator.router.queue import MAX_BATCH, LengthQueue
from workers.wire import PRIORITIES

HEAD_START_SECONDS: Final[tuple[Seconds, ...]] = (0.0, 3.0, 30.0)
"""By priority (interactive, normal, bulk): how much longer than an interactive one a request waits before it is its turn."""
CLASSES: Final = len(PRIORITIES)
# So many tenants with requests in progress have a flow of their own; more of them share these by a hash (McKenney, INFOCOM 1990).
_OWN_SLOTS: Final = 64
_SHARED_SLOTS: Final = 16


class Tenancy:
    """A tenant with requests in progress."""

    __slots__ = ("key", "number", "requests")

    def __init__(self, key: int | bytes, number: int) -> None:
        self.key = key
        self.number = number
        self.requests = 0


class Tenants:
    """Numbers for those whose requests are in progress, used again when they have none."""

    def __init__(self) -> None:
        self._known: dict[int | bytes, Tenancy] = {}
        self._free = list(range(_OWN_SLOTS - 1, -1, -1))

    def enter(self, request: Request) -> None:
        """Gives a request that comes in its flow: a number that stands for its tenant and its class."""
        key: int | bytes = request.tenant or request.client
        tenancy = self._known.get(key)
        if tenancy is None:
            shared = _OWN_SLOTS + (crc32(key) if isinstance(key, bytes) else key) % _SHARED_SLOTS
            self._known[key] = tenancy = Tenancy(key, self._free.pop() if self._free else shared)
        tenancy.requests += 1
        request.tenancy = tenancy
        request.flow = tenancy.number * CLASSES + request.priority

    def flow_of(self, request: Request) -> int | None:
        """The flow a request would get; None if nothing of its tenant is in progress."""
        tenancy = self._known.get(request.tenant or request.client)
        return None if tenancy is None else tenancy.number * CLASSES + request.priority

    def leave(self, request: Request) -> None:
        tenancy: Tenancy = request.tenancy
        tenancy.requests -= 1
        if not tenancy.requests:
            del self._known[tenancy.key]
            if tenancy.number < _OWN_SLOTS:
                self._free.append(tenancy.number)

    def __len__(self) -> int:
        return len(self._known)


class Flow:
    """What one tenant has waiting in one class."""

    __slots__ = ("key", "queue", "start", "urgency")

    def __init__(self, key: int, classes: LengthClasses) -> None:
        self.key = key
        self.urgency = key % CLASSES
        """Its priority: 0 is served first."""
        self.queue = LengthQueue(classes)
        self.start = 0.0
        """Virtual time, in seconds of work, at which its next batch begins."""


class FlowQueue:
    """All that waits in one lane. The caller marks an item SETTLED before `forget`."""

    __slots__ = ("_active", "_classes", "_clock", "_flows", "_only", "size")

    def __init__(self, classes: LengthClasses) -> None:
        self._classes = classes
        self._flows: dict[int, Flow] = {}
        self._active: list[Flow] = []
        """Those in which something waits."""
        self._only: Flow | None = None
        """The active one, if there is just one."""
        self._clock = [0.0] * CLASSES
        """Per class: the virtual time of what was served last."""
        self.size = 0
        """Living sequences."""

    @property
    def tokens(self) -> int:
        return self._only.queue.tokens if self._only is not None else sum(flow.queue.tokens for flow in self._active)

    def backlog(self, shape: Shape) -> Seconds:
        """How long all of it would take one sequence at a time, before the instance's correction."""
        if self._only is not None:
            return self._only.queue.backlog(shape)
        seconds = 0.0
        for flow in self._active:
            seconds += flow.queue.backlog(shape)
        return seconds

    def ahead_of(self, key: int | None, priority: int, shape: Shape) -> Seconds:
        """How much work goes before a sequence that a flow (None: one that is new) would add now, in units of `shape`.

        All that is more urgent, and of each other flow of its class as much as its own flow has waiting: they take turns.
        """
        own = self._flows.get(key) if key is not None else None
        mine = own.queue.backlog(shape) if own is not None else 0.0
        seconds = mine
        for flow in self._active:
            if flow is not own and flow.urgency <= priority:
                backlog = flow.queue.backlog(shape)
                seconds += backlog if flow.urgency < priority else min(backlog, mine)
        return seconds

    def push(self, item: Item) -> None:
        flow = self._flows.get(item.request.flow)
        if flow is None or not flow.queue.size:
            flow = self._wake(item.request.flow)
        flow.queue.push(item)
        self.size += 1

    def push_front(self, items: Sequence[Item]) -> None:
        """Puts items back that were taken before, each before all that arrived after it in its flow."""
        by_flow: dict[int, list[Item]] = {}
        for item in items:
            by_flow.setdefault(item.request.flow, []).append(item)
        for key, returned in by_flow.items():
            flow = self._flows.get(key)
            if flow is None or not flow.queue.size:
                flow = self._wake(key)
            flow.queue.push_front(returned)
        self.size += len(items)

    def oldest(self, classes: int) -> Item | None:
        """The sequence whose turn it is among these classes of lengths (a bit mask)."""
        if self._only is not None:
            return self._only.queue.oldest(classes)
        found = self._next(classes)
        return None if found is None else found.queue.oldest(classes)

    def has(self, classes: int) -> bool:
        """Whether anything waits in these classes of lengths."""
        if self._only is not None:
            return self._only.queue.has(classes)
        return any(flow.queue.has(classes) for flow in self._active)

    def take(
        self, classes: int, shape: Shape, *, max_tokens: int, max_n: int = MAX_BATCH, max_seconds: Seconds = inf
    ) -> list[Item]:
        """The next batch, removed from the queue; see `LengthQueue.take`."""
        flow = self._only or self._next(classes)
        if flow is None:
            return []
        queue = flow.queue
        size, tokens, squares = queue.size, queue.tokens, queue.squares
        batch = queue.take(classes, shape, max_tokens=max_tokens, max_n=max_n, max_seconds=max_seconds)
        if not batch:
            return batch
        self._clock[flow.urgency] = flow.start
        flow.start += _work(shape, size - queue.size, tokens - queue.tokens, squares - queue.squares)
        if self._only is None and not batch[0].alone and len(batch) < max_n:
            self._join(batch, flow, shape, max_tokens, max_n, max_seconds)
        self.size -= len(batch)
        if not queue.size:
            self._rest(flow)
        return batch

    def _join(
        self, batch: list[Item], first: Flow, shape: Shape, max_tokens: int, max_n: int, max_seconds: Seconds
    ) -> None:
        """Fills a batch that its own flow could not fill."""
        others = [flow for flow in self._active if flow is not first and flow.urgency <= first.urgency]
        longest = max([item.length for item in batch])
        for flow in sorted(others, key=_order):
            if len(batch) >= max_n or longest * (len(batch) + 1) > max_tokens:
                return
            queue = flow.queue
            size, tokens, squares = queue.size, queue.tokens, queue.squares
            longest = queue.join(batch, longest, shape, max_tokens=max_tokens, max_n=max_n, max_seconds=max_seconds)
            flow.start += _work(shape, size - queue.size, tokens - queue.tokens, squares - queue.squares)
            if not flow.queue.size:
                self._rest(flow)

    def forget(self, item: Item) -> None:
        """A sequence that waits here was settled by other means (cancelled, expired). `sweep` after the last one."""
        flow = self._flows[item.request.flow]
        flow.queue.forget(item)
        self.size -= 1
        if not flow.queue.size:
            self._rest(flow)

    def sweep(self) -> None:
        """Throws the dead out of flows that hold more of them than of the living."""
        for flow in self._active:
            flow.queue.sweep()

    def drain(self) -> list[Item]:
        """Everything that waits, oldest first; the queue is empty afterwards."""
        items = [item for flow in self._active for item in flow.queue.drain()]
        self._active.clear()
        self._only = None
        self.size = 0
        return sorted(items, key=_rank)

    def waiting(self) -> list[Item]:
        """Everything that waits, in no order. O(n): for reports and checks."""
        return [item for flow in self._active for item in flow.queue.waiting()]

    def flows(self) -> list[tuple[int, int]]:
        """(flow, sequences) of each in which something waits."""
        return [(flow.key, flow.queue.size) for flow in self._active]

    def newest(self, key: int) -> Item | None:
        """The sequence of a flow that came last."""
        flow = self._flows.get(key)
        return None if flow is None else flow.queue.newest()

    def oldest_arrival(self) -> Seconds:
        """When the sequence that has waited longest arrived, whoever's turn it is; infinity if nothing waits."""
        heads = [head.request.arrived for flow in self._active if (head := flow.queue.oldest(-1)) is not None]
        return min(heads, default=inf)

    def _wake(self, key: int) -> Flow:
        flow = self._flows.get(key)
        if flow is None:
            self._flows[key] = flow = Flow(key, self._classes)
        flow.start = max(flow.start, self._clock[flow.urgency])
        self._active.append(flow)
        self._only = flow if len(self._active) == 1 else None
        return flow

    def _rest(self, flow: Flow) -> None:
        flow.queue.clear_dead()
        self._active.remove(flow)
        self._only = self._active[0] if len(self._active) == 1 else None

    def _next(self, classes: int) -> Flow | None:
        """Of each class the flow whose tag is smallest; of those the one whose head has the earliest turn."""
        if self._only is not None:
            return self._only if self._only.queue.oldest(classes) is not None else None
        chosen: list[Flow | None] = [None] * CLASSES
        for flow in self._active:
            best = chosen[flow.urgency]
            if (best is None or (flow.start, flow.key) < (best.start, best.key)) and flow.queue.has(classes):
                chosen[flow.urgency] = flow
        first, turn = None, inf
        for candidate in chosen:
            if candidate is not None:
                head = candidate.queue.oldest(classes)
                if head is not None and head.request.turn < turn:
                    first, turn = candidate, head.request.turn
        return first

    def validate(self) -> None:
        """AssertionError if the counts or the order are wrong. For tests: O(n log n)."""
        for flow in self._flows.values():
            flow.queue.validate()
        busy = [flow.key for flow in self._flows.values() if flow.queue.size]
        active = [flow.key for flow in self._active]
        if sorted(busy) != sorted(active):
            raise AssertionError(f"flows with something waiting {busy}, counted {active}")
        if (self._only.key if self._only is not None else None) != (active[0] if len(active) == 1 else None):
            raise AssertionError(f"the only flow of {active}: {self._only}")
        if self.size != sum(flow.queue.size for flow in self._active):
            raise AssertionError(f"flows hold {[flow.queue.size for flow in self._active]} and {self.size} are counted")
        for item in self.waiting():
            if item.request.flow not in active:
                raise AssertionError(f"a sequence of flow {item.request.flow} waits elsewhere: {active}")


def _work(shape: Shape, n: int, tokens: int, squares: int) -> Seconds:
    """What a tenant is charged: as if each of its sequences had been computed alone, whomever it shared a batch with."""
    return shape.call * n + shape.token * tokens + shape.square * squares


def _order(flow: Flow) -> tuple[int, float, int]:
    return flow.urgency, flow.start, flow.key


def _rank(item: Item) -> int:
    return item.rank
