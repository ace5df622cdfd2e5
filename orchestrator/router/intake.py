"""May this request come in, and where does it wait? Pure.

A request is refused at the door if nobody could serve it, or not in time, or if the queue is full of what is no less urgent; else its
sequences go into their lanes, and from there at once to whoever is idle.
"""

from __future__ import annotations

from math import inf
from typing import Final

from orchestrator.router.admission import Limits, Refusal, refusal, retry_after_ms, too_late, whom_to_displace
from orchestrator.router.dispatcher import Dispatcher
from orchestrator.router.events import Action, Refuse, Request, Seconds
from orchestrator.router.ledger import Ledger
from orchestrator.router.policy import earliest_finish
from orchestrator.router.roster import Roster

# Whether deadlines are tight enough to be worth a prediction per request is judged this often.
_OUTLOOK_SECONDS: Final = 10e-3
# A deadline this many times longer than the backlog is never predicted: predictions are not off by that much.
_AMPLE: Final = 20.0


class Intake:
    def __init__(self, roster: Roster, ledger: Ledger, dispatcher: Dispatcher) -> None:
        self.limits = Limits(roster.longest, roster.plan.queue_limit)
        self._roster = roster
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._ample_ms = inf
        """Deadlines longer than this need no prediction."""
        self._next_outlook: Seconds = -inf

    def submit(self, request: Request, now: Seconds, actions: list[Action]) -> None:
        ledger = self._ledger
        if (request.client, request.request_id) in ledger.requests:
            ledger.counts.duplicates += 1
            request.payload = None
            return
        lengths = request.lengths
        longest = lengths[0] if len(lengths) == 1 else max(lengths)
        refused = refusal(request, longest, self.limits, ledger.counts.queued)
        timeout_ms = request.timeout_ms
        if timeout_ms:
            request.deadline = now + timeout_ms * 1e-3
            if timeout_ms <= self._ample_ms or now >= self._next_outlook:
                refused = self._too_late(request, longest, now, refused)
        if refused is not None and (refused.reason != "queue_full" or not self._make_room(request, actions)):
            self._turn_away(request, refused, actions)
            return
        roster = self._roster
        items = ledger.open(request, now)
        if len(items) == 1:
            item = items[0]
            lane = roster.lane_of(longest)
            item.lane = lane.index
            lane.queue.push(item)
            self._dispatcher.pump(lane, now, actions)
            return
        touched = set()
        for item in items:
            lane = roster.lane_of(item.length)
            item.lane = lane.index
            lane.queue.push(item)
            touched.add(lane.index)
        for index in sorted(touched):
            self._dispatcher.pump(roster.lanes[index], now, actions)

    def _make_room(self, request: Request, actions: list[Action]) -> bool:
        """In a full queue: refuses what is less urgent, or of a tenant that has more waiting, for the sake of `request`."""
        ledger, roster = self._ledger, self._roster
        n = len(request.lengths)
        while (need := ledger.counts.queued + n - self.limits.queue_limit) > 0:
            flow = whom_to_displace(roster.held(), ledger.tenants.flow_of(request), request.priority, n, need)
            newest = None if flow is None else roster.newest(flow)
            if newest is None:
                return False
            ledger.counts.displaced += newest.request.unsettled
            retry = retry_after_ms(roster.backlog_seconds())
            message = "the queue is full, and what is more urgent or of somebody who has less waiting came in"
            self._dispatcher.refuse(newest.request, "queue_full", message, actions, retry)
        return True

    def _too_late(self, request: Request, longest: int, now: Seconds, refused: Refusal | None) -> Refusal | None:
        """Predicts only where the deadline is not ample anyway: with the gateway's default of a minute it nearly always is.

        `refused`: what speaks against the request so far. A deadline that cannot be met goes before a full queue.
        """
        if refused is not None and refused.reason != "queue_full":
            return refused
        if now >= self._next_outlook:
            self._next_outlook = now + _OUTLOOK_SECONDS
            backlog = self._roster.backlog_seconds()
            slowest = max((one.predictor.seconds(one.holds, 1) for one in self._roster.instances.values()), default=0.0)
            self._ample_ms = 0.0 if backlog == inf else _AMPLE * 1e3 * (backlog + slowest)
        if request.timeout_ms > self._ample_ms:
            return refused
        flow = self._ledger.tenants.flow_of(request)
        return (
            too_late(request, earliest_finish(self._roster.lanes, longest, flow, request.priority, now), now) or refused
        )

    def _turn_away(self, request: Request, refused: Refusal, actions: list[Action]) -> None:
        self._ledger.turn_away(request, refused.reason)
        retry = refused.retry_after_ms
        if refused.reason == "queue_full":
            retry = retry_after_ms(self._roster.backlog_seconds())
        actions.append(Refuse(request, refused.reason, refused.message, retry))
