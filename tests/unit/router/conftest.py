"""How do the tests drive a router core? As its shell, its clients and its workers, one event at a time."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.plan.model import Bucket, Housekeeping, InstanceName, Plan, PlannedInstance
from orchestrator.router.core import RouterCore
from orchestrator.router.events import (
    Action,
    BatchDone,
    BatchFailed,
    Cancel,
    Client,
    Dispatch,
    Event,
    Flight,
    Refuse,
    Reply,
    Request,
    Tick,
    WorkerHello,
    WorkerLost,
)
from orchestrator.router.invariants import validate

CLIENT = Client(b"client")


def plan_of(
    *instances: tuple[str, int, int], policy: str = "by-seqlen", holds: int | None = None, **options: Any
) -> Plan:
    """Instances as (name, shortest, longest) of their buckets."""
    return Plan(
        policy=policy,  # type: ignore[arg-type]
        instances=[
            PlannedInstance(InstanceName(name), [at], 0, [0], 1, Bucket(low, high), holds or high, [])
            for at, (name, low, high) in enumerate(instances)
        ],
        housekeeping=Housekeeping([0], True, "a test"),
        unused_cpus=[],
        warnings=[],
        **options,
    )


class Desk:
    """A core, its clock, and what it has decided so far."""

    def __init__(self, plan: Plan) -> None:
        self.core = RouterCore(plan)
        self.now = 1000.0
        self.log: list[Action] = []
        self.next_id = 0

    def give(self, event: Event) -> list[Action]:
        actions = self.core.handle(event, self.now)
        validate(self.core)
        self.log += actions
        return actions

    def after(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.give(Tick())

    def submit(
        self, *lengths: int, timeout_ms: int = 0, client: Client = CLIENT, priority: int = 1, tenant: int = 0
    ) -> Request:
        self.next_id += 1
        request = Request(client, self.next_id, list(lengths), timeout_ms, priority, object(), tenant=tenant)
        self.give(request)
        return request

    def cancel(self, request: Request) -> list[Action]:
        return self.give(Cancel(request.client, request.request_id))

    def hello(self, name: str, incarnation: int = 1, holds: int = 512) -> list[Action]:
        return self.give(WorkerHello(name, incarnation, holds))

    def lose(self, name: str, incarnation: int = 1) -> list[Action]:
        return self.give(WorkerLost(name, incarnation))

    def running(self, name: str) -> Flight:
        flight = self.core.roster.instances[name].running
        assert flight is not None, f"{name} runs nothing"
        return flight

    def lengths_at(self, name: str) -> list[list[int]]:
        """Lengths in each batch that an instance holds, the running one first."""
        one = self.core.roster.instances[name]
        return [
            [item.length for item in flight.items] for flight in (one.running, one.prefetched) if flight is not None
        ]

    def finish(
        self, name: str, *, seconds: float = 0.001, rows: int | None = None, besides: float = 0.0
    ) -> list[Action]:
        """The running batch comes back after `seconds`, all of them the engine's but those `besides` it."""
        flight = self.running(name)
        self.now += seconds
        n = len(flight.items) if rows is None else rows
        engine_us = round((self.now - flight.started - besides) * 1e6)
        return self.give(BatchDone(name, flight.incarnation, flight.batch_id, n, engine_us))

    def fail(self, name: str, message: str = "the engine said no") -> list[Action]:
        flight = self.running(name)
        return self.give(BatchFailed(name, flight.incarnation, flight.batch_id, message))

    def answered(self) -> list[tuple[int, list[int]]]:
        return [
            (action.request.request_id, [item.position for item in action.items])
            for action in self.log
            if isinstance(action, Reply)
        ]

    def refused(self) -> list[tuple[int, str]]:
        return [(action.request.request_id, action.reason) for action in self.log if isinstance(action, Refuse)]

    def refusals(self) -> list[Refuse]:
        return [action for action in self.log if isinstance(action, Refuse)]

    def dispatched(self) -> list[tuple[str, list[int]]]:
        return [
            (action.flight.instance, [item.length for item in action.flight.items])
            for action in self.log
            if isinstance(action, Dispatch)
        ]

    @property
    def counts(self) -> Any:
        return self.core.ledger.counts


@pytest.fixture
def make_plan() -> Any:
    return plan_of


@pytest.fixture
def make_desk() -> Any:
    def make(*instances: tuple[str, int, int], **options: Any) -> Desk:
        return Desk(plan_of(*instances, **options))

    return make
