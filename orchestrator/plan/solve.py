"""Which instance gets which cores, which memory and which lengths? Pure.

Theory of operation
-------------------
1. The usable cores: online, in our affinity and cpuset, not another orchestrator's; one PU of each (`config.cores`).
2. Narrowed, in this order: to isolated cores where the administrator isolated at least half; to performance cores where
   they suffice; to the CPU quota. Some are kept free for housekeeping (`plan.housekeeping`).
3. The instances, from the shortest lengths to the longest, with weights (`plan.buckets`, `plan.cost`).
4. Cores in machine order are cut into runs for the instances in their order (`plan.regions`).
A layout that lists instances goes another way after step 1: `plan.fixed`.
Each step notes for each CPU it leaves out why; that is what `plan --why-not` answers with.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.config.check import check_layout
from orchestrator.config.cores import Core, core_id, has_usable_memory, nearest_memory, nodes_by_id, usable_cores
from orchestrator.config.schema import Batching, Layout, LimitsConfig, layout_max_seqlen
from orchestrator.config.words import counted, cpus_in_words, nodes_in_words
from orchestrator.plan import cost
from orchestrator.plan.allocation import with_allocators
from orchestrator.plan.buckets import Slot, slots
from orchestrator.plan.fixed import place_layout
from orchestrator.plan.housekeeping import Kept, as_configured, keep_house, reserve
from orchestrator.plan.model import Housekeeping, InstanceName, Plan, PlanError, PlannedInstance, Policy
from orchestrator.plan.placed import Placed
from orchestrator.plan.pool import budget, narrowed, within_quota
from orchestrator.plan.regions import Region, best_regions, counts_of, divide, regions_of
from topology.cpuset import parse_cpulist
from topology.model import Machine

DEFAULT_MAX_SEQLEN = 512
"""Tokens, where neither the request nor a layout says: the positions of BERT."""


class PlanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be planned."""

    instances: int | None = None
    """None leaves the count to the planner."""
    policy: Policy | None = None
    """None takes the layout's, else by-seqlen."""
    max_seqlen: int | None = None
    """The longest sequence that will be served, in tokens; None takes the layout's, else 512."""
    layout: Layout | None = None
    batching: Batching | None = None
    """None takes the layout's, else the defaults of the schema; so do limits."""
    limits: LimitsConfig | None = None
    taken: dict[int, str] = {}
    """CPUs that are another's → whose, for example another orchestrator's on this host."""


class Decision(msgspec.Struct, frozen=True):
    """A plan and, for every CPU that no instance runs on, the reason."""

    plan: Plan
    why: dict[int, str]


def plan(machine: Machine, request: PlanRequest) -> Plan:
    """The plan for this machine. Raises PlanError if what is asked cannot be placed."""
    return decide(machine, request).plan


def decide(machine: Machine, request: PlanRequest) -> Decision:
    """The plan with the reason for each CPU that has no instance. Raises PlanError."""
    layout = request.layout
    policy: Policy = request.policy or (layout.policy if layout is not None else "by-seqlen")
    limit = _limit(request)
    if limit < 1:
        raise PlanError(f"cannot plan for sequences of at most {limit} tokens; ask for 1 or more")
    why = _not_usable(machine, request.taken)
    cores = usable_cores(machine, request.taken)
    if not cores:
        raise PlanError(f"cannot place any instance: no CPU may be used{_left_out(machine, why)}")
    if layout is not None:
        _refuse_conflicts(layout, machine, request)
    if layout is not None and layout.instances:
        placed, kept, warnings = place_layout(layout, machine, cores, policy, limit)
        why.update({core.pu: "the layout gives it to no instance" for core in cores})
    else:
        placed, kept, warnings = _chosen(machine, request, cores, policy, limit, why)
    instances, away = _instances(machine, placed, limit)
    if layout is not None:
        instances = with_allocators(instances, layout)
    busy = {cpu for each in instances for cpu in each.cpus}
    house = set(kept.cpus)
    batching = request.batching or (layout.batching if layout is not None else Batching())
    limits = request.limits or (layout.limits if layout is not None else LimitsConfig())
    result = Plan(
        policy=policy,
        instances=instances,
        housekeeping=Housekeeping(cpus=sorted(house), shared=bool(house & busy), reason=kept.reason),
        unused_cpus=sorted({cpu for core in cores for cpu in core.pus} - busy - house),
        warnings=[*warnings, *kept.warnings, *away],
        max_batch_tokens=batching.max_batch_tokens,
        max_queue_delay_ms=batching.max_queue_delay_ms,
        queue_limit=limits.queue,
    )
    _explain_the_rest(cores, placed, kept, why)
    return Decision(result, {cpu: reason for cpu, reason in why.items() if cpu not in busy})


def _limit(request: PlanRequest) -> int:
    if request.max_seqlen is not None:
        return request.max_seqlen
    asked = layout_max_seqlen(request.layout) if request.layout is not None else None
    return DEFAULT_MAX_SEQLEN if asked is None else asked


