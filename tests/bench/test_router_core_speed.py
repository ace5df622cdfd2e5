"""What do several tenants and classes of priority cost the router's core?

64 instances in three buckets, 10,000 sequences waiting: each batch that comes back lets a new one go, and as many requests come in as were
settled. CPU time of this thread, the making of requests included; the core alone is timed by test_router_core.py. Run with
`pytest -m speed tests/bench/test_router_core_speed.py -s`.
"""

from __future__ import annotations

import gc
import json
import random
import time
from collections import deque

import pytest

from orchestrator.plan.model import Bucket, Housekeeping, InstanceName, Plan, PlannedInstance
from orchestrator.router.core import RouterCore
from orchestrator.router.events import BatchDone, Client, Dispatch, Flight, Request, WorkerHello

INSTANCES = 64
WAITING = 10_000
SEQUENCES = 20_000
ROUNDS = 3


def core_of() -> RouterCore:
    planned = []
    for number in range(INSTANCES):
        low, high = (1, 32) if number < 32 else (33, 128) if number < 56 else (129, 512)
        planned.append(PlannedInstance(InstanceName(f"i-{number}"), [number], 0, [0], 1, Bucket(low, high), 512, []))
    core = RouterCore(
        Plan("by-seqlen", planned, Housekeeping([0], True, "a benchmark"), [], [], queue_limit=2 * WAITING)
    )
    for number in range(INSTANCES):
        core.handle(WorkerHello(f"i-{number}", 1, 512), 0.0)
    return core


def cpu_seconds_per_sequence(tenants: int, priorities: tuple[int, ...]) -> float:
    """From submit to settled."""
    rng = random.Random(7)
    kinds = rng.choices([(8, 32), (33, 128), (129, 512)], weights=[70, 25, 5], k=1000)
    lengths = [rng.randint(low, high) for low, high in kinds]
    core, running = core_of(), deque[Flight]()
    now, next_id, settled = 1.0, 0, 0

    def submit(n: int) -> None:
        nonlocal next_id
        for _ in range(n):
            next_id += 1
            length, priority = [lengths[next_id % 1000]], priorities[next_id % len(priorities)]
            request = Request(Client(b"gateway"), next_id, length, 60_000, priority, tenant=next_id % tenants)
            running.extend(one.flight for one in core.handle(request, now) if type(one) is Dispatch)

    while core.ledger.counts.queued < WAITING:
        submit(WAITING - core.ledger.counts.queued)
    gc.collect()
    gc.freeze()
    started = time.process_time()
    while settled < SEQUENCES:
        flight = running.popleft()
        n = len(flight.items)
        now += 20e-6 * n
        done = BatchDone(flight.instance, 1, flight.batch_id, n, 100)
        running.extend(one.flight for one in core.handle(done, now) if type(one) is Dispatch)
        settled += n
        submit(n)
    seconds = time.process_time() - started
    gc.unfreeze()
    assert abs(core.ledger.counts.queued - WAITING) < 2_000, "the queue did not stay as long as it should"
    return seconds / settled


@pytest.mark.speed
def test_ten_tenants_in_three_classes_cost_at_most_three_times_what_one_costs() -> None:
    cases = {"one tenant": (1, (1,)), "ten tenants": (10, (1,)), "ten tenants, three classes": (10, (0, 1, 1, 2))}
    least = dict.fromkeys(cases, float("inf"))
    for _ in range(ROUNDS):
        for name, case in cases.items():
            least[name] = min(least[name], cpu_seconds_per_sequence(*case))
    print(json.dumps({name: f"{1 / seconds:,.0f} sequences per CPU second" for name, seconds in least.items()}))
    assert least["ten tenants, three classes"] < 3 * least["one tenant"]
