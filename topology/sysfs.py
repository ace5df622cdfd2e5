"""What machine do the files of the kernel describe, live or below another root?

`read_machine` is the entry point. It reads /sys/devices/system/{cpu,node}, /proc/cpuinfo, /proc/meminfo and the limits of the process;
`build` draws the conclusions. Either half of a pair of files (list and mask, old and new name) may be missing.
Sources: Documentation/ABI/stable/sysfs-devices-system-cpu, sysfs-devices-node; Documentation/admin-guide/cputopology.rst.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from topology.build import build
from topology.cpuinfo import CpuInfo, parse_cpuinfo
from topology.cpuset import format_cpulist, parse_cpulist, parse_mask
from topology.facts import CacheFacts, CpuFacts, Facts, NodeFacts
from topology.limits import parsed, process_affinity, read_limits
from topology.model import Machine, TopologyError
from topology.tree import GZIP, DiskTree, Tree, open_archive, read_file

_CPU = "sys/devices/system/cpu"
_NODE = "sys/devices/system/node"
_CPU_NAME = re.compile(r"cpu(\d+)\Z")
_NODE_NAME = re.compile(r"node(\d+)\Z")
_INDEX_NAME = re.compile(r"index\d+\Z")
_PAGE = 4096

# (list, mask) by preference: the names since Linux 5.3, then those before it.
_CORE_FILES = (("core_cpus_list", "core_cpus"), ("thread_siblings_list", "thread_siblings"))
_PACKAGE_FILES = (("package_cpus_list", "package_cpus"), ("core_siblings_list", "core_siblings"))
_DIE_FILES = (("die_cpus_list", "die_cpus"),)
_CLUSTER_FILES = (("cluster_cpus_list", "cluster_cpus"),)


def read_machine(sysroot: Path = Path("/")) -> Machine:
    """The machine below `sysroot`: `/` is the live one; a directory or a `--capture` archive is read alone, limits included;
    a file of pasted `lscpu` output is the second source.

    TopologyError says which file is wrong and what to do. Contradictions that can be survived are in `warnings`.
    """
    if sysroot.is_dir():
        live = sysroot.resolve() == Path("/")
        return build(read_facts(DiskTree(sysroot), affinity=process_affinity() if live else None))
    content = read_file(sysroot)
    if content.startswith(GZIP):
        return build(read_facts(open_archive(sysroot, content)))
    from topology.lscpu import parse_lscpu  # only this path needs it

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TopologyError(
            f"{sysroot}: neither a directory, nor a capture, nor text of lscpu; name the root directory of a tree"
        ) from error
    return build(parse_lscpu(text, str(sysroot)))


def read_facts(tree: Tree, *, affinity: frozenset[int] | None = None) -> Facts:
    """What the files say. `affinity` as in `topology.limits.read_limits`."""
    return _Reader(tree).facts(affinity)


class _Reader:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._warnings: list[str] = []
        self._lists: dict[str, frozenset[int]] = {}  # siblings share their text: each is parsed once
        self._masks: dict[str, frozenset[int]] = {}

    def facts(self, affinity: frozenset[int] | None) -> Facts:
        cpuinfo = parse_cpuinfo(self._tree.read("proc/cpuinfo") or "")
        directories = _numbered(self._tree.names(_CPU), _CPU_NAME)
        listed = frozenset(line.cpu for line in cpuinfo.processors)
        online = self._list(f"{_CPU}/online")
        present = self._list(f"{_CPU}/present")
        if online is not None and not online:
            raise TopologyError(
                f"{self._tree.origin}{_CPU}/online: empty, and a machine has a CPU online; the tree is cut off, capture it again"
            )
        if not directories and online is None and not listed:
            raise TopologyError(
                f"{self._tree.origin}{_CPU}: no CPU directories there and no processors in proc/cpuinfo; "
                "name a directory that holds sys/ and proc/ (`orchestrator topology --capture` makes one)"
            )
        if online is None:
            online = self._online_one_by_one(directories, listed) if directories else listed
        if not present:
            if present is not None:
                self._warnings.append(f"{_CPU}/present is empty; the CPU directories are taken for it")
            present = directories | online
        self._compare_online(online, present & directories)
        if directories and not online <= directories:
            raise TopologyError(
                f"{self._tree.origin}{_CPU}/online names CPUs {format_cpulist(online - directories)}, and there is no directory "
                f"cpu{min(online - directories)}; the tree is cut off, capture it again"
            )
        cpus = {cpu: self._cpu(cpu) for cpu in sorted(online & directories)}
        cpus.update({cpu: CpuFacts(node=self._node_link(cpu)) for cpu in sorted((present - online) & directories)})
        cpus = _with_cpuinfo(cpus, cpuinfo, online)
        nodes = self._nodes()
        return Facts(
            origin=self._tree.origin.rstrip("/") or "/",
            present=present,
            online=online,
            cpus=self._with_node_links(cpus, nodes, online),
            nodes=nodes,
            memory_nodes=self._memory_nodes(),
            isolated=self._list(f"{_CPU}/isolated", optional=True) or frozenset(),
            performance=self._list("sys/devices/cpu_core/cpus") or frozenset(),
            efficiency=(self._list("sys/devices/cpu_atom/cpus") or frozenset())
            | (self._list("sys/devices/cpu_lowpower/cpus") or frozenset()),
            little=frozenset(line.cpu for line in cpuinfo.processors if line.little),
            model_name=cpuinfo.model_name,
            isa=cpuinfo.isa,
            arch=cpuinfo.arch,
            limits=read_limits(self._tree, affinity=affinity),
            warnings=tuple(self._warnings),
            source="sysfs" if directories else "cpuinfo",
        )

    def _compare_online(self, online: frozenset[int], directories: frozenset[int]) -> None:
        """A list cut off, or one that a container's host narrowed (lxcfs), against the CPUs' own files."""
        denied = [cpu for cpu in sorted(directories - online) if self._integer(f"{_CPU}/cpu{cpu}/online") == 1]
        if denied:
            self._warnings.append(
                f"CPUs {format_cpulist(denied)} are not in {_CPU}/online, though their own files say online; counted as offline"
            )

    def _online_one_by_one(self, directories: frozenset[int], listed: frozenset[int]) -> frozenset[int]:
        """Kernels before 2.6.29 have no list. A CPU that cannot be switched off (cpu0 on x86) has no `online` file."""
        flags = {cpu: self._integer(f"{_CPU}/cpu{cpu}/online") for cpu in directories}
        described = frozenset(cpu for cpu in directories if self._tree.names(f"{_CPU}/cpu{cpu}/topology"))
        # Without a flag: offline only if neither sysfs nor cpuinfo knows it while they know others.
        unknown = directories - described - listed if described or listed else frozenset()
        return frozenset(cpu for cpu, flag in flags.items() if flag == 1 or (flag is None and cpu not in unknown))

    def _cpu(self, cpu: int) -> CpuFacts:
        directory = f"{_CPU}/cpu{cpu}"
        topology = f"{directory}/topology/"
        names = frozenset(self._tree.names(f"{directory}/topology"))

        def number(name: str) -> int | None:
            return self._integer(topology + name) if name in names else None

        core_cpus = self._set(topology, names, _CORE_FILES)
        return CpuFacts(
            core_cpus=core_cpus,
            package_cpus=self._set(topology, names, _PACKAGE_FILES),
            die_cpus=self._set(topology, names, _DIE_FILES),
            cluster_cpus=self._set(topology, names, _CLUSTER_FILES),
            core_id=None if core_cpus else number("core_id"),
            package_id=number("physical_package_id"),
            book_id=number("book_id"),
            drawer_id=number("drawer_id"),
            die_id=number("die_id"),
            cluster_id=number("cluster_id"),
            caches=self._caches(f"{directory}/cache"),
            capacity=self._integer(f"{directory}/cpu_capacity"),
        )

    def _set(self, directory: str, names: frozenset[str], pairs: tuple[tuple[str, str], ...]) -> frozenset[int] | None:
        for list_name, mask_name in pairs:
            cpus = self._pair(
                directory + list_name if list_name in names else None,
                directory + mask_name if mask_name in names else None,
            )
            if cpus:  # a CPU shares at least with itself: an empty set says nothing
                return cpus
        return None

    def _pair(self, list_path: str | None, mask_path: str | None) -> frozenset[int] | None:
        """The set in either of two files. None if both are absent or blank, unless the list is blank and the mask absent."""
        text = self._tree.read(list_path) if list_path else None
        # Before 5.16 the kernel cut attributes off at a page: a long list that does not end in a newline is not whole.
        whole = text is not None and (len(text) < _PAGE - 1 or text.endswith("\n"))
        if list_path and text is not None and text.strip() and whole:
            return self._parsed(list_path, text, self._lists, parse_cpulist)
        mask = self._tree.read(mask_path) if mask_path else None
        if mask_path and mask is not None and mask.strip():
            return self._parsed(mask_path, mask, self._masks, parse_mask)
        return None if list_path is None or text is None else self._parsed(list_path, text, self._lists, parse_cpulist)

    def _caches(self, directory: str) -> tuple[CacheFacts, ...]:
        caches = []
        for name in self._tree.names(directory):
            if not _INDEX_NAME.match(name):
                continue
            index = f"{directory}/{name}/"
            level = self._integer(index + "level")
            if level is None or level < 2:  # an L1 cache tells nothing that the core does not
                continue
            if (self._tree.read(index + "type") or "").strip() == "Instruction":
                continue
            cpus = self._pair(index + "shared_cpu_list", index + "shared_cpu_map")
            if cpus:
                caches.append(CacheFacts(level, cpus))
        return tuple(caches)

    def _nodes(self) -> dict[int, NodeFacts] | None:
        directories = _numbered(self._tree.names(_NODE), _NODE_NAME)
        online = self._list(f"{_NODE}/online")
        if not directories:
            if online:
                self._warnings.append(f"{_NODE}/online names nodes and none has a directory; the nodes are left out")
            return None
        numbers = directories if online is None else online & directories
        if online is not None and online - directories:
            self._warnings.append(
                f"{_NODE}/online names nodes {sorted(online - directories)} that have no directory; they are left out"
            )
        if directories - numbers:
            self._warnings.append(
                f"nodes {sorted(directories - numbers)} have directories and are not in {_NODE}/online; they are left out"
            )
        nodes = {node: self._node(node) for node in sorted(numbers)}
        self._miss(nodes, "meminfo", [node for node, facts in nodes.items() if facts.memory_bytes is None])
        self._miss(nodes, "distance", [node for node, facts in nodes.items() if facts.distances is None])
        if len(nodes) == 1:
            ((node, facts),) = nodes.items()
            if facts.memory_bytes is None:  # all memory of the machine is on its one node
                total, free = self._meminfo("proc/meminfo", r"")
                nodes[node] = replace(facts, memory_bytes=total, free_bytes=free)
        return nodes

    def _miss(self, nodes: dict[int, NodeFacts], name: str, missing: list[int]) -> None:
        if missing and len(missing) < len(nodes):
            self._warnings.append(f"nodes {format_cpulist(missing)} have no {name} and the others do; read as unknown")

    def _node(self, node: int) -> NodeFacts:
        directory = f"{_NODE}/node{node}"
        # An empty list is an answer here: memory without CPUs.
        cpus = self._pair(f"{directory}/cpulist", f"{directory}/cpumap")
        if cpus is None:
            cpus = _numbered(self._tree.names(directory), _CPU_NAME) or None
        total, free = self._meminfo(f"{directory}/meminfo", rf"Node\s+{node}\s+")
        return NodeFacts(cpus=cpus, memory_bytes=total, free_bytes=free, distances=self._distances(directory))

    def _meminfo(self, path: str, prefix: str) -> tuple[int | None, int | None]:
        text = self._tree.read(path)
        if text is None:
            return None, None
        values = []
        for key in ("MemTotal", "MemFree"):
            match = re.search(rf"^{prefix}{key}:\s*(\d+)\s*kB", text, re.MULTILINE)
            values.append(int(match[1]) * 1024 if match else None)
        if text.strip() and values[0] is None:
            raise TopologyError(
                f"{self._tree.origin}{path}: no line `MemTotal: … kB` in {text.strip()[:60]!r}; "
                "the file is cut off or not a meminfo; capture the tree again"
            )
        return values[0], values[1]

    def _distances(self, directory: str) -> tuple[int, ...] | None:
        text = self._tree.read(f"{directory}/distance")
        if text is None or not text.strip():
            return None
        try:
            return tuple(int(word) for word in text.split())
        except ValueError as error:
            raise TopologyError(
                f"{self._tree.origin}{directory}/distance: not a row of distances: {text.strip()!r}; capture the tree again"
            ) from error

    def _memory_nodes(self) -> frozenset[int] | None:
        for name in ("has_memory", "has_normal_memory"):
            nodes = self._list(f"{_NODE}/{name}", optional=True)
            if nodes:
                return nodes
        return None

    def _with_node_links(
        self, cpus: dict[int, CpuFacts], nodes: dict[int, NodeFacts] | None, online: frozenset[int]
    ) -> dict[int, CpuFacts]:
        """The link cpuN/nodeM for those CPUs that no node lists, or that several do."""
        if not nodes:
            return cpus
        lists = [facts.cpus & online for facts in nodes.values() if facts.cpus is not None]
        once = frozenset().union(*lists)
        if sum(map(len, lists)) > len(once):
            once = frozenset()
        return {
            cpu: replace(facts, node=self._node_link(cpu)) if cpu in online and cpu not in once else facts
            for cpu, facts in cpus.items()
        }

    def _node_link(self, cpu: int) -> int | None:
        links = _numbered(self._tree.names(f"{_CPU}/cpu{cpu}"), _NODE_NAME)
        return min(links) if links else None

    def _list(self, path: str, *, optional: bool = False) -> frozenset[int] | None:
        text = self._tree.read(path)
        if text is None or (
            optional and text.strip() == "(null)"
        ):  # printed by kernels before 4.17 for an empty `isolated`
            return None
        return self._parsed(path, text, self._lists, parse_cpulist)

    def _parsed(
        self, path: str, text: str, known: dict[str, frozenset[int]], parse: Callable[[str], frozenset[int]]
    ) -> frozenset[int]:
        numbers = known.get(text)
        if numbers is None:
            numbers = known[text] = parsed(self._tree, path, text, parse)
        return numbers

    def _integer(self, path: str) -> int | None:
        text = self._tree.read(path)
        if text is None:
            return None
        if not text.strip():
            self._warnings.append(f"{path} is empty; read as unknown")
            return None
        try:
            return int(text)
        except ValueError as error:
            raise TopologyError(
                f"{self._tree.origin}{path}: not a number: {text.strip()[:60]!r}; the file is cut off or damaged; "
                "capture the tree again"
            ) from error


def _numbered(names: tuple[str, ...], pattern: re.Pattern[str]) -> frozenset[int]:
    return frozenset(int(match[1]) for name in names if (match := pattern.match(name)))


def _with_cpuinfo(cpus: dict[int, CpuFacts], cpuinfo: CpuInfo, online: frozenset[int]) -> dict[int, CpuFacts]:
    """The ids of cpuinfo for CPUs of which sysfs says nothing at all."""
    lines = {line.cpu: line for line in cpuinfo.processors}
    filled = dict(cpus)
    for cpu in sorted(online):
        facts = filled.get(cpu, CpuFacts())
        if cpu in lines and facts.core_cpus is None and facts.core_id is None and facts.package_id is None:
            filled[cpu] = replace(facts, package_id=lines[cpu].package_id, core_id=lines[cpu].core_id)
    return filled
