"""What trees of machines do the topology tests read? Written here from a description, not captured anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from topology.build import build
from topology.cpuset import format_cpulist, format_mask
from topology.model import Machine
from topology.sysfs import read_facts
from topology.tree import MemoryTree

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"


@dataclass
class Thread:
    """One CPU as the firmware would place it. The sets of the tree follow from who has the same key."""

    core: tuple[int, ...]
    package: int = 0
    node: int | None = 0
    l2: int | None = None
    l3: int | None = None
    online: bool = True


@dataclass
class TreeBuilder:
    """The files of a machine in the kernel's own form; a test changes or deletes what it is about, then reads."""

    threads: dict[int, Thread] = field(default_factory=dict)
    forms: tuple[str, ...] = ("list", "mask")
    names: tuple[str, ...] = ("new", "old")
    distances: dict[int, list[int]] = field(default_factory=dict)
    memory_kb: dict[int, int] = field(default_factory=dict)
    _groups: dict[object, dict[object, frozenset[int]]] = field(default_factory=dict)
    _texts: dict[frozenset[int], tuple[str, str]] = field(default_factory=dict)

    def files(self) -> dict[str, str]:
        self._groups.clear()
        online = {cpu for cpu, thread in self.threads.items() if thread.online}
        files = {
            f"{CPU}/online": format_cpulist(online) + "\n",
            f"{CPU}/present": format_cpulist(self.threads) + "\n",
            f"{CPU}/isolated": "\n",
            "proc/cpuinfo": "".join(
                f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: A CPU\nflags\t\t: fpu lm avx2 avx512f\n\n"
                for cpu in sorted(online)
            ),
        }
        for cpu, thread in self.threads.items():
            files[f"{CPU}/cpu{cpu}/online"] = "1\n" if thread.online else "0\n"
            if thread.online:
                self._topology(files, cpu, thread, online)
                self._caches(files, cpu, thread, online)
        self._nodes(files, online)
        return files

    def _topology(self, files: dict[str, str], cpu: int, thread: Thread, online: set[int]) -> None:
        directory = f"{CPU}/cpu{cpu}/topology"
        core = self._alike(online, lambda other: (other.package, other.core), thread)
        package = self._alike(online, lambda other: other.package, thread)
        files[f"{directory}/physical_package_id"] = f"{thread.package}\n"
        files[f"{directory}/core_id"] = f"{thread.core[-1]}\n"
        for era, core_name, package_name in (
            ("new", "core_cpus", "package_cpus"),
            ("old", "thread_siblings", "core_siblings"),
        ):
            if era in self.names:
                self._pair(files, f"{directory}/{core_name}", core)
                self._pair(files, f"{directory}/{package_name}", package)

    def _caches(self, files: dict[str, str], cpu: int, thread: Thread, online: set[int]) -> None:
        core = self._alike(online, lambda other: (other.package, other.core), thread)
        caches = [(1, "Data", core), (1, "Instruction", core)]
        if thread.l2 is not None:
            caches.append((2, "Unified", self._alike(online, lambda other: other.l2, thread)))
        if thread.l3 is not None:
            caches.append((3, "Unified", self._alike(online, lambda other: other.l3, thread)))
        for index, (level, kind, cpus) in enumerate(caches):
            directory = f"{CPU}/cpu{cpu}/cache/index{index}"
            files[f"{directory}/level"] = f"{level}\n"
            files[f"{directory}/type"] = f"{kind}\n"
            self._pair(files, f"{directory}/shared_cpu", cpus, mask="_map", listed="_list")

    def _nodes(self, files: dict[str, str], online: set[int]) -> None:
        nodes = {thread.node for thread in self.threads.values() if thread.node is not None} | set(self.memory_kb)
        if not nodes:
            return
        files[f"{NODE}/online"] = format_cpulist(nodes) + "\n"
        for node in nodes:
            cpus = {cpu for cpu in online if self.threads[cpu].node == node}
            if "list" in self.forms:
                files[f"{NODE}/node{node}/cpulist"] = format_cpulist(cpus) + "\n"
            if "mask" in self.forms:
                files[f"{NODE}/node{node}/cpumap"] = format_mask(cpus) + "\n"
            kilobytes = self.memory_kb.get(node, 1024)
            files[f"{NODE}/node{node}/meminfo"] = (
                f"Node {node} MemTotal:       {kilobytes} kB\nNode {node} MemFree:        {kilobytes // 2} kB\n"
                f"Node {node} MemUsed:        {kilobytes // 2} kB\n"
            )
            if node in self.distances:
                files[f"{NODE}/node{node}/distance"] = " ".join(map(str, self.distances[node])) + "\n"

    def _alike(self, online: set[int], key: Callable[[Thread], object], thread: Thread) -> frozenset[int]:
        groups = self._groups.get(key.__code__)
        if groups is None:
            members: dict[object, set[int]] = {}
            for cpu in online:
                members.setdefault(key(self.threads[cpu]), set()).add(cpu)
            groups = self._groups[key.__code__] = {value: frozenset(cpus) for value, cpus in members.items()}
        return groups[key(thread)]

    def _pair(
        self, files: dict[str, str], path: str, cpus: frozenset[int], *, mask: str = "", listed: str = "_list"
    ) -> None:
        if cpus not in self._texts:
            self._texts[cpus] = (format_cpulist(cpus) + "\n", format_mask(cpus) + "\n")
        if "list" in self.forms:
            files[f"{path}{listed}"] = self._texts[cpus][0]
        if "mask" in self.forms:
            files[f"{path}{mask}"] = self._texts[cpus][1]


def _two_sockets(cores: int = 4, threads: int = 2, **options: object) -> TreeBuilder:
    """Two packages of one node each, first threads of all cores numbered before the second: 0-3,8-11 and 4-7,12-15."""
    builder = TreeBuilder(
        distances={0: [10, 21], 1: [21, 10]},
        memory_kb={0: 65536, 1: 131072},
        **options,  # type: ignore[arg-type]
    )
    for thread in range(threads):
        for package in range(2):
            for core in range(cores):
                builder.threads[(thread * 2 + package) * cores + core] = Thread(
                    core=(core,), package=package, node=package, l2=package * cores + core, l3=package
                )
    return builder


@pytest.fixture
def two_sockets() -> Callable[..., TreeBuilder]:
    return _two_sockets


@pytest.fixture
def empty_tree() -> Callable[..., TreeBuilder]:
    return TreeBuilder


@pytest.fixture
def thread() -> type[Thread]:
    return Thread


@pytest.fixture
def read() -> Callable[[dict[str, str]], Machine]:
    """Files → machine, without a disk."""
    return lambda files: build(read_facts(MemoryTree(files, "tree/")))


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Files → the directory that holds them."""

    def write(files: dict[str, str]) -> Path:
        root = tmp_path / "tree"
        for path, text in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return root

    return write
