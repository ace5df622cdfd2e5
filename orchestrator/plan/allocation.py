"""Which allocator and pages does each planned instance have, and what was it told to compute with? Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.config.allocation import Allocation, allocation_of
from orchestrator.config.schema import InstanceGroup, Layout
from orchestrator.plan.model import PlannedInstance


def with_allocators(instances: Sequence[PlannedInstance], layout: Layout) -> list[PlannedInstance]:
    """The same instances, in the same order, with what the layout says of each; a layout that lists none says it for all."""
    groups: list[InstanceGroup | None] = [group for group in layout.instances for _ in range(group.replicas)]
    if not groups:
        groups = [None] * len(instances)
    return [
        _with(instance, allocation_of(layout, group), group) for instance, group in zip(instances, groups, strict=True)
    ]


def _with(instance: PlannedInstance, allocation: Allocation, group: InstanceGroup | None) -> PlannedInstance:
    reasons = list(instance.reasons)
    if allocation.allocator != "system":
        reasons.append(
            f"{allocation.allocator} preloaded: the layout says so; openvino, which aborts with it, is left out"
        )
    return msgspec.structs.replace(
        instance,
        reasons=reasons,
        precision=group.precision if group is not None else None,
        engine=group.engine if group is not None else None,
        allocator=allocation.allocator,
        huge_pages=allocation.huge_pages,
    )
