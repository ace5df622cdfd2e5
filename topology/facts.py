"""What did a source say, before it is judged? The common form of sysfs, lscpu and cpuinfo. Pure.

Everything may be None: absent is an answer. Sets are as the source gives them, offline CPUs included.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CacheFacts:
    level: int
    cpus: frozenset[int]
    """The CPUs that share it. Data and unified caches only."""


@dataclass(frozen=True, slots=True)
class CpuFacts:
    core_cpus: frozenset[int] | None = None
    """The siblings of its core, itself included."""
    package_cpus: frozenset[int] | None = None
    die_cpus: frozenset[int] | None = None
    cluster_cpus: frozenset[int] | None = None
    core_id: int | None = None
    package_id: int | None = None
    """Below 0: the kernel does not know (its default is -1)."""
    book_id: int | None = None
    drawer_id: int | None = None
    die_id: int | None = None
    cluster_id: int | None = None
    caches: tuple[CacheFacts, ...] = ()
    capacity: int | None = None
    node: int | None = None
    """Only where the node itself has no list of CPUs, or for an offline CPU."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    cpus: frozenset[int] | None = None
    memory_bytes: int | None = None
    free_bytes: int | None = None
    distances: tuple[int, ...] | None = None
    """To the online nodes in ascending order."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What this process may use. None: nobody limits it, or the source does not say."""

    affinity: frozenset[int] | None = None
    cpuset: frozenset[int] | None = None
    cpuset_where: str = ""
    mems_allowed: frozenset[int] | None = None
    cgroup_mems: frozenset[int] | None = None
    quota_cpus: float | None = None
    quota_where: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    origin: str
    present: frozenset[int]
    online: frozenset[int]
    cpus: dict[int, CpuFacts]
    nodes: dict[int, NodeFacts] | None
    """The online nodes; None where the kernel names none."""
    memory_nodes: frozenset[int] | None = None
    """What the kernel lists under node/has_memory."""
    isolated: frozenset[int] = frozenset()
    performance: frozenset[int] = frozenset()
    """By the performance-monitoring units of hybrid x86."""
    efficiency: frozenset[int] = frozenset()
    little: frozenset[int] = frozenset()
    """By the parts of Arm cores: the efficiency ones, where the machine has others too."""
    model_name: str = ""
    isa: tuple[str, ...] = ()
    arch: str = ""
    limits: Limits = field(default_factory=Limits)
    warnings: tuple[str, ...] = ()
    source: str = "sysfs"
