"""Which layout file pins down this plan? Pure.

The file names every CPU, so that it gives the same plan on the same machine whatever a later planner would choose. Reasons
go into comments. What the layout that was planned from says beside the placement is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from orchestrator.config.declared import declared
from orchestrator.config.schema import Batching, HousekeepingConfig, InstanceGroup, Layout
from orchestrator.plan.model import Plan, PlannedInstance
from topology.cpuset import format_cpulist


def pinned_layout(plan: Plan, base: Layout | None = None) -> Layout:
    """The layout that says exactly this plan. `base` is the layout it was planned from, if there was one."""
    start = base if base is not None else Layout(version=1)
    limit = max(instance.max_seqlen for instance in plan.instances)
    return msgspec.structs.replace(
        start,
        policy=plan.policy,
        max_seqlen=limit,
        housekeeping=HousekeepingConfig(cpus=format_cpulist(plan.housekeeping.cpus), shared=plan.housekeeping.shared),
        instances=tuple(_entry(instance, start) for instance in plan.instances),
        batching=Batching(max_batch_tokens=plan.max_batch_tokens, max_queue_delay_ms=plan.max_queue_delay_ms),
        limits=msgspec.structs.replace(start.limits, queue=plan.queue_limit),
    )


Entry = tuple[Sequence[str], InstanceGroup]
"""One of `instances`, below lines that are said of it."""


def to_yaml(plan: Plan, base: Layout | None = None) -> str:
    """The text of that layout file; it loads back to the same plan."""
    layout = pinned_layout(plan, base)
    entries = [
        ((instance.name, *(f"  {reason}" for reason in instance.reasons)), group)
        for group, instance in zip(layout.instances, plan.instances, strict=True)
    ]
    head = ["Every CPU is named: this file gives the same plan on the same machine."]
    return layout_text(layout, entries, plan.housekeeping.reason, head)


def layout_text(layout: Layout, entries: Iterable[Entry], housekeeping: str, head: Iterable[str]) -> str:
    """A layout file with these `entries` for its instances, and comments: at its head, and why housekeeping runs where it does."""
    lines = [f"# {line}".rstrip() for line in head]
    for field in declared(Layout):
        value = getattr(layout, field.name)
        if field.name == "instances":
            lines.append("instances:")
            for said, group in entries:
                lines += [f"  # {_one_line(line)}" if line[:1] != " " else f"  #   {_one_line(line)}" for line in said]
                lines.append(f"  - {_flow(group)}")
        elif isinstance(value, msgspec.Struct):
            if field.name == "housekeeping":
                lines.append(f"# {_one_line(housekeeping)}")
            if inner := _flow(value):
                lines.append(f"{field.name}: {inner}")
        elif field.required or value != field.default:
            lines.append(f"{field.name}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


def _entry(instance: PlannedInstance, start: Layout) -> InstanceGroup:
    bucket = instance.bucket
    return InstanceGroup(
        name=instance.name.rsplit("-", 1)[0],
        min_seqlen=bucket.min if bucket is not None else None,
        max_seqlen=bucket.max if bucket is not None else None,
        cpus=format_cpulist(instance.cpus),
        node=instance.node,
        membind=tuple(instance.membind) or None,
        threads=instance.threads,
        precision=instance.precision,  # type: ignore[arg-type] # of the layout that was planned from, hence one of its words
        engine=instance.engine,  # type: ignore[arg-type]
        allocator=instance.allocator if instance.allocator != start.allocator else None,
        huge_pages=instance.huge_pages if instance.huge_pages != start.huge_pages else None,
    )


def _flow(struct: msgspec.Struct) -> str:
    """`{name: "short", cpus: "0-7"}`, without what is at its default; empty if all is."""
    fields = [(field, getattr(struct, field.name)) for field in declared(type(struct))]
    given = [f"{field.name}: {_scalar(value)}" for field, value in fields if field.required or value != field.default]
    return "{" + ", ".join(given) + "}" if given else ""


def _scalar(value: Any) -> str:
    """JSON of a scalar or a list of them is YAML as well, and needs no guess about quotes."""
    if isinstance(value, msgspec.Struct):
        return _flow(value) or "{}"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())
