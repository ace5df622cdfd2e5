"""What does the router do about an event? Pure.

Theory of operation. A request's sequences become items, and each item waits in a lane. Items leave a lane only as a batch
for an instance that is idle, or that will be within milliseconds (late binding: nothing waits in a socket's buffer or
behind a long batch). A worker therefore holds one running batch and at most one prefetched. A worker that goes away gives its
items back to the front of their lanes; an item that saw two workers die is poison and is refused.

An item is QUEUED, IN_FLIGHT or SETTLED, and submitted = queued + in flight + settled at every moment. A request is
answered per item, or once for all that is unanswered by a refusal; after that its items settle in silence.
Time comes as `now` in seconds of any monotonic clock. `ledger` keeps the books, `roster` the instances and lanes,
`intake` lets requests in, `dispatcher` moves items; here each event is told to them in the right order.
"""

from __future__ import annotations

from collections import deque
from typing import Final, assert_never

from orchestrator.plan.model import Plan
from orchestrator.router.admission import Limits
from orchestrator.router.cost import CostTable, DefaultCosts
from orchestrator.router.dispatcher import Dispatcher
from orchestrator.router.events import (
    Action,
    BatchDone,
    BatchFailed,
    Cancel,
    ClientGone,
    Drain,
    Drained,
    Event,
    Flight,
    Held,
    Hold,
    Item,
    Note,
    PlanChanged,
    Release,
    Reply,
    Request,
    Seconds,
    Tick,
    Undelivered,
    WorkerHello,
    WorkerLeft,
    WorkerLost,
)
from orchestrator.router.instances import Instance
from orchestrator.router.intake import Intake
from orchestrator.router.ledger import Ledger
from orchestrator.router.naming import in_short, names_of, short_reason
from orchestrator.router.policy import prefetch_from
from orchestrator.router.report import report_router
from orchestrator.router.roster import Roster
from orchestrator.status import RouterReport
from workers.said import batch_name

STORY_LENGTH: Final = 32
CRASHED: Final = 2
KILLED: Final = 1
_POISON: Final = 4
"""Two workers that crashed or hung over a sequence make it poison. One that somebody killed counts half: an operator's `kill -9` is no
fault of the sequence, but what used up the memory looks the same where the kernel does not say so; and retrying must end."""

Story = deque[tuple[Seconds, Event, list[Action]]]


