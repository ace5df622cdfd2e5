"""What is a machine made of? The data every other module plans with. Pure.

Field names are those of `topology --json`. Ids are the kernel's where it gives one and they are unique;
otherwise they are made unique over the whole machine (`core`, `l2`, `l3`, `llc`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

CoreKind = Literal["performance", "efficiency"]


@dataclass(frozen=True, slots=True)
class Cpu:
    """One PU (hardware thread). An offline CPU has `online=False` and None where the kernel does not say."""

    cpu: int
    online: bool
    package: int | None = None
    die: int | None = None
    cluster: int | None = None
    node: int | None = None
    core: int | None = None
    """Unique in the whole machine: equal for SMT siblings and for nothing else."""
    smt_rank: int | None = None
    """0 for the first sibling of a core in CPU order, 1 for the second, …"""
    l2: int | None = None
    l3: int | None = None
    llc: int | None = None
    """The last-level cache domain, whatever its level; the planner keeps an instance inside one where it fits."""
    kind: CoreKind | None = None
    capacity: int | None = None
    """Relative compute capacity as the kernel gives it (cpu_capacity, 1024 the largest), None if it does not."""
    isolated: bool = False
    allowed: bool = False
    """Whether this process may use it: online ∩ affinity ∩ cgroup cpuset."""
    why_not: str | None = None
    """The reason where `allowed` is False."""


@dataclass(frozen=True, slots=True)
class Node:
    """One NUMA node. `cpus` are its online CPUs; both memory-only and CPU-less nodes exist."""

    node: int
    cpus: tuple[int, ...]
    memory_bytes: int | None
    free_bytes: int | None
    distances: dict[int, int]
    """To each online node by its id, itself included."""
    has_memory: bool
    allowed: bool = True
    """Whether this process may allocate there (cgroup cpuset.mems, Mems_allowed_list)."""


@dataclass(frozen=True, slots=True)
class Package:
    package: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    cpus: tuple[Cpu, ...]
    """All present CPUs in ascending order of id; ids may have holes."""
    nodes: tuple[Node, ...]
    packages: tuple[Package, ...]
    smt: int
    """The largest number of siblings that any core has online."""
    quota_cpus: float | None
    """The CFS quota in CPUs, None where there is none."""
    model_name: str
    isa: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    arch: str = ""
    source: str = field(default="sysfs", compare=False)

    def cpu(self, number: int) -> Cpu:
        """The CPU with this number; KeyError if the machine has none."""
        for cpu in self.cpus:
            if cpu.cpu == number:
                return cpu
        raise KeyError(number)


class TopologyError(Exception):
    """A tree that cannot be read: says which file, what is wrong with it and what to do."""