def _chosen(
    machine: Machine,
    request: PlanRequest,
    cores: Sequence[Core],
    policy: Policy,
    limit: int,
    why: dict[int, str],
) -> tuple[list[Placed], Kept, list[str]]:
    """Instances, sizes and cores are all the planner's choice."""
    wanted = request.instances
    if wanted is not None and wanted < 1:
        raise PlanError(f"cannot plan {wanted} instances; ask for 1 or more, or auto")
    most = budget(machine, len(cores))
    if wanted is not None and wanted > most:
        raise PlanError(_too_many(machine, wanted, len(cores), most, why))
    warnings: list[str] = []
    with_memory = frozenset(node.node for node in machine.nodes if has_usable_memory(node))
    pool = narrowed(cores, wanted or 1, most, why, warnings)
    config = request.layout.housekeeping if request.layout is not None else None
    if config is not None:
        kept, pool = as_configured(cores, pool, wanted or 1, config)
        pool = within_quota(machine, pool, max(most - len(kept.cores), wanted or 1), with_memory, why)
    else:
        pool = within_quota(machine, pool, most, with_memory, why)
        kept, pool = reserve(cores, pool, wanted or 1, most)
    regions = regions_of(pool, with_memory)
    if wanted is None:
        domain = max(len(domain) for region in regions for domain in region.domains)
        size = cost.instance_size(len(pool) + len(kept.cores), domain)
        count = min(cost.instance_count([region.size for region in regions], size), len(pool))
        how = f"count chosen: instances of about {counted(size, 'core')} on {len(pool)}"
    else:
        count, how = wanted, f"count asked for: {wanted}"
    if count < len(regions):
        used = best_regions(regions, count)
        for region in regions:
            if not any(region is each for each in used):
                few = f"{counted(count, 'instance')} for {len(regions)} nodes, and none crosses nodes"
                why.update({core.pu: few for core in region.cores})
                idle = f"{counted(region.size, 'core')} of {_there(region)} idle"
                warnings.append(f"{idle}: {few}; ask for {len(regions)} instances or more")
        regions = used
    placed = _cut(regions, slots(count, policy, limit), how)
    return placed, keep_house(kept, placed, most if machine.quota_cpus is not None else None), warnings


def _cut(regions: Sequence[Region], wanted: Sequence[Slot], how: str) -> list[Placed]:
    placed: list[Placed] = []
    start = 0
    counts = counts_of([slot.weight for slot in wanted], [region.size for region in regions])
    for region, count in zip(regions, counts, strict=True):
        here = wanted[start : start + count]
        start += count
        for slot, cores in zip(here, divide(region, [slot.weight for slot in here]), strict=True):
            share = (
                f"{len(cores)} of the {region.size} cores of {_there(region)}"
                if count > 1
                else f"all of {_there(region)}"
            )
            placed.append(
                Placed(
                    name=slot.name,
                    bucket=slot.bucket,
                    cpus=tuple(core.pu for core in cores),
                    cores=cores,
                    node=region.node,
                    membind=None,
                    threads=len(cores),
                    reasons=(slot.reason, f"{share}; {how}"),
                )
            )
    return placed


def _instances(machine: Machine, placed: Sequence[Placed], limit: int) -> tuple[list[PlannedInstance], list[str]]:
    """The instances with their memory, and a warning for each node whose memory is elsewhere."""
    instances: list[PlannedInstance] = []
    warnings: list[str] = []
    for each in placed:
        membind, reason, warning = _memory(machine, each)
        if warning and warning not in warnings:
            warnings.append(warning)
        instances.append(
            PlannedInstance(
                name=InstanceName(each.name),
                cpus=sorted(each.cpus),
                node=each.node,
                membind=membind,
                threads=each.threads,
                bucket=each.bucket,
                max_seqlen=limit,
                reasons=[*each.reasons, *_core_reasons(each), reason],
            )
        )
    return instances, warnings


def _explain_the_rest(cores: Sequence[Core], placed: Sequence[Placed], kept: Kept, why: dict[int, str]) -> None:
    """Adds the reason for each usable CPU that has none yet."""
    owner = {core.core: each.name for each in placed for core in each.cores}
    left_over = "left over: the instances around it fill their cache domains, and none shares another's"
    for core in cores:
        reason = why.get(core.pu, left_over)
        for cpu in core.pus:
            if cpu in kept.cpus:
                why[cpu] = f"housekeeping: {kept.reason}"
            elif core.core in owner:
                why[cpu] = (
                    f"SMT sibling on a core of {owner[core.core]}: idle, so that its thread has the core to itself"
                )
            else:
                why[cpu] = reason if cpu == core.pu else f"SMT sibling on a core without an instance: {reason}"