class RouterCore:
    """`first_batch_id` sets the ids of this router apart from those of one that ran before it: a worker that outlived a
    router may still answer the old one's batches."""

    def __init__(self, plan: Plan, *, costs: CostTable | None = None, first_batch_id: int = 1) -> None:
        self.story: Story = deque(maxlen=STORY_LENGTH)
        self.draining = False
        self.ledger = Ledger()
        self.roster = Roster(plan, costs or DefaultCosts())
        self._dispatcher = Dispatcher(self.roster, self.ledger, first_batch_id)
        self._intake = Intake(self.roster, self.ledger, self._dispatcher)
        self._drained = False

    def handle(self, event: Event, now: Seconds) -> list[Action]:
        """What to do about `event`, in this order. Never raises for what clients and workers send."""
        actions: list[Action] = []
        match event:
            case Request():
                self._intake.submit(event, now, actions)
            case BatchDone():
                self._done(event, now, actions)
            case Tick():
                self._dispatcher.pump_all(now, actions)
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
                request = self.ledger.requests.get((event.client, event.request_id))
                if request is not None:
                    self._dispatcher.drop(self.ledger.close(request, "cancelled"))
            case ClientGone():
                for request in [one for one in self.ledger.requests.values() if one.client == event.client]:
                    self._dispatcher.drop(self.ledger.close(request, "cancelled"))
            case PlanChanged():
                self._change_plan(event.plan, now, actions)
            case Hold():
                self._hold(event.name, now, actions)
            case Release():
                self._release(event.name, now, actions)
            case Drain():
                self.draining = self._dispatcher.hurry = True
                self._intake.limits = Limits(self.roster.longest, self.roster.plan.queue_limit, True)
                self._dispatcher.pump_all(now, actions)
            case _:
                assert_never(event)
        if now >= self.ledger.next_deadline:
            for request in self.ledger.expired(now):
                self._dispatcher.refuse_late(request, actions)
        counts = self.ledger.counts
        if self.draining and not self._drained and not counts.queued and not counts.in_flight:
            self._drained = True
            actions.append(Drained())
        self.story.append((now, event, actions))
        return actions

    def next_wake(self, now: Seconds) -> Seconds:
        """When a Tick is due if nothing else happens; infinity if never."""
        look = self.ledger.next_look()
        if not self.ledger.counts.queued:
            return look
        return min(look, self._dispatcher.next_due(now))

    # ---- batches ------------------------------------------------------------------------------------------------

    def _done(self, event: BatchDone, now: Seconds, actions: list[Action]) -> None:
        instance = self.roster.instances.get(event.name)
        flight = self._landed(instance, event.incarnation, event.batch_id, now, actions)
        if instance is None or flight is None:
            self.ledger.counts.late_results += 1
            return
        n = len(flight.items)
        if event.rows != n:
            self.ledger.counts.wrong_rows += 1
            self._retry_alone(flight, f"{flight.instance} answered {event.rows} rows for a batch of {n}", now, actions)
            return
        observed = now - flight.started
        instance.predictor.observe(flight.longest, n, event.infer_us * 1e-6, observed)
        self.ledger.landed(flight.items)
        instance.counts.computed(flight, observed)
        self._answer(flight, instance, event.infer_us, now, actions)
        self._dispatcher.feed(instance, now, actions)

    def _answer(self, flight: Flight, instance: Instance, infer_us: int, now: Seconds, actions: list[Action]) -> None:
        """One reply per request that has sequences in this batch and still wants them."""
        counts = instance.counts
        gathered: dict[int, Reply] = {}
        for row, item in enumerate(flight.items):
            request = item.request
            if not request.unsettled:
                continue
            counts.answered(now - request.arrived)
            if len(request.lengths) == 1:
                actions.append(Reply(request, [item], [row], flight, infer_us))
                self.ledger.forget(request)
                continue
            request.unsettled -= 1
            if (reply := gathered.get(id(request))) is not None:
                reply.items.append(item)
                reply.rows.append(row)
            else:
                gathered[id(request)] = reply = Reply(request, [item], [row], flight, infer_us)
                actions.append(reply)
            if not request.unsettled:
                self.ledger.forget(request)

    def _failed(self, event: BatchFailed, now: Seconds, actions: list[Action]) -> None:
        instance = self.roster.instances.get(event.name)
        flight = self._landed(instance, event.incarnation, event.batch_id, now, actions)
        if flight is None:
            self.ledger.counts.late_results += 1
            return
        self._retry_alone(flight, event.message, now, actions)

    def _landed(
        self, instance: Instance | None, incarnation: int, batch_id: int, now: Seconds, actions: list[Action]
    ) -> Flight | None:
        """Takes a batch off its worker; None if this incarnation does not hold it."""
        if instance is None or incarnation != instance.incarnation:
            return None
        flight, following = instance.running, instance.prefetched
        if flight is not None and flight.batch_id == batch_id:
            instance.running, instance.prefetched = following, None
            if following is not None:
                following.started = now
        elif following is not None and following.batch_id == batch_id:  # out of order, but it holds it
            flight, instance.prefetched = following, None
            flight.started = now
        else:
            return None
        if instance.running is None:
            self.roster.rest(instance)
            self._say_held(instance, actions)
        return flight

    def _retry_alone(self, flight: Flight, message: str, now: Seconds, actions: list[Action]) -> None:
        """The engine could not compute this batch: each of its items is tried once more, alone, so that one bad sequence
        fails nobody else."""
        names = names_of(flight.items)
        what = f"batch={batch_name(flight.batch_id)} of {len(flight.items)} failed instance={flight.instance}"
        then = "refused" if len(flight.items) == 1 else "each is tried once more, alone"
        actions.append(
            Note(f"{what}{in_short(names)}: {short_reason(message)}; {then}", "warning", names, flight.batch_id)
        )
        if len(flight.items) == 1:
            item = flight.items[0]
            self.ledger.settle_lost(item)
            if item.request.unsettled:
                self._dispatcher.refuse(item.request, "model_error", message, actions)
        else:
            for item in flight.items:
                item.alone = True
            self._requeue(flight.items, actions)
            self.roster.instances[flight.instance].counts.retried += len(flight.items)
        instance = self.roster.instances[flight.instance]
        self._dispatcher.feed(instance, now, actions)
        self._dispatcher.pump_all(now, actions)

    def _requeue(self, items: list[Item], actions: list[Action]) -> None:
        """Puts items in flight back to the front of their lanes; settles those that nobody waits for, and poison."""
        for item in items:
            request = item.request
            if request.unsettled and item.blame >= _POISON:
                message = f"{item.deaths} workers died while they computed sequence {item.position} of this request"
                names = names_of([item])
                actions.append(Note(f"poison{in_short(names)}: {message}; refused", "error", names))
                self._dispatcher.refuse(request, "worker_lost", message, actions)
            elif request.unsettled and item.length > self.roster.longest:
                self._dispatcher.refuse(
                    request, "too_long", f"no instance holds {item.length} tokens any more", actions
                )
        back = []
        for item in items:
            if item.request.unsettled:
                self.ledger.returned(item)
                back.append(item)
            else:
                self.ledger.settle_lost(item)
        self.roster.put(back)

    # ---- workers ------------------------------------------------------------------------------------------------

    def _hello(self, event: WorkerHello, now: Seconds, actions: list[Action]) -> None:
        instance = self.roster.instances.get(event.name)
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
        instance.serves = event.name not in self.roster.withheld
        if event.costs and not instance.learn(event.costs):
            actions.append(Note(f"instance={event.name} costs ignored: {event.costs[:3]} are no measurements"))
        self.roster.rest(instance)
        actions.append(
            Note(
                f"instance={event.name} connected incarnation={event.incarnation} pid={event.pid} costs={len(event.costs)}"
            )
        )
        if self.roster.reconfigure_instance(instance, event.max_seqlen):
            self._rebuild(self.roster.plan, actions)
        self.roster.spread()
        self._dispatcher.pump_all(now, actions)

    def _lost(self, event: WorkerLost, now: Seconds, actions: list[Action]) -> None:
        instance = self.roster.instances.get(event.name)
        if instance is None:
            return
        instance.dead = max(instance.dead, event.incarnation)
        if event.incarnation >= instance.incarnation:
            self._lose(instance, "lost", actions, blame=KILLED if event.from_outside else CRASHED)
            instance.incarnation = event.incarnation
            self._after_loss(now, actions)

    def _left(self, event: WorkerLeft, now: Seconds, actions: list[Action]) -> None:
        instance = self.roster.instances.get(event.name)
        if instance is not None and event.incarnation == instance.incarnation:
            self._lose(instance, "left", actions, blame=0)
            self._after_loss(now, actions)

    def _undelivered(self, event: Undelivered, now: Seconds, actions: list[Action]) -> None:
        instance = self.roster.instances.get(event.name)
        if instance is None or event.incarnation != instance.incarnation:
            return
        running, prefetched = instance.running, instance.prefetched
        held = [flight.batch_id for flight in (running, prefetched) if flight is not None]
        if running is not None and event.batch_id in held:
            # What was never delivered killed nobody.
            self._lose(instance, "unreachable", actions, blame=CRASHED if running.batch_id != event.batch_id else 0)
            self._after_loss(now, actions)

    def _lose(self, instance: Instance, why: str, actions: list[Action], *, blame: int = CRASHED) -> None:
        """The worker is gone: what it held goes back to the front. Only what it was running can have killed it."""
        if not instance.connected:
            return
        running, prefetched = instance.running, instance.prefetched
        if running is None:
            self.roster.rouse(instance)
        names = names_of([item for flight in (running, prefetched) if flight is not None for item in flight.items])
        text = f"instance={instance.name} {why} incarnation={instance.incarnation} held={instance.in_flight}"
        then = ": given to others" if names else ""
        actions.append(Note(f"{text}{in_short(names)}{then}", "warning" if names else "info", names))
        instance.connected = instance.serves = False
        instance.running = instance.prefetched = None
        if running is None:
            return
        self._say_held(instance, actions)
        if blame:
            for item in running.items:
                item.deaths += 1
                item.blame += blame
                item.alone = True
        held = running.items + (prefetched.items if prefetched is not None else [])
        instance.counts.retried += len(held)
        self._requeue(held, actions)

    def _after_loss(self, now: Seconds, actions: list[Action]) -> None:
        self.roster.forget_the_gone()
        self.roster.spread()
        self._dispatcher.pump_all(now, actions)

    def _hold(self, name: str, now: Seconds, actions: list[Action]) -> None:
        """No more work for this instance: the others serve its bucket meanwhile, or it waits in the queue."""
        instance = self.roster.instances.get(name)
        if instance is None:  # of an unknown one nothing is held either, and somebody waits to hear that
            self.roster.withheld.add(name)
            actions.append(Held(name))
            return
        if name not in self.roster.withheld:
            actions.append(Note(f"instance={name} withheld held={instance.in_flight}"))
            if instance.running is None:
                self.roster.rouse(instance)
            self.roster.withheld.add(name)
            instance.serves = False
            self.roster.spread()
            self._dispatcher.pump_all(now, actions)
        if instance.running is None:
            self._say_held(instance, actions)

    def _release(self, name: str, now: Seconds, actions: list[Action]) -> None:
        if name not in self.roster.withheld:
            return
        actions.append(Note(f"instance={name} released"))
        self.roster.withheld.remove(name)
        instance = self.roster.instances.get(name)
        if instance is None or not instance.connected:
            return
        instance.serves = True
        if instance.running is None:
            self.roster.rest(instance)
        elif instance.lane is not None:
            instance.lane.prefetch_due = min(instance.lane.prefetch_due, prefetch_from(instance))
        self.roster.spread()
        self._dispatcher.pump_all(now, actions)

    def _say_held(self, instance: Instance, actions: list[Action]) -> None:
        if instance.name in self.roster.withheld:
            actions.append(Held(instance.name))

    # ---- the plan -----------------------------------------------------------------------------------------------

    def _change_plan(self, plan: Plan, now: Seconds, actions: list[Action]) -> None:
        actions.append(Note(f"plan changed policy={plan.policy} instances={len(plan.instances)}"))
        self._rebuild(plan, actions)
        self._dispatcher.pump_all(now, actions)

    def _rebuild(self, plan: Plan, actions: list[Action]) -> None:
        """Makes lanes anew and puts all that waits into them; refuses what fits nowhere any more."""
        waiting = self.roster.take_all()
        self.roster.configure(plan)
        self._intake.limits = Limits(self.roster.longest, plan.queue_limit, self.draining)
        for item in waiting:
            if item.length > self.roster.longest and item.request.unsettled:
                message = f"no instance holds {item.length} tokens any more; the largest holds {self.roster.longest}"
                self._dispatcher.refuse(item.request, "too_long", message, actions)
        self.roster.put([item for item in waiting if item.request.unsettled])

    # ---- looking in ---------------------------------------------------------------------------------------------

    def is_current(self, name: str, incarnation: int) -> bool:
        """Whether this is the connected incarnation of an instance."""
        instance = self.roster.instances.get(name)
        return instance is not None and instance.connected and instance.incarnation == incarnation

    def report(self, now: Seconds, state: str) -> RouterReport:
        """The numbers of `RouterStatus` and, per instance, of `InstanceReport`."""
        return report_router(self.ledger, self.roster, now, state)
