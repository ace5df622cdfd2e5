"""What has to change to get from one plan to another? Pure.

`reload` restarts an instance only where its process would be a different one. A changed bucket is a matter of the router.
"""

from __future__ import annotations

import msgspec

from orchestrator.plan.model import InstanceName, Plan, PlannedInstance


class PlanDiff(msgspec.Struct, frozen=True):
    """Names of instances, each list in the order of its plan."""

    added: list[InstanceName]
    removed: list[InstanceName]
    restarted: dict[InstanceName, list[str]]
    """Same name, another process: which of its fields changed, and how."""
    rerouted: list[InstanceName]
    """Same process, another bucket: only the router has to know."""
    unchanged: list[InstanceName]
    routing: list[str]
    """What else the router has to know: policy, batching, queue limit."""
    housekeeping_moved: bool

    @property
    def is_empty(self) -> bool:
        return not (
            self.added or self.removed or self.restarted or self.rerouted or self.routing or self.housekeeping_moved
        )


def diff(old: Plan, new: Plan) -> PlanDiff:
    """What `new` changes of `old`. Instances are the same if their names are."""
    before = {instance.name: instance for instance in old.instances}
    after = {instance.name: instance for instance in new.instances}
    both = [name for name in after if name in before]
    changes = {name: _process_changes(before[name], after[name]) for name in both}
    restarted = {name: changed for name, changed in changes.items() if changed}
    kept = [name for name in both if name not in restarted]
    routing = [
        f"{field}: {getattr(old, field)} -> {getattr(new, field)}"
        for field in ("policy", "max_batch_tokens", "max_queue_delay_ms", "queue_limit")
        if getattr(old, field) != getattr(new, field)
    ]
    return PlanDiff(
        added=[name for name in after if name not in before],
        removed=[name for name in before if name not in after],
        restarted=restarted,
        rerouted=[name for name in kept if before[name].bucket != after[name].bucket],
        unchanged=[name for name in kept if before[name].bucket == after[name].bucket],
        routing=routing,
        housekeeping_moved=old.housekeeping.cpus != new.housekeeping.cpus,
    )


def _process_changes(before: PlannedInstance, after: PlannedInstance) -> list[str]:
    return [
        f"{field}: {getattr(before, field)} -> {getattr(after, field)}"
        for field in ("cpus", "membind", "threads", "max_seqlen", "precision", "engine", "allocator", "huge_pages")
        if getattr(before, field) != getattr(after, field)
    ]
