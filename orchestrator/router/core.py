"""What does the router do about an event? Pure.

Theory of operation. A request's sequences become items, and each item waits in a lane. Items leave a lane only as a batch
for an instance that is idle, or that will be within milliseconds (late binding: nothing waits in a socket's buffer or behind a long batch).
A worker therefore holds one running batch and at most one prefetched. Every path that makes work or makes room ends in
`_pump`, which moves items from one lane to whoever may take them until nothing more can move. A worker that goes away gives
its items back to the front of their lanes; an item that saw two workers die is poison and is refused.

An item is QUEUED, IN_FLIGHT or SETTLED, and submitted = queued + in flight + settled at every moment. A request is
answered per item, or once for all that is unanswered by a refusal; after that its items settle in silence.
Time comes as `now` in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final, assert_never

import msgspec

from orchestrator.plan.model import Plan
from orchestrator.router.admission import Limits, Refusal, refusal, retry_after_ms, too_late
from orchestrator.router.buckets import Home, LengthClasses, lane_by_length
from orchestrator.router.cost import CostTable, DefaultCosts
from orchestrator.router.events import (
    IN_FLIGHT,
    QUEUED,
    SETTLED,
    Action,
    BatchDone,
    BatchFailed,
    Cancel,
    Client,
    ClientGone,
    Dispatch,
    Drain,
    Drained,
    Event,
    Flight,
    Item,
    Note,
    PlanChanged,
    Reason,
    Refuse,
    Reply,
    Request,
    Seconds,
    Tick,
    Undelivered,
    WorkerHello,
    WorkerLeft,
    WorkerLost,
)  # fmt: skip
from orchestrator.router.instances import Instance, Lane
from orchestrator.router.policy import (
    RULES,
    home_free_at,
    leave_to_a_busy_one,
    prefetch_from,
    quickest,
    time_to_steal,
)  # fmt: skip
from orchestrator.router.queue import MAX_BATCH
from orchestrator.router.report import InstanceCounts
from orchestrator.status import InstanceReport, RouterReport, RouterStatus

STORY_LENGTH: Final = 512
# A look at all requests for expired ones costs 60 ns each: never more than about 3 % of the time.
_EXPIRY_SECONDS: Final = 5e-3
_EXPIRY_SECONDS_PER_REQUEST: Final = 2e-6
# An idle instance that has left work to a busy one looks again this often, in case that one is late.
_LOOK_AGAIN_SECONDS: Final = 5e-3
_MOST_DEATHS: Final = 2
_LEAST_WAKE_SECONDS: Final = 1e-3
_NO_LANE: Final = -1

Story = deque[tuple[Seconds, Event, list[Action]]]


class Counts(msgspec.Struct):
    """Of sequences, where nothing else is said."""

    submitted: int = 0
    queued: int = 0
    in_flight: int = 0
    settled: int = 0
    retried: int = 0
    duplicates: int = 0
    """Requests submitted again while they were in progress."""
    late_results: int = 0
    """Batches answered that the worker did not hold."""
    wrong_rows: int = 0
    """Batches answered with another number of rows than they had sequences."""
    rejected: dict[str, int] = {}
    """By reason; sequences that were settled without a row."""


class RouterCore:
    """`first_batch_id` sets the ids of this router apart from those of one that ran before it: a worker that outlived a
    router may still answer the old one's batches."""

    def __init__(self, plan: Plan, *, costs: CostTable | None = None, first_batch_id: int = 1) -> None:
        self.counts = Counts()
        self.story: Story = deque(maxlen=STORY_LENGTH)
        self.draining = False
        self._limits = Limits(0, 0)
        self._costs = costs or DefaultCosts()
        self._instances: dict[str, Instance] = {}
        self._requests: dict[tuple[Client, int], Request] = {}
        """Those that still get answers."""
        self._lanes: list[Lane] = []
        self._next_batch = first_batch_id
        self._next_rank = 0
        self._rotation = 0
        self._idle = 0
        """Instances that are connected, planned and compute nothing."""
        self._next_deadline: Seconds = inf
        """No request expires before this time."""
        self._next_expiry: Seconds = -inf
        self._drained = False
        self._plan = plan
        self._configure(plan)

    # ---- the two questions a shell asks -------------------------------------------------------------------------

    def handle(self, event: Event, now: Seconds) -> list[Action]:
        """What to do about `event`, in this order. Never raises for what clients and workers send."""
        actions: list[Action] = []
        match event:
            case Request():
                self._submit(event, now, actions)
            case BatchDone():
                self._done(event, now, actions)
            case Tick():
                self._pump_all(now, actions)
            case WorkerHello():
                self._hello(event, now, actions)
            case BatchFailed():
                self._failed(event, now, actions)
            case WorkerLost():
                self._lost(event, now, actions)
            case WorkerLeft():
                self._left(event, now, actions)
            case Undelivered():
                self._undelivered(event, now, actions)
            case Cancel():
                request = self._requests.get((event.client, event.request_id))
                if request is not None:
                    self._close(request, "cancelled")
            case ClientGone():
                for request in [one for one in self._requests.values() if one.client == event.client]:
                    self._close(request, "cancelled")
            case PlanChanged():
                self._change_plan(event.plan, now, actions)
            case Drain():
                self.draining = True
                self._limits = Limits(self._limits.longest, self._limits.queue_limit, True)
            case _:
                assert_never(event)
        if now >= self._next_deadline and now >= self._next_expiry:
            self._expire(now, actions)
        if self.draining and not self._drained and not self.counts.queued and not self.counts.in_flight:
            self._drained = True
            actions.append(Drained())
        self.story.append((now, event, actions))
        return actions

    def next_wake(self, now: Seconds) -> Seconds:
        """When a Tick is due if nothing else happens; infinity if never."""
        wake = inf
        if self._next_deadline < inf and self._requests:
            wake = max(self._next_deadline, self._next_expiry)
        if self.counts.queued:
            for lane in self._lanes:
                if lane.queue.size:
                    due = lane.prefetch_due
                    if self._delay and lane.idle and (head := lane.queue.oldest(-1)) is not None:
                        due = min(due, head.request.arrived + self._delay)
                    elif self._idle and (lane.idle or self._rules.steals):
                        due = min(due, now + _LOOK_AGAIN_SECONDS)
                    wake = min(wake, max(due, now + _LEAST_WAKE_SECONDS))
        return wake

    # ---- requests -----------------------------------------------------------------------------------------------

    def _submit(self, request: Request, now: Seconds, actions: list[Action]) -> None:
        key = (request.client, request.request_id)
        if key in self._requests:
            self.counts.duplicates += 1
            request.payload = None
            return
        lengths = request.lengths
        n = len(lengths)
        counts = self.counts
        counts.submitted += n
        longest = lengths[0] if n == 1 else max(lengths)
        refused = refusal(request, longest, self._limits, counts.queued)
        if refused is None and request.timeout_ms:
            request.deadline = now + request.timeout_ms * 1e-3
            refused = too_late(request, self._earliest_finish(longest, now), now)
        if refused is not None:
            self._turn_away(request, refused, actions)
            return
        request.arrived = now
        request.unsettled = n
        if request.deadline < self._next_deadline:
            self._next_deadline = request.deadline
        self._requests[key] = request
        rank = self._next_rank
        self._next_rank = rank + n
        counts.queued += n
        if n == 1:
            item = Item(request, 0, longest, rank)
            request.items = [item]
            lane = self._lane_of(longest)
            item.lane = lane.index
            lane.queue.push(item)
            self._pump(lane, now, actions)
            return
        request.items = [Item(request, at, length, rank + at) for at, length in enumerate(lengths)]
        touched = {}
        for item in request.items:
            lane = self._lane_of(item.length)
            item.lane = lane.index
            lane.queue.push(item)
            touched[lane.index] = lane
        for lane in touched.values():
            self._pump(lane, now, actions)

    def _turn_away(self, request: Request, refused: Refusal, actions: list[Action]) -> None:
        n = len(request.lengths)
        self.counts.settled += n
        self._reject(refused.reason, n)
        request.payload = None
        retry = refused.retry_after_ms
        if refused.reason == "queue_full":
            retry = retry_after_ms(self._backlog_seconds())
        actions.append(Refuse(request, refused.reason, refused.message, retry))

    def _refuse(self, request: Request, reason: Reason, message: str, actions: list[Action]) -> None:
        """Ends an accepted request that still has unanswered sequences."""
        self._close(request, reason)
        actions.append(Refuse(request, reason, message, 1000 if reason in ("worker_lost", "no_instance") else 0))

    def _close(self, request: Request, reason: Reason) -> None:
        """Settles what waits of a request and forgets it; what is in flight settles in silence when it comes back."""
        waiting = 0
        for item in request.items:
            if item.state is QUEUED:
                item.state = SETTLED
                waiting += 1
                if item.lane != _NO_LANE:
                    self._lanes[item.lane].queue.forget(item)
        self.counts.queued -= waiting
        self.counts.settled += waiting
        self._reject(reason, request.unsettled)
        self._forget(request)

    def _forget(self, request: Request) -> None:
        del self._requests[request.client, request.request_id]
        request.unsettled = 0
        request.items = []
        request.payload = None

    def _reject(self, reason: Reason, n: int) -> None:
        rejected = self.counts.rejected
        rejected[reason] = rejected.get(reason, 0) + n

    def _expire(self, now: Seconds, actions: list[Action]) -> None:
        """Refuses what has passed its deadline. What a worker already computes is let come, and refused all the same."""
        soonest = inf
        expired = []
        for request in self._requests.values():
            if request.deadline <= now:
                expired.append(request)
            elif request.deadline < soonest:
                soonest = request.deadline
        self._next_deadline = soonest
        self._next_expiry = now + _EXPIRY_SECONDS + _EXPIRY_SECONDS_PER_REQUEST * len(self._requests)
        for request in expired:
            self._refuse(request, "deadline", self._why_late(request), actions)

    def _why_late(self, request: Request) -> str:
        if any(instance.connected for instance in self._instances.values()):
            return f"{request.timeout_ms} ms have passed"
        return f"{request.timeout_ms} ms have passed and no instance was connected"

    def _earliest_finish(self, length: int, now: Seconds) -> Seconds:
        """The earliest time at which a sequence that arrives now can be answered; `now` where that is not known well.

        Deliberately hopeful (others may help, batches gain): what is refused at the door could not have been served.
        """
        best = inf
        for lane in self._lanes:
            homes = [home for home in lane.homes if home.connected and home.holds >= length]
            if not homes:
                continue
            if not all(home.predictor.trusted for home in homes):
                return now
            free = home_free_at(lane, now)
            if lane.queue.size and lane is self._lane_of(length, rotate=False):
                best_home = min(homes, key=_factor)
                square = best_home.predictor.shape
                tokens = square.token * lane.queue.tokens + square.square * lane.queue.squares
                free += tokens * best_home.predictor.factor / len(lane.homes)
            best = min(best, free + quickest(lane, length))
        return now if best == inf else best

    def _backlog_seconds(self) -> Seconds:
        """How long all that waits will take, everybody helping; infinity with nobody connected."""
        speed = work = 0.0
        for lane in self._lanes:
            for home in lane.homes:
                if home.connected:
                    speed += 1.0 / home.predictor.factor
            if lane.homes:
                work += lane.queue.backlog(lane.homes[0].predictor.shape)
        return work / speed if speed else inf

    # ---- moving items -------------------------------------------------------------------------------------------

    def _pump(self, lane: Lane, now: Seconds, actions: list[Action]) -> None:
        """Moves what waits in `lane` to whoever may take it now: an idle home, an idle other, a home that is nearly free."""
        queue = lane.queue
        while queue.size:
            if lane.idle:
                if self._delay and not self.draining and self._hold(lane, now):
                    return
                if self._start_at_home(lane, now, actions):
                    continue
            if self._rules.steals and self._idle > len(lane.idle) and self._start_elsewhere(lane, now, actions):
                continue
            if now >= lane.prefetch_due and self._prefetch(lane, now, actions):
                continue
            return

    def _pump_all(self, now: Seconds, actions: list[Action]) -> None:
        if self.counts.queued:
            for lane in self._lanes:
                if lane.queue.size:
                    self._pump(lane, now, actions)

    def _feed(self, instance: Instance, now: Seconds, actions: list[Action]) -> None:
        """An instance has room: its own lane first, then the others', the one whose head waits longest first."""
        lane = instance.lane
        if lane is None or not self.counts.queued:
            return
        self._pump(lane, now, actions)
        if self._rules.steals and instance.idle and self.counts.queued:
            heads = [(head.rank, other) for other in self._lanes if (head := other.queue.oldest(instance.classes))]
            for _, other in sorted(heads, key=_first):
                self._pump(other, now, actions)

    def _hold(self, lane: Lane, now: Seconds) -> bool:
        """Whether a batch that is not full is kept back a little longer (max_queue_delay_ms)."""
        head = lane.queue.oldest(-1)
        return head is not None and lane.queue.tokens < self._max_tokens and now < head.request.arrived + self._delay

    def _start_at_home(self, lane: Lane, now: Seconds, actions: list[Action]) -> bool:
        queue = lane.queue
        for instance in self._idle_homes(lane):
            head = queue.oldest(instance.classes)
            if head is None:
                continue
            if self._rules.fastest_first and leave_to_a_busy_one(instance, lane, head, now):
                return False
            most = MAX_BATCH
            if queue.size > 1 and self._idle > 1:
                # A client's batch is split over those that are idle: [B, S] becomes N × [B/N, S].
                most = -(-queue.size // self._helpers(lane, instance, head))
            self._launch(instance, lane, queue.take(
                instance.classes, instance.predictor.shape, max_tokens=self._max_tokens, max_n=most
            ), now, actions)  # fmt: skip
            return True
        return False

    def _idle_homes(self, lane: Lane) -> list[Instance]:
        if self._rules.fastest_first and len(lane.idle) > 1:
            return sorted(lane.idle, key=_speed)
        return lane.idle[::-1]

    def _helpers(self, lane: Lane, instance: Instance, head: Item) -> int:
        """How many idle instances could share what waits in this lane, `instance` among them."""
        helpers = len(lane.idle)
        if self._rules.steals and self._idle > helpers:
            enough = 2.0 * instance.predictor.seconds(head.length, 1)
            for other in self._lanes:
                if other is not lane:
                    helpers += sum(
                        1 for one in other.idle
                        if one.holds >= head.length and one.predictor.seconds(head.length, 1) <= enough
                    )  # fmt: skip
        return helpers

    def _start_elsewhere(self, lane: Lane, now: Seconds, actions: list[Action]) -> bool:
        best: Instance | None = None
        best_seconds, spare = inf, 0.0
        for other in self._lanes:
            if other is lane:
                continue
            for thief in other.idle:
                head = lane.queue.oldest(thief.classes)
                if head is None:
                    continue
                alone = thief.predictor.seconds(head.length, 1)
                if alone < best_seconds:
                    seconds = time_to_steal(thief, lane, head, now)
                    if seconds > 0.0:
                        best, best_seconds, spare = thief, alone, seconds
        if best is None:
            return False
        predictor = best.predictor
        self._launch(best, lane, lane.queue.take(
            best.classes, predictor.shape, max_tokens=self._max_tokens, max_seconds=spare / predictor.factor
        ), now, actions)  # fmt: skip
        return True

    def _prefetch(self, lane: Lane, now: Seconds, actions: list[Action]) -> bool:
        best: Instance | None = None
        best_due = due = inf
        for home in lane.homes:
            at = prefetch_from(home)
            if at <= now and at < best_due and lane.queue.oldest(home.classes) is not None:
                best, best_due, at = home, at, best_due
            if at < due:
                due = at
        lane.prefetch_due = due
        if best is None:
            return False
        self._launch(best, lane, lane.queue.take(
            best.classes, best.predictor.shape, max_tokens=self._max_tokens
        ), now, actions)  # fmt: skip
        return True

    def _launch(self, instance: Instance, lane: Lane, batch: list[Item], now: Seconds, actions: list[Action]) -> None:
        """Gives a batch, taken from `lane`, to an instance that has room for it."""
        for item in batch:
            item.lane = _NO_LANE
        if now >= self._next_deadline:
            batch = self._still_wanted(batch, now, actions)
            if not batch:
                return
        longest = 0
        for item in batch:
            item.state = IN_FLIGHT
            if item.length > longest:
                longest = item.length
        n = len(batch)
        self.counts.queued -= n
        self.counts.in_flight += n
        predicted = instance.predictor.seconds(longest, n)
        home = instance.lane
        flight = Flight(
            self._next_batch, instance.name, instance.incarnation, batch, longest, predicted, now, now, home is lane
        )
        self._next_batch += 1
        if instance.running is None:
            instance.running = flight
            if home is not None:
                if home.idle[-1] is instance:
                    home.idle.pop()
                else:
                    home.idle.remove(instance)
                self._idle -= 1
                home.prefetch_due = min(home.prefetch_due, prefetch_from(instance))
        else:
            flight.started = inf
            instance.prefetched = flight
        actions.append(Dispatch(flight))

    def _still_wanted(self, batch: list[Item], now: Seconds, actions: list[Action]) -> list[Item]:
        """Refuses what has passed its deadline: it is never computed. The rest of the batch goes on."""
        for item in batch:
            request = item.request
            if request.deadline <= now and request.unsettled:
                self._refuse(request, "deadline", self._why_late(request), actions)
        return [item for item in batch if item.state is QUEUED]

    def _lane_of(self, length: int, *, rotate: bool = True) -> Lane:
        """Where a sequence of this length waits; callers have refused what fits nowhere."""
        if self._rules.lanes != "instance":
            return self._lanes[self._lane_table[length]]
        lanes = self._lanes
        start = self._rotation
        fallback = None
        for step in range(len(lanes)):
            lane = lanes[(start + step) % len(lanes)]
            if lane.homes[0].holds < length:
                continue
            if fallback is None:
                fallback = lane
            if lane.homes[0].connected:
                fallback = lane
                break
        if fallback is None:
            raise LookupError(f"no instance holds {length} tokens; admission should have refused it")
        if rotate:
            self._rotation = (fallback.index + 1) % len(lanes)
        return fallback

    # ---- workers ------------------------------------------------------------------------------------------------

    def _done(self, event: BatchDone, now: Seconds, actions: list[Action]) -> None:
        instance = self._instances.get(event.name)
        flight = self._landed(instance, event.incarnation, event.batch_id, now)
        if instance is None or flight is None:
            self.counts.late_results += 1
            return
        batch = flight.items
        n = len(batch)
        if event.rows != n:
            self.counts.wrong_rows += 1
            self._retry_alone(flight, f"{flight.instance} answered {event.rows} rows for a batch of {n}", actions)
            self._pump_all(now, actions)
            return
        self._observe(instance, flight, now)
        self.counts.in_flight -= n
        self.counts.settled += n
        self._answer(flight, instance.counts, event.infer_us, now, actions)
        self._feed(instance, now, actions)

    def _observe(self, instance: Instance, flight: Flight, now: Seconds) -> None:
        observed = now - flight.started
        instance.predictor.observe(flight.predicted, observed)
        counts = instance.counts
        n = len(flight.items)
        counts.batches += 1
        counts.sequences += n
        counts.busy_seconds += observed
        counts.padded_tokens += flight.longest * n
        if not flight.home:
            counts.stolen += n

    def _answer(
        self, flight: Flight, counts: InstanceCounts, infer_us: int, now: Seconds, actions: list[Action]
    ) -> None:
        """One reply per request that has sequences in this batch and still wants them."""
        tokens = 0
        replies: dict[int, Reply] = {}
        for row, item in enumerate(flight.items):
            item.state = SETTLED
            tokens += item.length
            request = item.request
            if not request.unsettled:
                continue
            counts.answered(now - request.arrived)
            request.unsettled -= 1
            if len(request.lengths) == 1:
                actions.append(Reply(request, [item], [row], flight, infer_us, now))
            elif (reply := replies.get(id(request))) is not None:
                reply.items.append(item)
                reply.rows.append(row)
            else:
                reply = Reply(request, [item], [row], flight, infer_us, now)
                replies[id(request)] = reply
                actions.append(reply)
            if not request.unsettled:
                self._forget(request)
        counts.tokens += tokens

    def _failed(self, event: BatchFailed, now: Seconds, actions: list[Action]) -> None:
        instance = self._instances.get(event.name)
        flight = self._landed(instance, event.incarnation, event.batch_id, now)
        if instance is None or flight is None:
            self.counts.late_results += 1
            return
        self._retry_alone(flight, event.message, actions)
        self._pump_all(now, actions)

    def _landed(self, instance: Instance | None, incarnation: int, batch_id: int, now: Seconds) -> Flight | None:
        """Takes a batch off its worker; None if this incarnation does not hold it."""
        if instance is None or incarnation != instance.incarnation:
            return None
        flight = instance.running
        if flight is not None and flight.batch_id == batch_id:
            following = instance.prefetched
            instance.prefetched = None
            instance.running = following
            lane = instance.lane
            if following is not None:
                following.started = now
                if lane is not None:
                    lane.prefetch_due = min(lane.prefetch_due, prefetch_from(instance))
            elif lane is not None and instance.connected:
                lane.idle.append(instance)
                self._idle += 1
            return flight
        flight = instance.prefetched
        if flight is not None and flight.batch_id == batch_id:  # out of order, but it holds it
            instance.prefetched = None
            flight.started = now
            if instance.lane is not None:
                instance.lane.prefetch_due = min(instance.lane.prefetch_due, prefetch_from(instance))
            return flight
        return None

    def _retry_alone(self, flight: Flight, message: str, actions: list[Action]) -> None:
        """The engine could not compute this batch: each of its items is tried once more, alone, so that one bad sequence
        fails nobody else."""
        if len(flight.items) == 1:
            item = flight.items[0]
            self._settle_lost(item)
            if item.request.unsettled:
                self._refuse(item.request, "model_error", message, actions)
            return
        for item in flight.items:
            item.alone = True
        self._requeue(flight.items, actions)

    def _settle_lost(self, item: Item) -> None:
        """An item in flight that will have no row."""
        item.state = SETTLED
        self.counts.in_flight -= 1
        self.counts.settled += 1

    def _requeue(self, items: list[Item], actions: list[Action]) -> None:
        """Puts items in flight back to the front of their lanes; settles those that nobody waits for, and poison."""
        for item in items:
            request = item.request
            if request.unsettled and item.deaths >= _MOST_DEATHS:
                message = f"{item.deaths} workers died while they computed sequence {item.position} of this request"
                self._refuse(request, "worker_lost", message, actions)
            elif request.unsettled and item.length > self._limits.longest:
                self._refuse(request, "too_long", f"no instance holds {item.length} tokens any more", actions)
        back: dict[int, list[Item]] = {}
        for item in items:
            if not item.request.unsettled:
                self._settle_lost(item)
                continue
            item.state = QUEUED
            item.attempts += 1
            item.lane = self._lane_of(item.length).index
            back.setdefault(item.lane, []).append(item)
        n = 0
        for lane, returned in back.items():
            self._lanes[lane].queue.push_front(returned)
            n += len(returned)
        self.counts.in_flight -= n
        self.counts.queued += n
        self.counts.retried += n

    def _hello(self, event: WorkerHello, now: Seconds, actions: list[Action]) -> None:
        instance = self._instances.get(event.name)
        if instance is None or event.incarnation < instance.incarnation or event.incarnation <= instance.dead:
            return
        if instance.connected and event.incarnation == instance.incarnation:
            return
        if event.incarnation > instance.incarnation:
            self._lose(instance, "superseded", actions)
            instance.dead = max(instance.dead, event.incarnation - 1)
        instance.incarnation = event.incarnation
        instance.pid = event.pid
        instance.connected = True
        actions.append(Note(f"instance={event.name} connected incarnation={event.incarnation} pid={event.pid}"))
        holds = instance.holds
        instance.said = event.max_seqlen
        planned = next((one for one in self._plan.instances if one.name == event.name), None)
        if planned is not None:
            instance.configure(planned, self._costs)
        if instance.lane is not None and instance.running is None:
            instance.lane.idle.append(instance)
            self._idle += 1
        if instance.holds != holds:
            self._rebuild(now, actions)
        elif self._rules.lanes == "instance":
            self._spread(now, actions)
        self._feed(instance, now, actions)

    def _lost(self, event: WorkerLost, now: Seconds, actions: list[Action]) -> None:
        instance = self._instances.get(event.name)
        if instance is None:
            return
        if event.incarnation >= instance.incarnation:
            self._lose(instance, "lost", actions)
            instance.incarnation = event.incarnation
        instance.dead = max(instance.dead, event.incarnation)
        self._after_loss(now, actions)

    def _left(self, event: WorkerLeft, now: Seconds, actions: list[Action]) -> None:
        instance = self._instances.get(event.name)
        if instance is not None and event.incarnation == instance.incarnation:
            self._lose(instance, "left", actions, killed=False)
            self._after_loss(now, actions)

    def _undelivered(self, event: Undelivered, now: Seconds, actions: list[Action]) -> None:
        instance = self._instances.get(event.name)
        if instance is None or event.incarnation != instance.incarnation:
            return
        held = [flight for flight in (instance.running, instance.prefetched) if flight is not None]
        if all(flight.batch_id != event.batch_id for flight in held):
            return
        running = instance.running
        # What was never delivered killed nobody.
        self._lose(instance, "unreachable", actions, killed=running is not None and running.batch_id != event.batch_id)
        self._after_loss(now, actions)

    def _lose(self, instance: Instance, why: str, actions: list[Action], *, killed: bool = True) -> None:
        """The worker is gone: what it held goes back to the front. Only what it was running can have killed it."""
        running, prefetched = instance.running, instance.prefetched
        if not instance.connected and running is None:
            return
        lane = instance.lane
        if instance.idle and lane is not None:
            lane.idle.remove(instance)
            self._idle -= 1
        instance.connected = False
        instance.running = instance.prefetched = None
        actions.append(Note(
            f"instance={instance.name} {why} incarnation={instance.incarnation} held={_held(running, prefetched)}"
        ))  # fmt: skip
        items = []
        if running is not None:
            items += running.items
            if killed:
                for item in running.items:
                    item.deaths += 1
                    item.alone = True
        if prefetched is not None:
            items += prefetched.items
        self._requeue(items, actions)

    def _after_loss(self, now: Seconds, actions: list[Action]) -> None:
        self._instances = {name: one for name, one in self._instances.items() if one.planned or one.connected}
        if self._rules.lanes == "instance":
            self._spread(now, actions)
        self._pump_all(now, actions)

    def _spread(self, now: Seconds, actions: list[Action]) -> None:
        """Round-robin: what waits for an instance that is not connected is given to those that are."""
        if not any(instance.connected for instance in self._instances.values()):
            return
        stranded: list[Item] = []
        for lane in self._lanes:
            if lane.queue.size and not lane.homes[0].connected:
                stranded += lane.queue.drain()
        given: dict[int, list[Item]] = {}
        for item in sorted(stranded, key=_item_rank):
            item.lane = self._lane_of(item.length).index
            given.setdefault(item.lane, []).append(item)
        for index, items in given.items():
            self._lanes[index].queue.push_front(items)
        if stranded:
            self._pump_all(now, actions)

    # ---- the plan -----------------------------------------------------------------------------------------------

    def _change_plan(self, plan: Plan, now: Seconds, actions: list[Action]) -> None:
        items = [item for lane in self._lanes for item in lane.queue.drain()]
        self._configure(plan)
        actions.append(Note(f"plan changed policy={plan.policy} instances={len(plan.instances)}"))
        self._replace(items, now, actions)

    def _rebuild(self, now: Seconds, actions: list[Action]) -> None:
        """A worker holds less or more than was thought: the table of lanes changes with it."""
        items = [item for lane in self._lanes for item in lane.queue.drain()]
        self._configure(self._plan)
        self._replace(items, now, actions)

    def _replace(self, items: list[Item], now: Seconds, actions: list[Action]) -> None:
        """Puts waiting items into lanes anew, in order of arrival; refuses what fits nowhere any more."""
        for item in items:
            item.lane = _NO_LANE
        for item in sorted(items, key=_item_rank):
            if item.state is not QUEUED:
                continue
            if item.length > self._limits.longest:
                message = f"no instance holds {item.length} tokens any more; the largest holds {self._limits.longest}"
                self._refuse(item.request, "too_long", message, actions)
                continue
            lane = self._lane_of(item.length)
            item.lane = lane.index
            lane.queue.push(item)
        self._pump_all(now, actions)

    def _configure(self, plan: Plan) -> None:
        """Makes instances and lanes from a plan. The lanes are empty afterwards."""
        self._plan = plan
        self._rules = RULES[plan.policy]
        self._max_tokens = plan.max_batch_tokens
        self._delay = plan.max_queue_delay_ms * 1e-3
        for instance in self._instances.values():
            instance.planned = False
        for planned in plan.instances:
            known = self._instances.get(planned.name)
            if known is None:
                self._instances[planned.name] = Instance(planned, self._costs)
            else:
                known.configure(planned, self._costs)
        members = [self._instances[planned.name] for planned in plan.instances]
        longest = max((instance.holds for instance in members), default=0)
        limits = [min(instance.bucket[1] or longest, longest) for instance in members]
        classes = LengthClasses.over([*limits, *(instance.holds for instance in members)])
        self._lanes = [
            Lane(index, homes, classes) for index, homes in enumerate(self._homes(members)) if homes
        ]  # fmt: skip
        for instance in self._instances.values():
            instance.lane = None
            instance.classes = classes.held_by(instance.holds)
        self._idle = 0
        for lane in self._lanes:
            for home in lane.homes:
                home.lane = lane
                if home.idle:
                    lane.idle.append(home)
                    self._idle += 1
                lane.prefetch_due = min(lane.prefetch_due, prefetch_from(home))
        self._lane_table = lane_by_length(
            [
                Home(max(home.bucket[1] or home.holds for home in lane.homes), max(home.holds for home in lane.homes))
                for lane in self._lanes
            ]
        )
        self._limits = Limits(longest, plan.queue_limit, self.draining)
        self._rotation = 0
        for name, instance in list(self._instances.items()):
            if not instance.planned and not instance.connected:
                del self._instances[name]

    def _homes(self, members: list[Instance]) -> list[list[Instance]]:
        """Which instances share a lane."""
        match self._rules.lanes:
            case "instance":
                return [[instance] for instance in members]
            case "one":
                return [members]
            case "bucket":
                by_bucket: dict[tuple[int, int], list[Instance]] = {}
                for instance in members:
                    # Without a bucket an instance is for every length that it holds.
                    by_bucket.setdefault(instance.bucket if instance.bucket[1] else (1, instance.holds), []).append(
                        instance
                    )
                return list(by_bucket.values())
            case _:
                assert_never(self._rules.lanes)

    # ---- looking in ---------------------------------------------------------------------------------------------

    def is_current(self, name: str, incarnation: int) -> bool:
        """Whether this is the connected incarnation of an instance."""
        instance = self._instances.get(name)
        return instance is not None and instance.connected and instance.incarnation == incarnation

    def instance_of(self, name: str) -> Instance | None:
        """For the shell's encoding of replies, and for tests."""
        return self._instances.get(name)

    def report(self, now: Seconds, state: str) -> RouterReport:
        """The numbers of `RouterStatus` and, per instance, of `InstanceReport`. O(waiting)."""
        counts = self.counts
        status = RouterStatus(
            state, submitted=counts.submitted, queued=counts.queued, in_flight=counts.in_flight, settled=counts.settled,
            rejected=dict(counts.rejected), retried=counts.retried, duplicates=counts.duplicates,
            late_results=counts.late_results,
        )  # fmt: skip
        return RouterReport(status, [self._report_instance(one, now) for one in self._instances.values()])

    def _report_instance(self, instance: Instance, now: Seconds) -> InstanceReport:
        counts = instance.counts
        running = instance.running
        recent = counts.recent(now, now - running.started if running is not None else 0.0)
        depth, oldest = self._share_of_lane(instance, now)
        return InstanceReport(
            instance.name,
            instance.incarnation,
            instance.connected,
            served=counts.served,
            sequences_per_second=recent.sequences_per_second,
            tokens_per_second=recent.tokens_per_second,
            latency_ms=recent.latency_ms,
            queue_depth=depth,
            oldest_wait_ms=oldest * 1e3,
            in_flight=instance.in_flight,
            batch_mean=counts.sequences / counts.batches if counts.batches else 0.0,
            padding_ratio=1.0 - counts.tokens / counts.padded_tokens if counts.padded_tokens else 0.0,
            busy_ratio=recent.busy_ratio,
            batches=counts.batches,
            tokens=counts.tokens,
            padded_tokens=counts.padded_tokens,
            stolen=counts.stolen,
            latency_buckets=counts.latency_buckets(),
            latency_sum_seconds=counts.latency_sum_seconds,
        )

    def _share_of_lane(self, instance: Instance, now: Seconds) -> tuple[int, Seconds]:
        """Sequences that wait for this instance first, and the wait of the oldest. Replicas share their lane's evenly, so
        that the sum over all instances is what is queued."""
        lane = instance.lane
        if lane is None or not lane.queue.size:
            return 0, 0.0
        share, rest = divmod(lane.queue.size, len(lane.homes))
        head = lane.queue.oldest(-1)
        waited = now - head.request.arrived if head is not None else 0.0
        return share + (lane.homes.index(instance) < rest), waited

    def validate(self) -> None:
        """AssertionError if the books do not add up. For tests, after each step: O(everything)."""
        counts = self.counts
        if counts.submitted != counts.queued + counts.in_flight + counts.settled:
            raise AssertionError(f"submitted ≠ queued + in flight + settled: {counts}")
        waiting = []
        for lane in self._lanes:
            lane.queue.validate()
            here = lane.queue.waiting()
            waiting += here
            _expect("lane of waiting items", {item.lane for item in here} or {lane.index}, {lane.index})
            _expect("idle homes", {one.name for one in lane.idle}, {one.name for one in lane.homes if one.idle})
            _expect("idle homes listed once", len(lane.idle), len({one.name for one in lane.idle}))
            for home in lane.homes:
                if prefetch_from(home) < lane.prefetch_due:
                    raise AssertionError(f"{home.name} could prefetch before its lane looks again")
        _expect("idle instances", self._idle, sum(len(lane.idle) for lane in self._lanes))
        flights = [
            flight for one in self._instances.values() for flight in (one.running, one.prefetched) if flight is not None
        ]  # fmt: skip
        flying = [item for flight in flights for item in flight.items]
        _expect("queued", len(waiting), counts.queued)
        _expect("in flight", len(flying), counts.in_flight)
        _expect("items held twice", len({id(item) for item in (*waiting, *flying)}), len(waiting) + len(flying))
        _expect("state of items in flight", {item.state for item in flying} - {IN_FLIGHT}, set())
        for one in self._instances.values():
            if one.prefetched is not None and one.running is None:
                raise AssertionError(f"{one.name} has a batch prefetched and none running")
            if not one.connected and one.running is not None:
                raise AssertionError(f"{one.name} is gone and holds a batch")
        for flight in flights:
            holder = self._instances[flight.instance]
            if flight.incarnation != holder.incarnation or not flight.items:
                raise AssertionError(f"batch {flight.batch_id} of {flight.instance} is nobody's or empty")
        open_items: dict[int, int] = {}
        for item in (*waiting, *flying):
            if item.request.unsettled:
                open_items[id(item.request)] = open_items.get(id(item.request), 0) + 1
        _expect(
            "unanswered sequences of requests",
            {id(request): request.unsettled for request in self._requests.values()},
            open_items,
        )
        if any(item.request.unsettled == 0 for item in waiting):
            raise AssertionError("a sequence waits that nobody wants")
        if any(request.deadline < self._next_deadline for request in self._requests.values()):
            raise AssertionError("a request expires before anybody looks")


def _held(running: Flight | None, prefetched: Flight | None) -> int:
    return sum(len(flight.items) for flight in (running, prefetched) if flight is not None)


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found}, expected {wanted}")


def _first(pair: tuple[int, Lane]) -> int:
    return pair[0]


def _factor(instance: Instance) -> float:
    return instance.predictor.factor


def _speed(instance: Instance) -> float:
    return instance.predictor.seconds(128, 1)


def _item_rank(item: Item) -> int:
    return item.rank
