"""Where do the instances go that a layout file lists? Pure.

Entries with `cpus` have their cores. Entries with `cores` are placed in the order of the file, each into the cache domain that
it fills best, else over the fewest domains of one node; if that runs out, once more with the largest first. Packing is a hard
problem in general and this is no search: a layout that it cannot place is refused with what was free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.config.check import wanted_home
from orchestrator.config.cores import Core, has_usable_memory, nodes_by_id, share_cpus
from orchestrator.config.schema import InstanceGroup, Layout
from orchestrator.config.words import cpus_in_words
from orchestrator.plan import cost
from orchestrator.plan.buckets import layout_buckets
from orchestrator.plan.housekeeping import UNSETTLED, Kept, as_configured, keep, keep_house
from orchestrator.plan.model import Bucket, PlanError, Policy
from orchestrator.plan.placed import Placed
from topology.model import Machine


@dataclass(frozen=True, slots=True)
class _Wanted:
    name: str
    index: int
    group: InstanceGroup
    bucket: Bucket | None
    cpus: tuple[int, ...] | None


def place_layout(
    layout: Layout, machine: Machine, cores: Sequence[Core], policy: Policy, max_seqlen: int
) -> tuple[list[Placed], Kept, list[str]]:
    """The layout's instances in the order of the file, what housekeeping gets, and warnings. Raises PlanError.

    The layout has passed `check_layout`.
    """
    buckets, warnings = layout_buckets(layout.instances, policy, max_seqlen)
    wanted = _one_by_one(layout, machine, buckets)
    by_pu = {cpu: core for core in cores for cpu in core.pus}
    named = {by_pu[cpu].core for each in wanted for cpu in each.cpus or ()}
    free = [core for core in cores if core.core not in named]
    demand = sum(each.group.cores or 0 for each in wanted)
    quota = None if machine.quota_cpus is None else max(1, min(len(cores), int(machine.quota_cpus)))
    budget = (len(cores) if quota is None else quota) - len(named)
    kept, placed, shared = _place(layout, machine, free, wanted, demand, budget)
    warnings.extend(shared)
    settled = [_explicit(each, by_pu) if each.cpus is not None else _found(each, placed[each.name]) for each in wanted]
    for each in settled:
        first = {by_pu[cpu].core: cpu for cpu in sorted(each.cpus, reverse=True)}
        second = set(each.cpus) - set(first.values())
        if second:
            warnings.append(
                f"{each.name}: {cpus_in_words(second)} on cores that it has already; one thread per core is run"
            )
    return settled, keep_house(kept, settled, quota), warnings


def _one_by_one(layout: Layout, machine: Machine, buckets: Sequence[Bucket | None]) -> list[_Wanted]:
    numbers: Counter[str] = Counter()
    wanted: list[_Wanted] = []
    for index, (group, bucket) in enumerate(zip(layout.instances, buckets, strict=True)):
        shares = share_cpus(group, machine) if group.cpus is not None else [None] * group.replicas
        for cpus in shares:
            name = f"{group.name}-{numbers[group.name]}"
            numbers[group.name] += 1
            wanted.append(_Wanted(name, index, group, bucket, tuple(cpus) if cpus is not None else None))
    return wanted


def _place(
    layout: Layout, machine: Machine, free: Sequence[Core], wanted: Sequence[_Wanted], demand: int, budget: int
) -> tuple[Kept, dict[str, tuple[Core, ...]], list[str]]:
    """First with cores kept free for housekeeping; where that does not fit, with all."""
    config = layout.housekeeping
    left_free = "cores that the layout leaves free"
    kept, rest = UNSETTLED, tuple(free)
    spare = min(len(free), budget) - demand
    if config is not None:
        kept, rest = as_configured(free, free, 0, config)
    elif spare > 0:
        number = min(max(cost.housekeeping_cores(demand + spare), 1), spare)
        kept, rest = keep(free, number, left_free)
    try:
        return kept, _pack(machine, rest, wanted), []
    except PlanError:
        if not kept.cores:
            raise
    placed = _pack(machine, free, wanted)
    taken = {core.core for cores in placed.values() for core in cores}
    if config is None:
        left = [core for core in free if core.core not in taken]
        return (keep(left, len(kept.cores), left_free)[0] if left else UNSETTLED), placed, []
    both = [core.pu for core in kept.cores if core.core in taken]
    warning = (
        f"housekeeping shares {cpus_in_words(both)} with instances: "
        f"{demand} cores are wanted and {len(free) - len(kept.cores)} are free without them"
    )
    return Kept(kept.cpus, (), kept.reason), placed, [warning]


def _pack(machine: Machine, free: Sequence[Core], wanted: Sequence[_Wanted]) -> dict[str, tuple[Core, ...]]:
    to_place = [each for each in wanted if each.group.cores is not None]
    try:
        return _pack_in_order(machine, free, to_place)
    except PlanError:
        largest_first = sorted(to_place, key=lambda each: (wanted_home(each.group, machine) is None, -_size(each)))
        return _pack_in_order(machine, free, largest_first)


def _pack_in_order(machine: Machine, free: Sequence[Core], wanted: Sequence[_Wanted]) -> dict[str, tuple[Core, ...]]:
    left = list(free)
    placed: dict[str, tuple[Core, ...]] = {}
    for each in wanted:
        home = wanted_home(each.group, machine)
        cores = _best_fit(machine, [core for core in left if home is None or core.node == home], _size(each))
        if cores is None:
            where = f"on node {home}" if home is not None else "inside one NUMA node"
            by_node = Counter(core.node for core in left)
            has = ", ".join(f"{count} on node {node}" for node, count in sorted(by_node.items(), key=str)) or "none"
            raise PlanError(
                f'cannot place "{each.name}" (instances[{each.index}]): {_size(each)} cores wanted {where}, '
                f"free are {has}; lower its cores, or place it by `node` or `cpus`"
            )
        placed[each.name] = cores
        gone = {core.core for core in cores}
        left = [core for core in left if core.core not in gone]
    return placed


def _best_fit(machine: Machine, free: Sequence[Core], size: int) -> tuple[Core, ...] | None:
    """`size` of these cores inside one node: one cache domain if any is large enough, of one kind if possible."""
    nodes = nodes_by_id(machine)

    def rank(core: Core) -> tuple[bool, bool]:
        return core.kind == "efficiency", core.node is not None and not has_usable_memory(nodes.get(core.node))

    for key in (
        lambda core: (core.node, core.kind, core.llc),
        lambda core: (core.node, core.kind),
        lambda core: (core.node,),
    ):
        groups: dict[tuple[object, ...], list[Core]] = {}
        for core in free:
            groups.setdefault(key(core), []).append(core)
        fitting = [group for group in groups.values() if len(group) >= size]
        if fitting:
            best = min(fitting, key=lambda group: (max(map(rank, group)), len(group), group[0].pu))
            return _fewest_domains(best, size)
    return None


def _fewest_domains(cores: Sequence[Core], size: int) -> tuple[Core, ...]:
    """Isolated cores first, then the domains with most free cores, whole ones before parts of others."""
    in_domain = Counter((core.isolated, core.llc) for core in cores)
    order = sorted(
        cores,
        key=lambda core: (
            core.kind == "efficiency",
            not core.isolated,
            -in_domain[core.isolated, core.llc],
            -1 if core.llc is None else core.llc,
            core.pu,
        ),
    )
    return tuple(sorted(order[:size], key=lambda core: core.pu))


def _explicit(wanted: _Wanted, by_pu: dict[int, Core]) -> Placed:
    cpus = wanted.cpus or ()
    cores = {by_pu[cpu].core: by_pu[cpu] for cpu in cpus}
    nodes = Counter(by_pu[cpu].node for cpu in cpus)
    return Placed(
        name=wanted.name,
        bucket=wanted.bucket,
        cpus=cpus,
        cores=tuple(sorted(cores.values(), key=lambda core: core.pu)),
        node=nodes.most_common(1)[0][0],
        membind=_membind(wanted, set(nodes)),
        threads=wanted.group.threads or len(cores),
        reasons=(*_lengths(wanted), f"{cpus_in_words(cpus)}: the layout names them"),
    )


def _membind(wanted: _Wanted, homes: set[int | None]) -> tuple[int, ...] | None:
    if wanted.group.membind is not None:
        return wanted.group.membind
    node = wanted.group.node
    return (node,) if node is not None and homes != {node} else None


def _found(wanted: _Wanted, cores: tuple[Core, ...]) -> Placed:
    size = f"{len(cores)} {'core' if len(cores) == 1 else 'cores'}: the layout says so"
    where = "" if wanted.group.node is None else f", on node {wanted.group.node}"
    return Placed(
        name=wanted.name,
        bucket=wanted.bucket,
        cpus=tuple(core.pu for core in cores),
        cores=cores,
        node=cores[0].node,
        membind=wanted.group.membind,
        threads=wanted.group.threads or len(cores),
        reasons=(*_lengths(wanted), f"{size}{where}; which ones was chosen"),
    )


def _lengths(wanted: _Wanted) -> tuple[str, ...]:
    if wanted.bucket is None:
        return ()
    return (f"sequences of {wanted.bucket.min} to {wanted.bucket.max} tokens: the layout says so",)


def _size(wanted: _Wanted) -> int:
    return wanted.group.cores or 0
