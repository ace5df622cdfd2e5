"""Which processes belong to a deployment, and which of them are the same as those of the one before? Pure but for the plans' own calls.

A *seat* (plan/order.py) is a worker as a process: the same seat means the same process, which is left alone. Two deployments are of one
*world* if their workers, router and gateways may be mixed: the same model in the same length. Precisions of one model may be mixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator.plan.model import PlannedInstance
from orchestrator.plan.order import Seat
from orchestrator.status import ModelStatus
from orchestrator.supervisor.deployment import ChildPlan, Deployment
from workers.spec import WorkerSpec


@dataclass(frozen=True)
class Arrangement:
    """A deployment with its seats."""

    deployment: Deployment
    world: int
    seats: dict[Seat, ChildPlan]
    """In the plan's order."""

    def instance(self, seat: Seat) -> PlannedInstance:
        """What is planned for a seat of this arrangement."""
        return next(one for one in self.deployment.plan.instances if one.name == seat.name)

    @property
    def router(self) -> ChildPlan:
        return next(child for child in self.deployment.children if child.kind == "router")

    @property
    def gateways(self) -> list[ChildPlan]:
        return [child for child in self.deployment.children if child.kind == "gateway"]


def first(deployment: Deployment) -> Arrangement:
    """Of an orchestrator that starts."""
    return arranged(deployment, 0, None, iter(range(len(deployment.children))))


def arranged(deployment: Deployment, world: int, before: Arrangement | None, editions: Iterator[int]) -> Arrangement:
    """The seats of a deployment: those of `before` where the process would be the same, others with a fresh edition."""
    known: dict[str, tuple[Seat, ChildPlan]] = {}
    if before is not None and before.world == world:
        known = {plan.name: (seat, plan) for seat, plan in before.seats.items()}
    seats: dict[Seat, ChildPlan] = {}
    cpus = {instance.name: frozenset(instance.cpus) for instance in deployment.plan.instances}
    for child in deployment.children:
        if child.kind != "worker":
            continue
        same = known.get(child.name)
        if same is not None and not differences(same[1], child):
            seats[same[0]] = child
        else:
            seats[Seat(child.name, world, next(editions), cpus[child.name])] = child  # type: ignore[index]
    return Arrangement(deployment, world, seats)


def differences(old: ChildPlan, new: ChildPlan) -> list[str]:
    """In what the process that these start differs, in words. What it warms up with makes no other process of it."""
    found = []
    if dict(old.environment) != dict(new.environment):
        changed = sorted(
            name
            for name in {*old.environment, *new.environment}
            if old.environment.get(name) != new.environment.get(name)
        )
        found.append(f"environment: {', '.join(changed)}")
    before, after = old.make_spec(0), new.make_spec(0)
    if not isinstance(before, msgspec.Struct) or type(before) is not type(after):
        return found if before == after else [*found, "its specification"]
    for name in before.__struct_fields__:
        one, other = getattr(before, name), getattr(after, name)
        if one != other and not (name == "name" or (name == "warmup" and isinstance(before, WorkerSpec))):
            plain = isinstance(one, int | float | str | list) and len(f"{one}{other}") < 100
            found.append(f"{name}: {one} -> {other}" if plain else name)
    return found


def same_world(old: Deployment, new: Deployment) -> bool:
    """Whether answers of both may stand in one request: the same model, in the same length, with the same tokenizer."""
    return _identity(old.model) == _identity(new.model)


def _identity(model: ModelStatus) -> ModelStatus:
    return msgspec.structs.replace(model, precision="", engine="", artefact="")


def named(plan: ChildPlan, name: str, **changes: Any) -> ChildPlan:
    """The same under another name among the supervisor's children. A gateway is told its name."""
    make_spec = plan.make_spec

    def renamed(incarnation: int) -> object:
        spec = make_spec(incarnation)
        return msgspec.structs.replace(spec, name=name) if isinstance(spec, msgspec.Struct) else spec

    if plan.kind == "gateway":
        changes["make_spec"] = renamed
    return dataclasses.replace(plan, name=name, **changes)
