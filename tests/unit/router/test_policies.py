"""Which policy serves a mixed load better, on a virtual clock with the measured costs?

Two one-core instances, 16 requests in flight, 70 % short, 25 % medium, 5 % long: the load of the measurements. Everything is
computed from a seed, so the figures are the same on every machine.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from orchestrator.router.core import RouterCore
from orchestrator.router.cost import Shape
from orchestrator.router.events import BatchDone, Client, Dispatch, Flight, Reply, Request, Tick, WorkerHello
from orchestrator.router.invariants import validate

# all-MiniLM-L6-v2, int8, one core (see orchestrator/router/cost.py).
INT8 = Shape(0.4e-3, 38e-6, 0.09e-6)
MESSAGE_SECONDS = 0.1e-3
IN_FLIGHT = 16
REQUESTS = 3000


def mixed(rng: random.Random) -> int:
    kind = rng.random()
    if kind < 0.70:
        return rng.randint(10, 32)
    return rng.randint(80, 150) if kind < 0.95 else rng.randint(450, 512)


@dataclass
class Outcome:
    seconds: float = 0.0
    work: float = 0.0
    """Seconds that one core would need for all of it, one sequence at a time."""
    latencies: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})
    """By whether the sequence is short."""

    def p99_ms(self, *, short: bool) -> float:
        found = sorted(self.latencies[short])
        return 1e3 * found[int(0.99 * len(found))]

    @property
    def share_of_bare(self) -> float:
        """Throughput over that of two processes that never wait for anything."""
        return self.work / 2 / self.seconds


def serve(plan: Any, *, seed: int = 1) -> Outcome:
    """A closed loop: each answer is followed by a new request."""
    rng = random.Random(seed)
    core, outcome = RouterCore(plan), Outcome()
    names = [one.name for one in plan.instances]
    held: dict[str, list[Flight]] = {name: [] for name in names}
    order, ids = count(), count(1)
    agenda: list[tuple[float, int, str, Any]] = []
    now, answered = 0.0, 0

    def at(time: float, what: str, who: Any = None) -> None:
        heapq.heappush(agenda, (time, next(order), what, who))

    def begin(name: str) -> None:
        flight = held[name][0]
        at(now + INT8.seconds(flight.longest, len(flight.items)) * rng.uniform(0.95, 1.05), "computed", name)

    def perform(event: Any) -> None:
        nonlocal answered
        for action in core.handle(event, now):
            if isinstance(action, Dispatch):
                at(now + MESSAGE_SECONDS, "arrives", action.flight)
            elif isinstance(action, Reply):
                answered += 1
                length = action.request.lengths[0]
                outcome.work += INT8.seconds(length, 1)
                outcome.latencies[length <= 32].append(now - action.request.arrived)
                at(now + 2 * MESSAGE_SECONDS, "submits")

    for name in names:
        perform(WorkerHello(name, 1, 512))
    for _ in range(IN_FLIGHT):
        at(rng.random() * 1e-3, "submits")
    while answered < REQUESTS:
        wake = core.next_wake(now)
        if wake < agenda[0][0]:
            now = wake
            perform(Tick())
            continue
        now, _, what, who = heapq.heappop(agenda)
        if what == "submits":
            perform(Request(Client(b"c"), next(ids), [mixed(rng)], payload=b""))
        elif what == "arrives":
            held[who.instance].append(who)
            if len(held[who.instance]) == 1:
                begin(who.instance)
        elif what == "computed":
            at(now + MESSAGE_SECONDS, "returns", held[who].pop(0))
            if held[who]:
                begin(who)
        else:
            perform(BatchDone(who.instance, 1, who.batch_id, len(who.items), 0))
    validate(core)
    outcome.seconds = now
    return outcome


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    return {}


@pytest.fixture
def outcome_of(make_plan: Any, outcomes: dict[str, Outcome]) -> Any:
    def find(policy: str) -> Outcome:
        if policy not in outcomes:
            outcomes[policy] = serve(make_plan(("short", 1, 32), ("long", 33, 512), policy=policy, holds=512))
        return outcomes[policy]

    return find


def test_short_requests_wait_less_than_half_as_long_by_seqlen_as_by_round_robin(outcome_of: Any) -> None:
    assert outcome_of("by-seqlen").p99_ms(short=True) < 0.5 * outcome_of("round-robin").p99_ms(short=True)


def test_longer_requests_do_not_pay_for_it_with_more_than_half_as_much_again(outcome_of: Any) -> None:
    assert outcome_of("by-seqlen").p99_ms(short=False) < 1.5 * outcome_of("round-robin").p99_ms(short=False)


def test_by_seqlen_serves_nearly_what_two_processes_that_never_wait_would(outcome_of: Any) -> None:
    assert outcome_of("by-seqlen").share_of_bare > 0.95


def test_strict_buckets_waste_cores_on_a_mix_that_they_were_not_made_for(outcome_of: Any) -> None:
    assert outcome_of("by-seqlen-strict").share_of_bare < 0.8 * outcome_of("by-seqlen").share_of_bare


def test_no_policy_with_one_lane_lets_a_core_idle_while_work_waits(outcome_of: Any) -> None:
    for policy in ("least-loaded", "shortest-completion"):
        assert outcome_of(policy).share_of_bare > 0.95
