"""Which cores, packages, cache domains and nodes follow from what a source said? Pure.

Theory of operation. The kernel describes a machine by sets: which CPUs share a core, a package, a die, a cache with this one
(Documentation/ABI/stable/sysfs-devices-system-cpu, sysfs-devices-cache). Ids beside them are the hardware's own and repeat: core ids
per package or per die, package ids per book, die ids per package; -1 stands for unknown (include/linux/topology.h). So a domain is
a set, cut down to the online CPUs, and ids serve only as labels, or where the sets are missing. Sets of two members that disagree
are a contradiction: they are merged, the reading that never lets two instances share a core, and a warning says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping

from topology.cpuset import format_cpulist
from topology.facts import CpuFacts, Facts, Limits
from topology.model import CoreKind, Cpu, Machine, Node, Package, TopologyError

_UNKNOWN_IDS = frozenset({-1, 0xFFFF})
"""-1 is the kernel's default; 65535 is x86's BAD_APICID cut to 16 bits."""

CAPACITY_GAP = 1.25
"""Two core kinds differ at least by this ratio of cpu_capacity; favoured cores of one kind differ by a few per cent."""

_LOCAL_DISTANCE = 10
"""Of every node to itself, by the ACPI specification (SLIT) and include/linux/topology.h."""

_MOST_EXAMPLES = 3


def build(facts: Facts) -> Machine:
    """The machine that the facts describe. TopologyError if they name no online CPU."""
    warnings = list(facts.warnings)
    online = facts.online
    if not online:
        raise TopologyError(
            f"{facts.origin}: no CPU is online; the tree is incomplete, capture it again with `orchestrator topology --capture`"
        )
    if facts.present and not online <= facts.present:
        extra = format_cpulist(online - facts.present)
        warnings.append(f"CPUs {extra} are online and not in the list of present CPUs; counted as present")
    said = {cpu: facts.cpus.get(cpu, CpuFacts()) for cpu in sorted(online)}

    package_of, packages = _packages(said, online, warnings)
    core_of = _cores(said, package_of, online, warnings)
    dies = _known(said, lambda f: f.die_cpus, lambda f: f.die_id) or {
        cpu: frozenset(
            other for other in said if package_of.get(other) == package_of.get(cpu) and said[other].die_id == f.die_id
        )
        for cpu, f in said.items()
        if f.die_cpus is None and f.die_id is not None and f.die_id not in _UNKNOWN_IDS
    }
    die_of = _labelled(
        _domains("die", dies, online, warnings),
        {cpu: f.die_id for cpu, f in said.items()},
    )
    cluster_of = _labelled(
        _domains("cluster", _known(said, lambda f: f.cluster_cpus, lambda f: f.cluster_id), online, warnings),
        {cpu: f.cluster_id for cpu, f in said.items()},
    )
    levels = sorted({cache.level for f in said.values() for cache in f.caches})
    cache_of = {
        level: _domains(
            f"L{level} cache",
            {cpu: cache.cpus for cpu, f in said.items() for cache in f.caches if cache.level == level},
            online,
            warnings,
        )
        for level in levels
    }
    node_of, nodes = _nodes(facts, warnings)
    rank_of = _ranks(core_of)
    last_of = _last_level(cache_of)
    kind_of = _kinds(facts, said)
    _check_nesting(core_of, package_of, node_of, warnings)

    cpus = []
    for number in sorted(facts.present | online):
        if number not in online:
            cpus.append(_offline(number, facts, {package.package for package in packages}))
            continue
        why_not = _why_not(number, facts.limits)
        cpus.append(
            Cpu(
                cpu=number,
                online=True,
                package=package_of.get(number),
                die=die_of.get(number),
                cluster=cluster_of.get(number),
                node=node_of.get(number),
                core=core_of[number],
                smt_rank=rank_of[number],
                l2=cache_of.get(2, {}).get(number),
                l3=cache_of.get(3, {}).get(number),
                llc=last_of.get(number),
                kind=kind_of.get(number),
                capacity=said[number].capacity,
                isolated=number in facts.isolated,
                allowed=why_not is None,
                why_not=why_not,
            )
        )
    if not any(cpu.allowed for cpu in cpus):
        warnings.append("this process may use none of the online CPUs: its affinity and its cgroup leave none over")
    return Machine(
        cpus=tuple(cpus),
        nodes=nodes,
        packages=packages,
        smt=max(rank_of.values()) + 1,
        quota_cpus=facts.limits.quota_cpus,
        model_name=facts.model_name,
        isa=facts.isa,
        warnings=tuple(warnings),
        arch=facts.arch,
        source=facts.source,
    )


def _offline(number: int, facts: Facts, packages: set[int]) -> Cpu:
    said = facts.cpus.get(number, CpuFacts())
    node = said.node
    if node is None:  # kernels before 3.14 or so leave offline CPUs in the lists of their nodes
        node = next((n for n, f in sorted((facts.nodes or {}).items()) if number in (f.cpus or ())), None)
    return Cpu(
        cpu=number,
        online=False,
        package=said.package_id if said.package_id in packages else None,
        node=node,
        isolated=number in facts.isolated,
        why_not="offline",
    )


def _domains(
    what: str, said: Mapping[int, frozenset[int]], online: frozenset[int], warnings: list[str]
) -> dict[int, int]:
    """CPU → number of its domain, the domains numbered from 0 by their lowest CPU.

    A CPU that says nothing belongs where another one counts it in. Sets that overlap without being equal are merged.
    """
    cut: dict[frozenset[int], frozenset[int]] = {}
    groups: set[frozenset[int]] = set()
    for cpu, cpus in said.items():
        members = cut.get(cpus)
        if members is None:
            members = cut[cpus] = cpus & online
        groups.add(members if cpu in members else members | {cpu})
    group_of: dict[int, frozenset[int]] = {}
    disagreeing: list[str] = []
    for group in sorted(groups, key=lambda members: (min(members), len(members))):
        others = {group_of[cpu] for cpu in group if cpu in group_of}
        if others:
            disagreeing.append(f"{{{format_cpulist(group)}}} and {{{format_cpulist(min(others, key=sorted))}}}")
        merged = group.union(*others)
        for cpu in merged:
            group_of[cpu] = merged
    if disagreeing:
        warnings.append(
            f"the kernel contradicts itself about who shares a {what}: {'; '.join(disagreeing[:_MOST_EXAMPLES])}"
            f"{' and more' if len(disagreeing) > _MOST_EXAMPLES else ''}; counted as one"
        )
    number_of: dict[frozenset[int], int] = {}
    return {cpu: number_of.setdefault(group_of[cpu], len(number_of)) for cpu in sorted(group_of)}


def _known(
    said: Mapping[int, CpuFacts],
    cpus_of: Callable[[CpuFacts], frozenset[int] | None],
    id_of: Callable[[CpuFacts], int | None],
) -> dict[int, frozenset[int]]:
    """The sets that are more than the kernel's default: the CPU alone, with the id unknown."""
    known = {}
    for cpu, facts in said.items():
        cpus = cpus_of(facts)
        if cpus is not None and not (cpus <= {cpu} and id_of(facts) in _UNKNOWN_IDS):
            known[cpu] = cpus
    return known


