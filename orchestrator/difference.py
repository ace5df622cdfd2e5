"""What does a reload change, in words?"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.config.schema import Layout
from orchestrator.plan.diff import diff
from orchestrator.supervisor.arrangement import Arrangement, differences
from orchestrator.supervisor.deployment import Deployment


class ReloadReport(msgspec.Struct, frozen=True):
    """What a change does, or would do. Names of instances; reasons in words."""

    applied: bool
    dry_run: bool
    added: list[str]
    removed: list[str]
    restarted: dict[str, list[str]]
    """Another process under the same name, and what is different about it."""
    rerouted: list[str]
    """The same process for other lengths."""
    unchanged: list[str]
    routing: list[str]
    model: str | None
    """Where another model comes: which, and that the gateways move to it."""
    gateways: list[str]
    """Why gateways are replaced; empty where they stay."""
    housekeeping: str | None
    settings: list[str]
    """What else is different: deadlines, limits."""
    steps: list[str]
    warnings: list[str]
    seconds: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.steps or self.rerouted or self.routing or self.gateways or self.housekeeping or self.settings)


def report_of(now: Arrangement, target: Arrangement, old: Layout, new: Layout, steps: list[str]) -> ReloadReport:
    """What `target` changes of what runs `now`, and in which steps."""
    another = target.world != now.world  # another model, or the same one in another length
    before, after = now.deployment, target.deployment
    found = diff(before.plan, after.plan)
    old_plans = {seat.name: plan for seat, plan in now.seats.items()}
    restarted: dict[str, list[str]] = {}
    for seat, plan in target.seats.items():
        if seat.name in old_plans and seat not in now.seats:
            restarted[seat.name] = found.restarted.get(seat.name) or (  # type: ignore[call-overload]
                ["model"] if another else differences(old_plans[seat.name], plan)
            )
    gateways = differences(now.gateways[0], target.gateways[0])
    if len(now.gateways) != len(target.gateways):
        gateways = [f"{len(now.gateways)} -> {len(target.gateways)}", *gateways]
    model = None
    if another:
        model = f"{before.model.id} ({_short(before)}) -> {after.model.id} ({_short(after)}); a request is answered by one of them"
    moved = (
        f"CPUs {before.plan.housekeeping.cpus} -> {after.plan.housekeeping.cpus}" if found.housekeeping_moved else None
    )
    return ReloadReport(
        applied=False,
        dry_run=True,
        added=list(map(str, found.added)),
        removed=list(map(str, found.removed)),
        restarted=restarted,
        rerouted=[str(name) for name in found.rerouted if name not in restarted],
        unchanged=[str(name) for name in found.unchanged if name not in restarted],
        routing=found.routing,
        model=model,
        gateways=gateways,
        housekeeping=moved,
        settings=changed(old, new, ("supervision",)),
        steps=steps,
        warnings=list(after.plan.warnings),
    )


def _short(deployment: Deployment) -> str:
    model = deployment.model
    return f"{model.digest[:12]}, {model.dimensions} dimensions, {model.max_seqlen} tokens"


def changed(old: Layout, new: Layout, names: tuple[str, ...]) -> list[str]:
    """Of these options those with another value: `port: 8080 -> 8081`."""
    found = []
    for name in names:
        before: Any = old
        after: Any = new
        for part in name.split("."):
            before, after = getattr(before, part), getattr(after, part)
        if before != after:
            if isinstance(before, msgspec.Struct):
                found += changed(old, new, tuple(f"{name}.{field}" for field in before.__struct_fields__))
            else:
                found.append(f"{name}: {before} -> {after}")
    return found
