"""Which sequences came in, and what has become of each? Pure.

The books of the router: a request enters by `open`, its sequences leave as answers, by `close` (refused, cancelled) or by
`settle_lost`. submitted = queued + in flight + settled after every call.
"""

from __future__ import annotations

from math import inf
from typing import Final

import msgspec

from orchestrator.router.events import IN_FLIGHT, QUEUED, SETTLED, Client, Item, Reason, Request, Seconds
from orchestrator.router.flows import HEAD_START_SECONDS, Tenants

# A look at all requests for expired ones costs 60 ns each: never more than about 3 % of the time.
_EXPIRY_SECONDS: Final = 5e-3
_EXPIRY_SECONDS_PER_REQUEST: Final = 2e-6


class Counts(msgspec.Struct):
    """Of sequences, where nothing else is said."""

    submitted: int = 0
    queued: int = 0
    in_flight: int = 0
    settled: int = 0
    retried: int = 0
    displaced: int = 0
    """Refused while they waited, to make room for what is more urgent or of a tenant that has less waiting."""
    duplicates: int = 0
    """Requests submitted again while they were in progress."""
    late_results: int = 0
    """Batches answered that the worker did not hold."""
    wrong_rows: int = 0
    """Batches answered with another number of rows than they had sequences."""
    rejected: dict[str, int] = {}
    """By reason; sequences that nobody got a row for."""


class Ledger:
    def __init__(self) -> None:
        self.counts = Counts()
        self.requests: dict[tuple[Client, int], Request] = {}
        """Those that still get answers."""
        self.tenants = Tenants()
        self.next_deadline: Seconds = inf
        """No request expires before this time."""
        self._next_look: Seconds = -inf
        self._next_rank = 0

    def open(self, request: Request, now: Seconds) -> list[Item]:
        """Takes a request in; its sequences count as queued."""
        lengths = request.lengths
        n = len(lengths)
        rank = self._next_rank
        self._next_rank = rank + n
        counts = self.counts
        counts.submitted += n
        counts.queued += n
        request.arrived = now
        request.unsettled = n
        request.turn = now + HEAD_START_SECONDS[request.priority]
        self.tenants.enter(request)
        if request.deadline < self.next_deadline:
            self.next_deadline = request.deadline
        self.requests[request.client, request.request_id] = request
        items = (
            [Item(request, 0, lengths[0], rank)]
            if n == 1
            else [Item(request, at, length, rank + at) for at, length in enumerate(lengths)]
        )
        request.items = items
        return items

    def turn_away(self, request: Request, reason: Reason) -> None:
        """A request that is refused at the door."""
        n = len(request.lengths)
        self.counts.submitted += n
        self.counts.settled += n
        self._reject(reason, n)
        request.payload = None

    def close(self, request: Request, reason: Reason) -> list[Item]:
        """Ends a request with unanswered sequences; what is in flight settles in silence when it comes back.

        Returns what was queued, settled now: whoever holds these items has to let go of them.
        """
        waiting = [item for item in request.items if item.state is QUEUED]
        for item in waiting:
            item.state = SETTLED
        self.counts.queued -= len(waiting)
        self.counts.settled += len(waiting)
        self._reject(reason, request.unsettled)
        self.forget(request)
        return waiting

    def forget(self, request: Request) -> None:
        """Nothing more will be sent for this request; lets its payload go and breaks the cycle with its items."""
        del self.requests[request.client, request.request_id]
        self.tenants.leave(request)
        request.unsettled = 0
        request.items = []
        request.payload = None

    def launched(self, items: list[Item]) -> None:
        """Queued items go to a worker."""
        for item in items:
            item.state = IN_FLIGHT
        self.counts.queued -= len(items)
        self.counts.in_flight += len(items)

    def landed(self, items: list[Item]) -> None:
        """Items in flight came back with their rows."""
        for item in items:
            item.state = SETTLED
        self.counts.in_flight -= len(items)
        self.counts.settled += len(items)

    def settle_lost(self, item: Item) -> None:
        """An item in flight that will have no row."""
        item.state = SETTLED
        self.counts.in_flight -= 1
        self.counts.settled += 1

    def returned(self, item: Item) -> None:
        """An item in flight is queued once more."""
        item.state = QUEUED
        item.attempts += 1
        self.counts.in_flight -= 1
        self.counts.queued += 1
        self.counts.retried += 1

    def expired(self, now: Seconds) -> list[Request]:
        """The open requests whose deadline has passed, as far as it is time to look."""
        if now < self.next_deadline or now < self._next_look:
            return []
        expired = []
        soonest = inf
        for request in self.requests.values():
            if request.deadline <= now:
                expired.append(request)
            elif request.deadline < soonest:
                soonest = request.deadline
        self.next_deadline = soonest
        self._next_look = now + _EXPIRY_SECONDS + _EXPIRY_SECONDS_PER_REQUEST * len(self.requests)
        return expired

    def next_look(self) -> Seconds:
        """When `expired` may have something to say."""
        if not self.requests or self.next_deadline == inf:
            return inf
        return max(self.next_deadline, self._next_look)

    def _reject(self, reason: Reason, n: int) -> None:
        self.counts.rejected[reason] = self.counts.rejected.get(reason, 0) + n
