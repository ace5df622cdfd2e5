"""Under every interleaving of events, is each submitted sequence answered exactly once, and do the books add up?"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.plan.model import Bucket, Housekeeping, InstanceName, Plan, PlannedInstance
from orchestrator.router.core import RouterCore
from orchestrator.router.events import (
    QUEUED,
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
    Held,
    Hold,
    PlanChanged,
    Refuse,
    Release,
    Reply,
    Request,
    Tick,
    Undelivered,
    WorkerHello,
    WorkerLeft,
    WorkerLost,
)
from orchestrator.router.invariants import validate
from orchestrator.router.policy import RULES

POLICIES = sorted(RULES)
SHAPES = {"short-0": (1, 32, 48), "short-1": (1, 32, 32), "medium-0": (33, 128, 512), "long-0": (129, 512, 512)}
NAMES = st.sampled_from(sorted(SHAPES))
LENGTHS = st.one_of(st.integers(1, 40), st.integers(1, 520), st.sampled_from([32, 33, 48, 128, 129, 512, 513]))
CLIENTS = st.sampled_from([Client(b"a"), Client(b"b")])
PRIORITIES = st.sampled_from([0, 1, 1, 2])
TENANTS = st.sampled_from([0, 0, 7, 8])
MAX_TOKENS = 256
QUEUE_LIMIT = 24


def plan_of(policy: str, names: list[str], *, delay_ms: float = 0.0) -> Plan:
    return Plan(
        policy,  # type: ignore[arg-type]
        [
            PlannedInstance(InstanceName(name), [0], 0, [0], 1, Bucket(*SHAPES[name][:2]), SHAPES[name][2], [])
            for name in names
        ],
        Housekeeping([0], True, "a test"),
        [],
        [],
        max_batch_tokens=MAX_TOKENS,
        max_queue_delay_ms=delay_ms,
        queue_limit=QUEUE_LIMIT,
    )


class RouterMachine(RuleBasedStateMachine):
    @initialize(policy=st.sampled_from(POLICIES), delay_ms=st.sampled_from([0.0, 0.0, 3.0]))
    def start(self, policy: str, delay_ms: float) -> None:
        self.policy, self.delay_ms = policy, delay_ms
        self.plan = plan_of(policy, sorted(SHAPES), delay_ms=delay_ms)
        self.core = RouterCore(self.plan)
        self.now = 100.0
        self.next_id = 0
        self.unanswered: dict[tuple[bytes, int], set[int]] = {}
        self.submitted: dict[tuple[bytes, int], Request] = {}
        self.held: dict[tuple[str, int], list[Flight]] = {}
        """What each living incarnation was given and has not answered."""
        self.incarnations: dict[str, int] = dict.fromkeys(SHAPES, 0)
        self.deaths: dict[tuple[bytes, int, int], int] = {}
        self.draining = self.drained = False
        self.withheld: set[str] = set()
        self.awaited: set[str] = set()
        """Withheld, and not yet said to hold nothing."""

    # ---- performing what the core decides, as a shell would

    def give(self, event: Event) -> list[Action]:
        actions = self.core.handle(event, self.now)
        for action in actions:
            match action:
                case Dispatch(flight):
                    self.dispatched(flight)
                case Reply(request, items, rows, flight):
                    key = (request.client, request.request_id)
                    positions = [item.position for item in items]
                    assert request is self.submitted[key]
                    assert len(rows) == len(items)
                    assert all(flight.items[row] is item for row, item in zip(rows, items, strict=True))
                    assert self.unanswered[key].issuperset(positions), "answered twice"
                    assert len(set(positions)) == len(positions)
                    self.unanswered[key].difference_update(positions)
                    self.close_if_done(key)
                case Refuse(request, reason, message):
                    key = (request.client, request.request_id)
                    assert request is self.submitted[key]
                    if reason == "queue_full" and isinstance(event, Request) and request is not event:
                        assert request.priority >= event.priority, "room is made at the cost of the less urgent"
                    assert self.unanswered.pop(key), f"refused ({reason}) after everything was answered"
                    assert message or reason == "model_error"
                    del self.submitted[key]
                case Held(name):
                    assert name in self.withheld
                    assert not self.flights_of(name), "it holds something"
                    self.awaited.discard(name)
                case Drained():
                    assert self.draining
                    assert not self.drained, "drained is said once"
                    assert self.core.ledger.counts.queued == self.core.ledger.counts.in_flight == 0
                    self.drained = True
        return actions

    def dispatched(self, flight: Flight) -> None:
        key = (flight.instance, flight.incarnation)
        self.held[key].append(flight)
        assert len(self.held[key]) <= 2, "a worker holds one running and one prefetched batch"
        assert flight.items
        assert flight.instance not in self.withheld
        longest = max(item.length for item in flight.items)
        assert longest == flight.longest
        assert longest <= SHAPES[flight.instance][2]
        assert len(flight.items) == 1 or longest * len(flight.items) <= MAX_TOKENS
        assert len(flight.items) == 1 or not any(item.alone for item in flight.items)
        for item in flight.items:
            assert item.request.payload is not None, "the shell would have nothing to send"
            assert item.request.deadline > self.now, "computed after its deadline"
            if self.policy == "by-seqlen-strict" and item.length <= 32 and "short-0" in self.planned():
                assert flight.instance.startswith("short")

    def close_if_done(self, key: tuple[bytes, int]) -> None:
        if not self.unanswered[key]:
            del self.unanswered[key], self.submitted[key]

    def submit(self, request: Request) -> None:
        key = (request.client, request.request_id)
        self.submitted[key] = request
        self.unanswered[key] = set(range(len(request.lengths)))
        self.give(request)

    def planned(self) -> set[str]:
        return {one.name for one in self.plan.instances}

    def flights_of(self, name: str) -> list[Flight]:
        return [flight for key, flights in self.held.items() if key[0] == name for flight in flights]

    def living(self) -> list[tuple[str, int]]:
        return sorted(self.held)

    # ---- clients

    @rule(
        client=CLIENTS,
        lengths=st.lists(LENGTHS, min_size=1, max_size=6),
        timeout_ms=st.sampled_from([0, 0, 0, 1, 4, 30]),
        priority=PRIORITIES,
        tenant=TENANTS,
    )
    def submits(self, client: Client, lengths: list[int], timeout_ms: int, priority: int, tenant: int) -> None:
        self.next_id += 1
        self.submit(
            Request(client, self.next_id, lengths, timeout_ms, priority=priority, payload=object(), tenant=tenant)
        )

    @rule(client=CLIENTS, n=st.integers(QUEUE_LIMIT - 2, QUEUE_LIMIT + 2), priority=PRIORITIES)
    def submits_very_many(self, client: Client, n: int, priority: int) -> None:
        self.next_id += 1
        self.submit(Request(client, self.next_id, [16] * n, priority=priority, payload=object()))

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def submits_the_same_again(self, data: Any) -> None:
        client, request_id = data.draw(st.sampled_from(sorted(self.submitted)))
        before = self.core.ledger.counts.duplicates
        assert self.give(Request(client, request_id, [3], payload=object())) == []
        assert self.core.ledger.counts.duplicates == before + 1

    @rule(data=st.data(), client=CLIENTS)
    def cancels(self, data: Any, client: Client) -> None:
        request_id = data.draw(st.integers(0, self.next_id))
        self.unanswered.pop((client, request_id), None)
        self.submitted.pop((client, request_id), None)
        self.give(Cancel(client, request_id))

    @rule(client=CLIENTS)
    def goes_away(self, client: Client) -> None:
        for key in [key for key in self.submitted if key[0] == client]:
            del self.submitted[key], self.unanswered[key]
        self.give(ClientGone(client))

    # ---- workers

    @rule(name=NAMES)
    def starts(self, name: str) -> None:
        self.incarnations[name] += 1
        incarnation = self.incarnations[name]
        self.held = {key: flights for key, flights in self.held.items() if key[0] != name}
        self.held[name, incarnation] = []
        self.give(WorkerHello(name, incarnation, SHAPES[name][2]))

    @rule(name=NAMES, back=st.integers(0, 2))
    def says_hello_again(self, name: str, back: int) -> None:
        incarnation = self.incarnations[name] - back
        known = self.core.roster.instances.get(name)
        met = known is not None and known.incarnation == self.incarnations[name]
        if incarnation >= 1 and (met if back else (name, incarnation) in self.held):
            self.give(WorkerHello(name, incarnation, SHAPES[name][2]))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), second=st.booleans())
    def answers(self, data: Any, second: bool) -> None:
        key = data.draw(st.sampled_from([key for key in self.living() if self.held[key]]))
        flight = self.held[key].pop(-1 if second else 0)
        self.give(BatchDone(*key, flight.batch_id, len(flight.items), 100))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), rows=st.integers(0, 9))
    def answers_with_any_number_of_rows(self, data: Any, rows: int) -> None:
        key = data.draw(st.sampled_from([key for key in self.living() if self.held[key]]))
        flight = self.held[key].pop(0)
        self.give(BatchDone(*key, flight.batch_id, rows, 100))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def fails(self, data: Any) -> None:
        key = data.draw(st.sampled_from([key for key in self.living() if self.held[key]]))
        flight = self.held[key].pop(0)
        self.give(BatchFailed(*key, flight.batch_id, "the engine said no"))

    @rule(name=NAMES, incarnation=st.integers(0, 9), batch_id=st.integers(10**6, 10**6 + 3))
    def answers_what_it_does_not_hold(self, name: str, incarnation: int, batch_id: int) -> None:
        before = self.core.ledger.counts.late_results
        assert list(self.give(BatchDone(name, incarnation, batch_id, 1, 5))) == []
        assert self.core.ledger.counts.late_results == before + 1

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["lost", "killed", "left"]))
    def dies(self, data: Any, how: str) -> None:
        key = data.draw(st.sampled_from(self.living()))
        del self.held[key]
        self.give(WorkerLeft(*key) if how == "left" else WorkerLost(*key, from_outside=how == "killed"))

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def cannot_be_reached(self, data: Any) -> None:
        key = data.draw(st.sampled_from([key for key in self.living() if self.held[key]]))
        flight = self.held.pop(key)[-1]
        self.give(Undelivered(*key, flight.batch_id))

    @rule(name=NAMES)
    def is_withheld(self, name: str) -> None:
        self.withheld.add(name)
        self.awaited.add(name)
        self.give(Hold(name))

    @rule(name=NAMES)
    def is_released(self, name: str) -> None:
        self.withheld.discard(name)
        self.awaited.discard(name)
        self.give(Release(name))

    # ---- time, plan, end

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.002, 0.005, 0.05, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.give(Tick())

    @rule(names=st.sets(NAMES, min_size=1), policy=st.sampled_from(POLICIES))
    def plan_changes(self, names: set[str], policy: str) -> None:
        self.policy = policy
        self.plan = plan_of(policy, sorted(names), delay_ms=self.delay_ms)
        self.give(PlanChanged(self.plan))

    @rule(really=st.integers(0, 15))
    def drains(self, really: int) -> None:
        if really == 0:
            self.draining = True
            self.give(Drain())

    # ---- what holds after every step

    @invariant()
    def the_books_add_up(self) -> None:
        validate(self.core)

    @invariant()
    def nobody_is_idle_beside_work_of_its_own(self) -> None:
        if self.delay_ms or RULES[self.core.roster.plan.policy].fastest_first:
            return
        for lane in self.core.roster.lanes:
            for home in lane.idle:
                head = lane.queue.oldest(home.classes)
                assert head is None, f"{home.name} is idle and {head} waits"

    @invariant()
    def a_withheld_instance_that_holds_nothing_has_said_so(self) -> None:
        for name in self.awaited:
            assert self.flights_of(name), f"nobody was told that {name} holds nothing"

    @invariant()
    def what_waits_is_never_forgotten(self) -> None:
        waiting = [item for lane in self.core.roster.lanes for item in lane.queue.waiting()]
        for item in waiting:
            assert item.state is QUEUED
            key = (item.request.client, item.request.request_id)
            assert item.position in self.unanswered[key]

    def teardown(self) -> None:
        """In the end everybody works again, and everything that was accepted gets its answer."""
        if not hasattr(self, "core"):
            return
        for name in sorted(self.planned()):
            self.is_released(name)
            self.starts(name)
        for _ in range(10_000):
            busy = [key for key in self.living() if self.held[key]]
            if not busy and not self.core.ledger.counts.queued:
                break
            for key in busy:
                flight = self.held[key].pop(0)
                self.now += 0.001
                self.give(BatchDone(*key, flight.batch_id, len(flight.items), 100))
                validate(self.core)
            if not busy:
                wake = self.core.next_wake(self.now)
                assert wake < float("inf"), "something waits and nobody will ever look"
                self.now = wake
                self.give(Tick())
        assert self.unanswered == {}, "accepted and never answered"
        assert self.core.ledger.counts.queued == self.core.ledger.counts.in_flight == 0
        assert self.core.ledger.counts.submitted == self.core.ledger.counts.settled


TestRouter = RouterMachine.TestCase
TestRouter.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