def _labelled(domain_of: dict[int, int], id_of: Mapping[int, int | None]) -> dict[int, int]:
    """The domains under the kernel's ids where each has exactly one of its own, else under their numbers."""
    ids: dict[int, set[int | None]] = {}
    for cpu, domain in domain_of.items():
        ids.setdefault(domain, set()).add(id_of.get(cpu))
    label: dict[int, int] = {}
    for domain, values in ids.items():
        value = next(iter(values))
        if len(values) != 1 or value is None or value < 0:
            return domain_of
        label[domain] = value
    if len(set(label.values())) != len(label):
        return domain_of
    return {cpu: label[domain] for cpu, domain in domain_of.items()}


def _packages(
    said: Mapping[int, CpuFacts], online: frozenset[int], warnings: list[str]
) -> tuple[dict[int, int], tuple[Package, ...]]:
    """CPU → package. Sets first; a CPU in no set by its id, which on s390 counts within its book and drawer."""
    domain_of = _domains(
        "package", {cpu: f.package_cpus for cpu, f in said.items() if f.package_cpus is not None}, online, warnings
    )
    key_of: dict[int, Hashable] = {
        cpu: (f.drawer_id, f.book_id, f.package_id)
        for cpu, f in said.items()
        if f.package_id is not None and f.package_id >= 0
    }
    of_key: dict[Hashable, int] = {}
    for cpu, domain in domain_of.items():
        if cpu in key_of:
            of_key.setdefault(key_of[cpu], domain)
    following = max(domain_of.values(), default=-1) + 1
    for cpu in said:
        if cpu not in domain_of and cpu in key_of:
            domain_of[cpu] = of_key.setdefault(key_of[cpu], following)
            following = max(following, domain_of[cpu] + 1)
    _compare_package_ids(domain_of, key_of, warnings)
    package_of = _labelled(domain_of, {cpu: f.package_id for cpu, f in said.items()})
    members: dict[int, list[int]] = {}
    for cpu in sorted(package_of):
        members.setdefault(package_of[cpu], []).append(cpu)
    missing = online - package_of.keys()
    if missing and members:
        warnings.append(f"no package is known for CPUs {format_cpulist(missing)}")
    return package_of, tuple(Package(package, tuple(cpus)) for package, cpus in sorted(members.items()))


