"""Which physical cores may instances run on, and which PU of each? Pure.

A core is one entry of `Machine.cpus[].core`, whatever its number of hardware threads. Instances run one thread per core, on the
first sibling that this process may use; the other siblings stay idle or keep house.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.config.schema import InstanceGroup
from topology.cpuset import parse_cpulist
from topology.model import CoreKind, Cpu, Machine, Node


@dataclass(frozen=True, slots=True)
class Core:
    """One physical core with at least one PU that this process may use."""

    core: int
    """As in the machine; where the kernel names no core, −1 − CPU, so that such a PU is a core of its own."""
    pu: int
    """The PU that an instance's thread runs on."""
    siblings: tuple[int, ...]
    """Its other PUs that this process may use."""
    foreign: tuple[int, ...]
    """Its online PUs that this process may not use: somebody else may run there."""
    node: int | None
    llc: int | None
    kind: CoreKind | None
    capacity: int | None
    isolated: bool

    @property
    def pus(self) -> tuple[int, ...]:
        """All its PUs that this process may use."""
        return (self.pu, *self.siblings)


def core_id(cpu: Cpu) -> int:
    """What two PUs have in common if and only if they are siblings."""
    return cpu.core if cpu.core is not None else -1 - cpu.cpu


def usable_cores(machine: Machine, taken: Iterable[int] = ()) -> tuple[Core, ...]:
    """The cores that instances can have, in the order of their first PU.

    A core with a PU in `taken` (another orchestrator's) is left out as a whole: a sibling is no core of its own.
    """
    gone = frozenset(taken)
    by_core: dict[int, list[Cpu]] = defaultdict(list)
    for cpu in machine.cpus:
        if cpu.online:
            by_core[core_id(cpu)].append(cpu)
    cores: list[Core] = []
    for number, cpus in by_core.items():
        usable = [cpu for cpu in cpus if cpu.allowed]
        if not usable or any(cpu.cpu in gone for cpu in cpus):
            continue
        first = usable[0]
        cores.append(
            Core(
                core=number,
                pu=first.cpu,
                siblings=tuple(cpu.cpu for cpu in usable[1:]),
                foreign=tuple(cpu.cpu for cpu in cpus if not cpu.allowed),
                node=first.node,
                llc=first.llc,
                kind=first.kind,
                capacity=first.capacity,
                isolated=first.isolated,
            )
        )
    return tuple(sorted(cores, key=lambda core: core.pu))


def nodes_by_id(machine: Machine) -> dict[int, Node]:
    return {node.node: node for node in machine.nodes}


def has_usable_memory(node: Node | None) -> bool:
    return node is not None and node.has_memory and node.allowed


def nearest_memory(machine: Machine, node: int | None) -> int | None:
    """The node that memory for cores on `node` comes from: itself, else the nearest that has memory and is allowed.

    None where the machine names no node with memory that may be used. Distances are those of ACPI SLIT as the kernel
    gives them; an unknown one counts as farthest, and of equal ones the lowest number is taken.
    """
    if node is None:
        return None
    nodes = nodes_by_id(machine)
    home = nodes.get(node)
    if has_usable_memory(home):
        return node
    distances = home.distances if home is not None else {}
    candidates = [each.node for each in machine.nodes if has_usable_memory(each)]
    return min(candidates, key=lambda each: (distances.get(each, 1 << 30), each), default=None)


def share_cpus(group: InstanceGroup, machine: Machine) -> list[list[int]]:
    """The CPUs of each replica of an entry with `cpus`: equal parts, neighbours by node, cache domain and core together.

    CPUs that the machine does not have come last; `check_layout` reports them.
    """
    numbers = parse_cpulist(group.cpus or "")
    if group.replicas == 1:
        return [sorted(numbers)]
    cpus = {cpu.cpu: cpu for cpu in machine.cpus if cpu.cpu in numbers}
    first_pu: dict[int, int] = {}
    for cpu in cpus.values():
        first_pu[core_id(cpu)] = min(first_pu.get(core_id(cpu), cpu.cpu), cpu.cpu)

    def nearness(number: int) -> tuple[int, ...]:
        cpu = cpus.get(number)
        if cpu is None:
            return (1 << 30, 0, 0, number)
        node, llc = (-1 if each is None else each for each in (cpu.node, cpu.llc))
        return (node, llc, first_pu[core_id(cpu)], number)

    ordered = sorted(numbers, key=nearness)
    size = len(ordered) // group.replicas
    return [sorted(ordered[start : start + size]) for start in range(0, size * group.replicas, size)]
