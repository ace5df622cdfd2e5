"""How is a plan told to people, with its reasons? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestrator.config.words import cpus_in_words
from orchestrator.plan.model import Plan, PlannedInstance
from orchestrator.plan.solve import Decision
from topology.cpuset import format_cpulist
from topology.model import Machine


def table(plan: Plan) -> str:
    """The instances as a table, then housekeeping, what is unused, the reasons and the warnings."""
    rows = [("instance", "tokens", "CPUs", "threads", "node", "memory"), *map(_row, plan.instances)]
    count = len(plan.instances)
    lines = [f"policy {plan.policy}, {count} {'instance' if count == 1 else 'instances'}", ""]
    lines += [f"  {line}" for line in _columns(rows)]
    house = plan.housekeeping
    shared = ", shared with instances" if house.shared and "shared" not in house.reason else ""
    lines += ["", f"housekeeping: {cpus_in_words(house.cpus)}{shared}; {house.reason}"]
    if plan.unused_cpus:
        lines.append(f"unused: {cpus_in_words(plan.unused_cpus)}; `plan --why-not CPU` says why")
    lines += ["", "reasons"]
    lines += [f"  {instance.name}: {'; '.join(instance.reasons)}" for instance in plan.instances]
    lines += [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join(lines)


def why_not(decision: Decision, machine: Machine, target: str) -> str:
    """Why a CPU (`12`, `cpu12`) or a node (`node1`) has no instance, or which one it has.

    ValueError if the target is neither, or the machine has none of that number.
    """
    word = target.strip().lower()
    kind = "node" if word.startswith("node") else "cpu"
    digits = word.removeprefix(kind).strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
        raise ValueError(f"{target!r} is neither a CPU nor a node; write 12 or node1")
    return (
        _why_not_node(decision, machine, int(digits))
        if kind == "node"
        else _why_not_cpu(decision, machine, int(digits))
    )


def _why_not_cpu(decision: Decision, machine: Machine, number: int) -> str:
    present = [cpu.cpu for cpu in machine.cpus]
    if number not in present:
        raise ValueError(f"there is no CPU {number}; this machine has {format_cpulist(present)}")
    runs = [instance for instance in decision.plan.instances if number in instance.cpus]
    if not runs:
        return f"CPU {number} has no instance: {decision.why[number]}"
    also = "; it is shared: housekeeping runs there too" if number in decision.plan.housekeeping.cpus else ""
    return "\n".join(f"CPU {number} runs {each.name}: {'; '.join(each.reasons)}{also}" for each in runs)


def _why_not_node(decision: Decision, machine: Machine, number: int) -> str:
    found = [node for node in machine.nodes if node.node == number]
    if not found:
        has = format_cpulist(node.node for node in machine.nodes)
        raise ValueError(
            f"there is no node {number}; " + (f"this machine has {has}" if has else "this kernel names none")
        )
    (node,) = found
    lines: list[str] = []
    here = [instance for instance in decision.plan.instances if set(instance.cpus) & set(node.cpus)]
    if here:
        lines.append(f"node {number} runs {', '.join(instance.name for instance in here)}")
    if not node.cpus:
        lines.append(f"node {number} has no instance: it has no CPUs{', only memory' if node.has_memory else ''}")
    users = [each.name for each in decision.plan.instances if number in each.membind and each not in here]
    if users:
        lines.append(f"node {number} gives memory to {', '.join(users)}")
    by_reason: dict[str, list[int]] = {}
    for cpu in node.cpus:
        if cpu in decision.why:
            by_reason.setdefault(decision.why[cpu], []).append(cpu)
    prefix = "besides, " if here else f"node {number} has no instance: "
    lines += [f"{prefix}{cpus_in_words(cpus)}: {reason}" for reason, cpus in by_reason.items()]
    return "\n".join(lines)


def _row(instance: PlannedInstance) -> tuple[str, ...]:
    return (
        instance.name,
        f"{instance.bucket.min}-{instance.bucket.max}" if instance.bucket is not None else "any",
        format_cpulist(instance.cpus),
        str(instance.threads),
        "-" if instance.node is None else str(instance.node),
        f"node {format_cpulist(instance.membind)}" if instance.membind else "-",
    )


def _columns(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