def _memory(machine: Machine, placed: Placed) -> tuple[list[int], str, str]:
    """The nodes of its memory, the reason, and a warning where they are not the nodes of its cores."""
    if placed.membind is not None:
        return sorted(placed.membind), f"memory on {nodes_in_words(placed.membind)}: the layout says so", ""
    homes = sorted({core.node for core in placed.cores if core.node is not None})
    if not homes:
        return [], "no memory binding: this kernel names no NUMA nodes", ""
    found = {home: nearest_memory(machine, home) for home in homes}
    nodes = sorted({node for node in found.values() if node is not None})
    if not nodes:
        none = "no memory binding: no node has memory that this process may bind to"
        return [], none, f"{placed.name}: {none}"
    if set(nodes) == set(homes):
        return nodes, f"memory on {nodes_in_words(nodes)}, where its cores are", ""
    known = nodes_by_id(machine)
    away = next(home for home in homes if found[home] != home)
    lack = (
        "has no memory" if away not in known or not known[away].has_memory else "has memory that may not be used here"
    )
    reason = f"memory on {nodes_in_words(nodes)}: node {away} {lack}, and that is the nearest"
    return nodes, reason, f"node {away} {lack}: instances there take it from {nodes_in_words(nodes)}"


def _core_reasons(placed: Placed) -> list[str]:
    reasons: list[str] = []
    domains = {core.llc for core in placed.cores if core.llc is not None}
    if len(domains) == 1 and all(core.llc is not None for core in placed.cores):
        reasons.append("its cores share one last-level cache domain")
    elif len(domains) > 1:
        reasons.append(f"its cores span {len(domains)} last-level cache domains: no single one is large enough")
    foreign = sorted(cpu for core in placed.cores for cpu in core.foreign)
    if foreign:
        reasons.append(f"siblings of its cores that are not ours (others may run there): {cpus_in_words(foreign)}")
    if any(core.isolated for core in placed.cores):
        isolated = cpus_in_words(core.pu for core in placed.cores if core.isolated)
        reasons.append(f"isolated from the scheduler: {isolated}")
    return reasons


def _refuse_conflicts(layout: Layout, machine: Machine, request: PlanRequest) -> None:
    if layout.instances and request.instances is not None:
        total = sum(group.replicas for group in layout.instances)
        raise PlanError(
            f"cannot plan {request.instances} instances: the layout lists {total} itself; leave --instances out, "
            "or take `instances` out of the layout"
        )
    problems = check_layout(layout, machine)
    if problems:
        raise PlanError("\n".join(map(str, problems)))
    for index, group in enumerate(layout.instances):
        named = [cpu for cpu in sorted(request.taken) if group.cpus is not None and cpu in parse_cpulist(group.cpus)]
        if named:
            where = f'instances[{index}] ("{group.name}")'
            raise PlanError(f"{where}: {cpus_in_words(named)} belong to {request.taken[named[0]]}; name others")


def _not_usable(machine: Machine, taken: dict[int, str]) -> dict[int, str]:
    """For each CPU that no instance can have, whatever is asked: why."""
    taken_cores = {core_id(cpu): cpu.cpu for cpu in machine.cpus if cpu.online and cpu.cpu in taken}
    why: dict[int, str] = {}
    for cpu in machine.cpus:
        sibling = taken_cores.get(core_id(cpu))
        if not cpu.online:
            why[cpu.cpu] = "offline"
        elif not cpu.allowed:
            why[cpu.cpu] = cpu.why_not or "the affinity or the cgroup of this process excludes it"
        elif cpu.cpu in taken:
            why[cpu.cpu] = f"taken by {taken[cpu.cpu]}"
        elif sibling is not None:
            why[cpu.cpu] = f"its core is shared with CPU {sibling}, taken by {taken[sibling]}"
    return why


def _too_many(machine: Machine, wanted: int, cores: int, most: int, why: dict[int, str]) -> str:
    if most < cores:
        limit = f"the cgroup's CPU quota of {machine.quota_cpus:g} pays for {most} of the {cores} usable cores"
        next_ = f"ask for at most {most}, or raise the quota (cpu.max)"
    else:
        smt = " (SMT siblings share a core and do not count)" if machine.smt > 1 else ""
        limit = f"this process may use {counted(cores, 'physical core')}{smt}{_left_out(machine, why)}"
        next_ = f"ask for at most {most}"
    return f"cannot place {wanted} instances, each on a core of its own: {limit}; {next_}"


def _left_out(machine: Machine, why: dict[int, str]) -> str:
    by_reason: dict[str, list[int]] = {}
    for cpu in machine.cpus:
        if cpu.cpu in why:
            by_reason.setdefault(why[cpu.cpu], []).append(cpu.cpu)
    said = [f"{cpus_in_words(cpus)}: {reason}" for reason, cpus in by_reason.items()]
    return f"; left out: {'; '.join(said)}" if said else ""


def _there(region: Region) -> str:
    kind = f", {region.kind} cores" if region.kind is not None else ""
    return f"node {region.node}{kind}" if region.node is not None else f"the machine{kind}"
