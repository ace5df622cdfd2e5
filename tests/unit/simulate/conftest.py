"""Which costs and plans do tests of the simulator stand on? Small round numbers, so that a result can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.plan.model import Bucket, Housekeeping, InstanceName, Plan, PlannedInstance, Policy
from orchestrator.simulate.costs import CostFile, Point, Scaling, TrueCosts
from orchestrator.simulate.traffic import Arrival, Trace
from orchestrator.simulate.world import Delays


@pytest.fixture
def costs() -> TrueCosts:
    """A millisecond per ten tokens, however many sequences they are; half of a call does not scale with threads."""
    points = [Point(1, n, length, n * length * 1e-4) for n in (1, 8) for length in (10, 500)]
    return TrueCosts(
        CostFile(
            version=1,
            model="a model",
            engine="an engine",
            engine_version="1",
            precision="fp32",
            cpu="a CPU",
            scaling=Scaling(0.5, 0.0),
            points=points,
        )
    )


@pytest.fixture
def no_delays() -> Delays:
    return Delays(front=0.0, back=0.0, submit=0.0, done=0.0, reply=0.0, worker=0.0)


@pytest.fixture
def planned() -> Callable[..., Plan]:
    def make(policy: Policy, *instances: tuple[str, int, int], threads: int = 1, queue_limit: int = 1024) -> Plan:
        """Each instance as (name, shortest, longest)."""
        return Plan(
            policy,
            [
                PlannedInstance(InstanceName(name), [at], 0, [0], threads, Bucket(low, high), 512, [])
                for at, (name, low, high) in enumerate(instances)
            ],
            Housekeeping([0], True, "a test"),
            [],
            [],
            queue_limit=queue_limit,
        )

    return make


@pytest.fixture
def trace() -> Callable[..., Trace]:
    def make(*arrivals: tuple[float, int]) -> Trace:
        return Trace([Arrival(due, "short" if length <= 32 else "long", length) for due, length in arrivals])

    return make
