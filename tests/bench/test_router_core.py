"""How many requests does the router's core decide a second, and does a longer queue make it slower?

A run on a virtual clock is recorded as a tape of (now, event); what is timed is a fresh core that is given the tape.
`pytest tests/bench/test_router_core.py` prints pytest-benchmark's table; one round is about 4,000 requests from submit to
settle. The one assertion is a ratio within the run: CPU per request with 10,000 waiting over that with 500.
"""

from __future__ import annotations

import gc
import heapq
import random
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from orchestrator.plan.model import Bucket, Housekeeping, InstanceName, Plan, PlannedInstance
from orchestrator.router.core import RouterCore
from orchestrator.router.cost import DefaultCosts
from orchestrator.router.events import (
    BatchDone,
    Client,
    Dispatch,
    Event,
    Flight,
    Refuse,
    Reply,
    Request,
    Tick,
    WorkerHello,
)
from orchestrator.router.invariants import validate

INSTANCES = 64
REQUESTS = 4000
EDGES = (32, 128, 256, 512)
Tape = list[tuple[float, Event]]


def plan_of(policy: str) -> Plan:
    instances = []
    for at in range(INSTANCES):
        low, high = (EDGES[at % 4 - 1] + 1 if at % 4 else 1), EDGES[at % 4]
        instances.append(PlannedInstance(InstanceName(f"i{at}"), [at], 0, [0], 1, Bucket(low, high), 512, []))
    housekeeping = Housekeeping([0], True, "a benchmark")
    return Plan(policy, instances, housekeeping, [], [], queue_limit=100_000)  # type: ignore[arg-type]


def mixed(rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.70:
        return rng.randint(10, 32)
    return rng.randint(80, 150) if kind < 0.95 else rng.randint(450, 512)


def record(plan: Plan, waiting: int) -> tuple[Tape, Tape]:
    """What happens until `waiting` sequences wait and all instances are busy, and what happens then: each answer is followed
    by a new request, `REQUESTS` times."""
    rng, core, order, ids = random.Random(1), RouterCore(plan), count(), count(1)
    truth = DefaultCosts().shape("any", 1)
    tape: Tape = []
    agenda: list[tuple[float, int, Flight]] = []
    queues: dict[str, list[Flight]] = {one.name: [] for one in plan.instances}
    now, answered = 0.0, 0

    def begin(name: str) -> None:
        flight = queues[name][0]
        seconds = truth.seconds(flight.longest, len(flight.items)) * rng.uniform(0.95, 1.05)
        heapq.heappush(agenda, (now + seconds, next(order), flight))

    def give(event: Event) -> None:
        nonlocal answered
        tape.append((now, event))
        for action in core.handle(event, now):
            assert not isinstance(action, Refuse), action
            if isinstance(action, Dispatch):
                queue = queues[action.flight.instance]
                queue.append(action.flight)
                if len(queue) == 1:
                    begin(action.flight.instance)
            elif isinstance(action, Reply):
                answered += 1

    def submit() -> None:
        give(Request(Client(b"client"), next(ids), [mixed(rng)], 60_000, payload=b""))

    for one in plan.instances:
        give(WorkerHello(one.name, 1, 512))
    while core.ledger.counts.queued < waiting:
        submit()
    start = len(tape)
    while answered < REQUESTS:
        wake = core.next_wake(now)
        if wake < agenda[0][0]:
            now = wake
            give(Tick())
            continue
        now, _, flight = heapq.heappop(agenda)
        queues[flight.instance].pop(0)
        if queues[flight.instance]:
            begin(flight.instance)
        before = answered
        give(BatchDone(flight.instance, 1, flight.batch_id, len(flight.items), 500))
        for _ in range(answered - before):
            submit()
    return tape[:start], tape[start:]


def fresh(tape: Tape) -> Tape:
    """A request is the core's record too, so each replay needs its own."""
    return [
        (now, Request(event.client, event.request_id, event.lengths, event.timeout_ms, payload=b""))
        if isinstance(event, Request)
        else (now, event)
        for now, event in tape
    ]


def prepare(plan: Plan, before: Tape, tape: Tape) -> tuple[tuple[RouterCore, Tape], dict[str, Any]]:
    core = RouterCore(plan)
    replay(core, fresh(before))
    gc.collect()
    return (core, fresh(tape)), {}


def replay(core: RouterCore, tape: Tape) -> None:
    handle = core.handle
    for now, event in tape:
        handle(event, now)


@pytest.fixture(autouse=True)
def _collector_as_in_the_router() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    yield
    gc.set_threshold(*before)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("policy", ["by-seqlen", "round-robin", "least-loaded", "shortest-completion"])
def test_submit_to_settle_with_ten_thousand_waiting_at_64_instances(benchmark: Any, policy: str) -> None:
    plan = plan_of(policy)
    before, tape = record(plan, 10_000)
    benchmark.pedantic(replay, setup=lambda: prepare(plan, before, tape), rounds=6)
    benchmark.extra_info["settled_per_second"] = round(REQUESTS / benchmark.stats.stats.min)
    print(f"{policy}: {REQUESTS / benchmark.stats.stats.min:,.0f} requests/s from submit to settle")


@pytest.mark.speed
def test_a_twenty_times_longer_queue_does_not_make_a_request_half_as_dear_again() -> None:
    plan, tapes = plan_of("by-seqlen"), {}
    for waiting in (500, 10_000):
        tapes[waiting] = record(plan, waiting)
    seconds = dict.fromkeys(tapes, float("inf"))
    for _ in range(7):
        for waiting, (before, tape) in tapes.items():
            (core, copy), _ = prepare(plan, before, tape)
            started = time.process_time()
            replay(core, copy)
            seconds[waiting] = min(seconds[waiting], time.process_time() - started)
            validate(core)
            assert core.ledger.counts.settled >= REQUESTS
    assert seconds[10_000] < 1.5 * seconds[500], seconds
