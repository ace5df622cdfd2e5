"""What in a layout cannot work on this machine? Pure.

Every conflict is found and reported at once, each at the place in the file that causes it.
`allow: [overlap | smt | remote-memory]` in the file turns those three kinds off.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations

from orchestrator.config.cores import (
    core_id,
    has_usable_memory,
    nodes_by_id,
    share_cpus,
    usable_cores,
)
from orchestrator.config.problem import Problem
from orchestrator.config.schema import InstanceGroup, Layout
from orchestrator.config.words import cpus_in_words, nodes_in_words
from topology.cpuset import format_cpulist, parse_cpulist
from topology.model import Machine


def check_layout(layout: Layout, machine: Machine) -> list[Problem]:
    """Every conflict between the layout and the machine, in the order of the file; empty if it can work."""
    check = _Check(layout, machine)
    found = [
        *check.housekeeping(),
        *check.cpus_that_cannot_be_used(),
        *check.overlap(),
        *check.shared_cores(),
        *check.nodes_and_memory(),
        *check.more_cores_than_there_are(),
        *check.quota(),
    ]
    return sorted(found, key=lambda each: (each.line or 0, each.column or 0))


class _Check:
    """The layout and the machine, side by side, in the forms that the questions need."""

    def __init__(self, layout: Layout, machine: Machine) -> None:
        self.layout = layout
        self.machine = machine
        self.cpus = {cpu.cpu: cpu for cpu in machine.cpus}
        self.nodes = nodes_by_id(machine)
        self.cores = usable_cores(machine)
        self.explicit = [
            (index, group, share_cpus(group, machine))
            for index, group in enumerate(layout.instances)
            if group.cpus is not None
        ]

    def problem(self, where: str, what: str, why: str = "", next_: str = "") -> Problem:
        place = self.layout.places.of(where)
        line, column = (place.line, place.column) if place is not None else (None, None)
        return Problem(self.layout.places.file or "layout", line, column, where, what, why, next_)

    # The CPUs that are named

    def housekeeping(self) -> Iterator[Problem]:
        config = self.layout.housekeeping
        if config is None:
            return
        wanted = parse_cpulist(config.cpus)
        yield from self.unusable("housekeeping.cpus", wanted)
        if config.shared or "overlap" in self.layout.allow:
            return
        for index, group, replicas in self.explicit:
            both = wanted & {cpu for cpus in replicas for cpu in cpus}
            if both:
                what = f"{cpus_in_words(both)} also {_belongs(both)} to {_entry(index, group)}"
                why = "router and gateways would interrupt its threads"
                yield self.problem("housekeeping.cpus", what, why, "move one of the two, or say `shared: true` here")

    def cpus_that_cannot_be_used(self) -> Iterator[Problem]:
        for index, group, _ in self.explicit:
            yield from self.unusable(f"instances[{index}].cpus", parse_cpulist(group.cpus or ""))

    def unusable(self, where: str, wanted: frozenset[int]) -> Iterator[Problem]:
        absent = wanted - self.cpus.keys()
        if absent:
            why = f"this machine has {format_cpulist(self.cpus)}"
            yield self.problem(
                where, f"{cpus_in_words(absent)} {_do(absent)} not exist", why, "see `orchestrator topology`"
            )
        offline = {cpu for cpu in wanted - absent if not self.cpus[cpu].online}
        if offline:
            next_ = "bring them online (/sys/devices/system/cpu/cpuN/online), or leave them out"
            yield self.problem(where, f"{cpus_in_words(offline)} {_is(offline)} offline", "", next_)
        reasons: dict[str, set[int]] = defaultdict(set)
        for cpu in wanted - absent - offline:
            if not self.cpus[cpu].allowed:
                reasons[self.cpus[cpu].why_not or "the affinity or the cgroup of this process excludes it"].add(cpu)
        for why, refused in sorted(reasons.items()):
            next_ = "widen the cpuset or affinity, or leave them out"
            yield self.problem(where, f"{cpus_in_words(refused)} may not be used by this process", why, next_)

    def overlap(self) -> Iterator[Problem]:
        if "overlap" in self.layout.allow:
            return
        for (first, group, mine), (second, other, theirs) in combinations(self.explicit, 2):
            both = {cpu for cpus in mine for cpu in cpus} & {cpu for cpus in theirs for cpu in cpus}
            if both:
                what = (
                    f"{cpus_in_words(both)} of {_entry(second, other)} also {_belongs(both)} to {_entry(first, group)}"
                )
                next_ = "give each instance its own, or say `allow: [overlap]`"
                yield self.problem(f"instances[{second}].cpus", what, "their threads would take turns", next_)

    def shared_cores(self) -> Iterator[Problem]:
        if "smt" in self.layout.allow:
            return
        instances = [
            (index, group, {core_id(self.cpus[cpu]): cpu for cpu in cpus if cpu in self.cpus}, frozenset(cpus))
            for index, group, replicas in self.explicit
            for cpus in replicas
        ]
        said: set[tuple[int, int]] = set()
        for (first, group, mine, my_cpus), (second, other, theirs, their_cpus) in combinations(instances, 2):
            shared = sorted(core for core in mine.keys() & theirs.keys() if mine[core] not in their_cpus)
            shared = [core for core in shared if theirs[core] not in my_cpus]
            if not shared or (first, second) in said:
                continue
            said.add((first, second))
            pairs = ", ".join(f"{mine[core]} and {theirs[core]}" for core in shared[:4])
            more = f" and {len(shared) - 4} more pairs" if len(shared) > 4 else ""
            whose = f"{_entry(first, group)} and {_entry(second, other)}"
            whose = f"two replicas of {_entry(first, group)}" if first == second else whose
            what = f"CPUs {pairs}{more} are SMT siblings of one core and belong to {whose}"
            next_ = "use one thread of each core, or say `allow: [smt]`"
            yield self.problem(f"instances[{second}].cpus", what, "the two would share its execution units", next_)

    # Nodes and memory

    def nodes_and_memory(self) -> Iterator[Problem]:
        for index, group in enumerate(self.layout.instances):
            where = f"instances[{index}]"
            homes = self.homes(group)
            if group.node is not None:
                yield from self.wanted_node(where, group, group.node)
            for node in group.membind or ():
                yield from self.memory(f"{where}.membind", node)
            if "remote-memory" in self.layout.allow:
                continue
            next_ = "keep an instance on one node, or say `allow: [remote-memory]`"
            if group.cpus is not None:
                for cpus in share_cpus(group, self.machine):
                    nodes = {self.cpus[cpu].node for cpu in cpus if cpu in self.cpus and self.cpus[cpu].online}
                    if len(nodes) > 1:
                        what = f"{cpus_in_words(set(cpus))} lie on {nodes_in_words(n for n in nodes if n is not None)}"
                        yield self.problem(f"{where}.cpus", what, "some of its memory would be remote", next_)
                        break
            if group.node is not None and homes and homes != {group.node} and group.node in self.nodes:
                what = f"{cpus_in_words(parse_cpulist(group.cpus or ''))} lie on {nodes_in_words(homes)}, the entry says node {group.node}"
                yield self.problem(f"{where}.node", what, "", "correct one of the two, or say `allow: [remote-memory]`")
            elif group.node is not None:
                homes = {group.node} & self.nodes.keys()
            far = set(group.membind or ()) - homes
            local = [node for node in homes if has_usable_memory(self.nodes.get(node))]
            if far and local:  # cores of a node without memory take it from elsewhere anyway
                what = f"memory on {nodes_in_words(far)}, cores on {nodes_in_words(homes)}"
                yield self.problem(f"{where}.membind", what, "every access would cross between nodes", next_)

    def homes(self, group: InstanceGroup) -> set[int]:
        """The nodes of the CPUs that the entry names."""
        named = [self.cpus[cpu] for cpu in parse_cpulist(group.cpus or "") if cpu in self.cpus]
        return {cpu.node for cpu in named if cpu.node is not None}

    def wanted_node(self, where: str, group: InstanceGroup, number: int) -> Iterator[Problem]:
        node = self.nodes.get(number)
        if node is None:
            has = f"this machine has {format_cpulist(self.nodes)}" if self.nodes else "this kernel names no nodes"
            yield self.problem(f"{where}.node", f"node {number} does not exist", has, "see `orchestrator topology`")
        elif not node.cpus:
            why = "it holds memory only" if node.has_memory else "all of them are offline"
            next_ = "name a node with CPUs; membind may name this one" if node.has_memory else ""
            yield self.problem(f"{where}.node", f"node {number} has no CPUs", why, next_)
        elif group.cores is not None and not any(core.node == number for core in self.cores):
            reasons = Counter(self.cpus[cpu].why_not or "not allowed" for cpu in node.cpus if cpu in self.cpus)
            why = reasons.most_common(1)[0][0] if reasons else ""
            yield self.problem(f"{where}.node", f"this process may use no CPU of node {number}", why)

    def memory(self, where: str, number: int) -> Iterator[Problem]:
        node = self.nodes.get(number)
        if node is None:
            has = f"this machine has {format_cpulist(self.nodes)}" if self.nodes else "this kernel names no nodes"
            yield self.problem(where, f"node {number} does not exist", has, "see `orchestrator topology`")
        elif not node.has_memory:
            yield self.problem(where, f"node {number} has no memory", "", "name another node, or leave membind out")
        elif not node.allowed:
            why = "the cgroup's cpuset.mems or the process's Mems_allowed excludes it"
            yield self.problem(where, f"memory of node {number} may not be used by this process", why)

    # How many

    def more_cores_than_there_are(self) -> Iterator[Problem]:
        named = {cpu for _, _, replicas in self.explicit for cpus in replicas for cpu in cpus}
        occupied = {core_id(self.cpus[cpu]) for cpu in named if cpu in self.cpus}
        free = Counter(core.node for core in self.cores if core.core not in occupied)
        total = sum(free.values())
        beside = f" beside the {len(named)} CPUs that the file names" if named else ""
        by_node: Counter[int] = Counter()
        wanted = 0
        for index, group in enumerate(self.layout.instances):
            if group.cores is None:
                continue
            asked = f"{group.replicas} × {group.cores}" if group.replicas > 1 else f"{group.cores}"
            node = wanted_home(group, self.machine)
            where = f"instances[{index}].cores"
            wanted += group.cores * group.replicas
            if node is not None:
                before = by_node[node]
                by_node[node] += group.cores * group.replicas
                if free[node] and by_node[node] > free[node]:
                    left = (
                        f"{free[node]} free{beside}" if not before else f"{free[node]} free, {before} of them given out"
                    )
                    next_ = f"lower cores to {max((free[node] - before) // group.replicas, 0)} or use another node"
                    next_ = next_ if free[node] - before >= group.replicas else "lower cores, or use another node"
                    yield self.problem(where, f"{asked} cores wanted on node {node}, {left}", "", next_)
                    continue
            elif group.cores > max(free.values(), default=0):
                largest = max(free.values(), default=0)
                what = f"{group.cores} cores wanted inside one NUMA node, the largest has {largest} free{beside}"
                yield self.problem(where, what, "", f"lower cores to {largest}" if largest else "")
                continue
            if wanted > total:
                what = f"{asked} cores wanted, {max(total - wanted + group.cores * group.replicas, 0)} of {total} left"
                yield self.problem(where, what, f"{beside.strip()}", "lower cores or replicas")

    def quota(self) -> Iterator[Problem]:
        quota = self.machine.quota_cpus
        if quota is None or not self.layout.instances:
            return
        most = max(int(quota), 1)
        asked = sum(
            group.cores * group.replicas if group.cores is not None else len(parse_cpulist(group.cpus or ""))
            for group in self.layout.instances
        )
        if asked > most:
            what = f"{asked} cores wanted in all, the cgroup's CPU quota is {quota:g}"
            why = "beyond it the kernel stops every thread until the next period"
            yield self.problem("instances", what, why, f"lower cores to {most} in all, or raise the quota (cpu.max)")


def wanted_home(group: InstanceGroup, machine: Machine) -> int | None:
    """The node that an entry with `cores` is bound to: what it says, else the one node of its memory if that has CPUs."""
    if group.node is not None:
        return group.node
    if group.membind is not None and len(group.membind) == 1:
        node = nodes_by_id(machine).get(group.membind[0])
        return node.node if node is not None and node.cpus else None
    return None


def _entry(index: int, group: InstanceGroup) -> str:
    return f'instances[{index}] ("{group.name}")'


def _belongs(numbers: set[int] | frozenset[int]) -> str:
    return "belongs" if len(numbers) == 1 else "belong"


def _is(numbers: set[int] | frozenset[int]) -> str:
    return "is" if len(numbers) == 1 else "are"


def _do(numbers: set[int] | frozenset[int]) -> str:
    return "does" if len(numbers) == 1 else "do"