def _compare_package_ids(domain_of: dict[int, int], key_of: dict[int, Hashable], warnings: list[str]) -> None:
    domains_of_key: dict[Hashable, set[int]] = {}
    keys_of_domain: dict[int, set[Hashable]] = {}
    for cpu, key in key_of.items():
        domains_of_key.setdefault(key, set()).add(domain_of[cpu])
        keys_of_domain.setdefault(domain_of[cpu], set()).add(key)
    if any(len(domains) > 1 for domains in domains_of_key.values()):
        warnings.append(
            "the kernel gives one physical_package_id to several sets of package siblings; the sets are used"
        )
    if any(len(keys) > 1 for keys in keys_of_domain.values()):
        warnings.append("the kernel gives several physical_package_ids to one set of package siblings; the set is used")


def _cores(
    said: Mapping[int, CpuFacts], package_of: Mapping[int, int], online: frozenset[int], warnings: list[str]
) -> dict[int, int]:
    """CPU → core, unique in the whole machine. Sibling sets; without any, ids within package and die; else one core per CPU."""
    sets = {cpu: f.core_cpus for cpu, f in said.items() if f.core_cpus is not None}
    named = set().union(*sets.values()) if sets else set()
    by_id: dict[Hashable, set[int]] = {}
    alone = set()
    for cpu in online - named - sets.keys():
        facts = said[cpu]
        if facts.core_id is None or facts.core_id < 0:
            sets[cpu] = frozenset({cpu})
            alone.add(cpu)
        else:
            place = (facts.drawer_id, facts.book_id, package_of.get(cpu), facts.die_id)
            by_id.setdefault((place, facts.core_id), set()).add(cpu)
    for siblings in by_id.values():
        for cpu in siblings:
            sets[cpu] = frozenset(siblings)
    if alone:
        warnings.append(
            f"nothing says which CPUs share a core with {format_cpulist(alone)}; each is counted as a core of its own"
        )
    if any(len(siblings) > 1 for siblings in by_id.values()):
        guessed = format_cpulist(cpu for siblings in by_id.values() for cpu in siblings)
        warnings.append(f"no sibling sets for CPUs {guessed}; their cores are taken from core ids within packages")
    return _domains("core", sets, online, warnings)


def _ranks(core_of: Mapping[int, int]) -> dict[int, int]:
    seen: dict[int, int] = {}
    ranks = {}
    for cpu in sorted(core_of):
        ranks[cpu] = seen.get(core_of[cpu], 0)
        seen[core_of[cpu]] = ranks[cpu] + 1
    return ranks


def _last_level(cache_of: Mapping[int, Mapping[int, int]]) -> dict[int, int]:
    """CPU → its domain at the highest level it has (some efficiency cores have no L3); L1 is no domain to plan with."""
    group_of: dict[int, tuple[int, int]] = {}
    for level in sorted(cache_of):
        if level >= 2:
            group_of.update({cpu: (level, domain) for cpu, domain in cache_of[level].items()})
    number_of: dict[tuple[int, int], int] = {}
    return {cpu: number_of.setdefault(group_of[cpu], len(number_of)) for cpu in sorted(group_of)}


def _nodes(facts: Facts, warnings: list[str]) -> tuple[dict[int, int], tuple[Node, ...]]:
    if facts.nodes is None:
        return {}, ()
    node_of: dict[int, int] = {}
    twice: set[int] = set()
    for node, said in sorted(facts.nodes.items()):
        for cpu in (said.cpus or frozenset()) & facts.online:
            if cpu in node_of:
                twice.add(cpu)
            if cpu not in node_of or facts.cpus.get(cpu, CpuFacts()).node == node:
                node_of[cpu] = node
    for cpu in facts.online - node_of.keys():
        link = facts.cpus.get(cpu, CpuFacts()).node
        if link in facts.nodes:
            node_of[cpu] = link
    if twice:
        warnings.append(
            f"CPUs {format_cpulist(twice)} are in the lists of several NUMA nodes; the link of the CPU decides, else the lowest node"
        )
    homeless = facts.online - node_of.keys()
    if homeless:
        warnings.append(f"no NUMA node is known for CPUs {format_cpulist(homeless)}")
    members: dict[int, list[int]] = {}
    for cpu in sorted(node_of):
        members.setdefault(node_of[cpu], []).append(cpu)
    order = sorted(facts.nodes)
    return node_of, tuple(
        Node(
            node=node,
            cpus=tuple(members.get(node, ())),
            memory_bytes=facts.nodes[node].memory_bytes,
            free_bytes=facts.nodes[node].free_bytes,
            distances=_distances(node, facts.nodes[node].distances, order, warnings),
            has_memory=_has_memory(node, facts),
            allowed=all(mems is None or node in mems for mems in (facts.limits.mems_allowed, facts.limits.cgroup_mems)),
        )
        for node in order
    )


def _distances(node: int, row: tuple[int, ...] | None, order: list[int], warnings: list[str]) -> dict[int, int]:
    """The kernel writes one entry per online node, in order; node ids may have holes (drivers/base/node.c)."""
    if row is None:
        return {}
    if len(row) != len(order):
        warnings.append(
            f"node{node}/distance has {len(row)} entries for {len(order)} online nodes; the distances of node {node} are left out"
        )
        return {}
    distances = dict(zip(order, row, strict=True))
    if distances[node] != _LOCAL_DISTANCE or min(row) < _LOCAL_DISTANCE:
        warnings.append(
            f"node{node}/distance is {' '.join(map(str, row))}: a node is {_LOCAL_DISTANCE} from itself and no other is nearer; "
            "check the tree"
        )
    return distances


def _has_memory(node: int, facts: Facts) -> bool:
    said = (facts.nodes or {})[node].memory_bytes
    if said is not None:
        return said > 0
    return node in facts.memory_nodes if facts.memory_nodes else True


def _kinds(facts: Facts, said: Mapping[int, CpuFacts]) -> dict[int, CoreKind]:
    """By the performance-monitoring units of hybrid x86, else by cpu_capacity, split where it jumps most, else by Arm's parts."""
    if facts.performance and facts.efficiency:
        kinds: dict[int, CoreKind] = dict.fromkeys(facts.performance, "performance")
        kinds.update(dict.fromkeys(facts.efficiency - facts.performance, "efficiency"))
        return kinds
    capacities = sorted({f.capacity for f in said.values() if f.capacity})
    jumps = [(high / low, high) for low, high in itertools.pairwise(capacities)]
    ratio, threshold = max(jumps, default=(1.0, 0))
    if ratio < CAPACITY_GAP:
        if capacities or not facts.little < facts.online:
            return {}
        return {cpu: "efficiency" if cpu in facts.little else "performance" for cpu in said if facts.little}
    return {cpu: "performance" if f.capacity >= threshold else "efficiency" for cpu, f in said.items() if f.capacity}


def _why_not(cpu: int, limits: Limits) -> str | None:
    # The cgroup first: on the live machine the affinity is already cut down to it and would hide the reason.
    if limits.cpuset is not None and cpu not in limits.cpuset:
        return f"not in the cpuset of {limits.cpuset_where or 'its cgroup'}"
    if limits.affinity is not None and cpu not in limits.affinity:
        return "not in the CPU affinity of this process"
    return None


def _check_nesting(
    core_of: Mapping[int, int], package_of: Mapping[int, int], node_of: Mapping[int, int], warnings: list[str]
) -> None:
    for what, home_of in (("package", package_of), ("NUMA node", node_of)):
        homes: dict[int, set[int]] = {}
        for cpu, core in core_of.items():
            if cpu in home_of:
                homes.setdefault(core, set()).add(home_of[cpu])
        split = [core for core, several in homes.items() if len(several) > 1]
        if split:
            cpus = format_cpulist(cpu for cpu, core in core_of.items() if core == split[0])
            warnings.append(f"the siblings {cpus} of one core lie in more than one {what}; check the tree")
