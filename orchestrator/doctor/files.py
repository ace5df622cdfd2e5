"""What do the files of a kernel say that a doctor asks after, live or below another root?

Nothing here raises for a file that is absent, forbidden or of nonsense: that is an `Unread` with the path and the reason.
Sources: proc(5), Documentation/admin-guide/cgroup-v2.rst (cpu.stat, memory.*), cgroup-v1/memory.rst, scheduler/sched-bwc.rst,
admin-guide/pm/cpufreq.rst and cpuidle.rst, virt/guest-halt-polling.rst, admin-guide/mm/transhuge.rst and hugetlbpage.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from orchestrator.doctor.host import Frequency, HugePool, Idle, Interrupt, MemoryLimit, Swap, Text, Throttling, Unread
from topology.cpuset import CpusetError, parse_cpulist
from topology.limits import hierarchies
from topology.model import TopologyError
from topology.tree import Tree

_NO_LIMIT = 1 << 60
"""cgroup v1 writes the largest multiple of a page for "none"."""
_NOTHING_LIMITS = "no cgroup of this process has such counters"


class ProcessTree:
    """Another tree in which `proc/self` is one given process: the cgroups and limits of somebody else."""

    def __init__(self, inner: Tree, pid: int) -> None:
        self._inner = inner
        self._own = f"proc/{pid}/"

    @property
    def origin(self) -> str:
        return self._inner.origin

    def read(self, path: str) -> str | None:
        return self._inner.read(self._there(path))

    def names(self, path: str) -> tuple[str, ...]:
        return self._inner.names(self._there(path))

    def _there(self, path: str) -> str:
        return self._own + path.removeprefix("proc/self/") if path.startswith("proc/self/") else path


def text(tree: Tree, path: str) -> Text:
    """The content of a file without the last newline."""
    try:
        content = tree.read(path)
    except TopologyError as error:
        return Unread(str(error).partition("; give this user")[0])
    return Unread(f"there is no /{path}") if content is None else content.strip()


def number(tree: Tree, path: str) -> int | None:
    """None where there is none."""
    content = text(tree, path)
    return int(content) if isinstance(content, str) and re.fullmatch(r"-?\d{1,18}", content) else None


def names(tree: Tree, path: str) -> tuple[str, ...]:
    try:
        return tree.names(path)
    except TopologyError:
        return ()


def frequencies(tree: Tree, cpus: Iterable[int]) -> tuple[Frequency, ...] | Unread:
    """Of each of these CPUs that has a frequency policy."""
    found = []
    for cpu in cpus:
        folder = f"sys/devices/system/cpu/cpu{cpu}/cpufreq/"
        governor, driver, preference = (
            content if isinstance(content := text(tree, folder + name), str) and content else None
            for name in ("scaling_governor", "scaling_driver", "energy_performance_preference")
        )
        lowest, highest, limit, base = (
            number(tree, folder + name)
            for name in ("scaling_min_freq", "cpuinfo_max_freq", "scaling_max_freq", "base_frequency")
        )
        if governor is not None or highest is not None:
            found.append(Frequency(cpu, driver, governor, preference, lowest, highest, limit, base))
    if found:
        return tuple(found)
    return Unread(
        "there is no /sys/devices/system/cpu/cpu*/cpufreq: in a virtual machine or container the host decides, and shows nothing"
    )


def idle(tree: Tree, cpu: int) -> Idle | Unread:
    """How this CPU sleeps; states that are switched off do not count."""
    driver = text(tree, "sys/devices/system/cpu/cpuidle/current_driver")
    if isinstance(driver, Unread):
        return driver
    folder = f"sys/devices/system/cpu/cpu{cpu}/cpuidle"
    states = [f"{folder}/{name}" for name in names(tree, folder) if re.fullmatch(r"state\d+", name)]
    latencies = [number(tree, f"{state}/latency") for state in states if number(tree, f"{state}/disable") != 1]
    if driver in ("", "none") or not states:
        return Unread(f"the driver of idle states is {driver or 'none'}, and CPU {cpu} has no such states")
    polls = number(tree, "sys/module/haltpoll/parameters/guest_halt_poll_ns") if driver == "haltpoll" else None
    return Idle(driver, max((latency for latency in latencies if latency is not None), default=0), polls)


def pools(tree: Tree) -> tuple[HugePool, ...] | Unread:
    folder = "sys/kernel/mm/hugepages"
    found = []
    for name in names(tree, folder):
        size = re.fullmatch(r"hugepages-(\d+)kB", name)
        total, free = (number(tree, f"{folder}/{name}/{which}_hugepages") for which in ("nr", "free"))
        if size is not None and total is not None and free is not None:
            found.append(HugePool(int(size[1]), total, free))
    return tuple(found) if found else Unread(f"there is no /{folder}")


def swaps(tree: Tree) -> tuple[Swap, ...] | Unread:
    content = text(tree, "proc/swaps")
    if isinstance(content, Unread):
        return content
    found = []
    for line in content.splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 4 and fields[2].isdigit() and fields[3].isdigit():
            found.append(Swap(fields[0], 1024 * int(fields[2]), 1024 * int(fields[3])))
    return tuple(found)


def memory_total(tree: Tree, key: str) -> int | Unread:
    """Bytes of a line of /proc/meminfo."""
    content = text(tree, "proc/meminfo")
    if isinstance(content, Unread):
        return content
    line = re.search(rf"^{key}:\s*(\d+) kB", content, re.MULTILINE)
    return 1024 * int(line[1]) if line else Unread(f"/proc/meminfo has no line {key}")


def stolen(tree: Tree) -> tuple[int, int] | Unread:
    """Ticks since boot: stolen by the hypervisor for other guests, and all of all CPUs."""
    content = text(tree, "proc/stat")
    if isinstance(content, Unread):
        return content
    first = content.partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu" or not all(word.isdigit() for word in first[1:9]):
        return Unread("/proc/stat does not begin with the ticks of all CPUs")
    ticks = [int(word) for word in first[1:9]]
    return ticks[7], sum(ticks)


def uptime(tree: Tree) -> float | Unread:
    content = text(tree, "proc/uptime")
    if isinstance(content, Unread):
        return content
    seconds = re.match(r"\d+\.?\d*", content)
    return float(seconds[0]) if seconds else Unread(f"/proc/uptime: not a time: {content[:40]!r}")


def interrupts(tree: Tree) -> tuple[Interrupt, ...] | Unread:
    """Those of devices; a CPU's own (timers, calls of other CPUs) have names for numbers and follow whoever runs there."""
    content = text(tree, "proc/interrupts")
    if isinstance(content, Unread):
        return content
    header, *lines = content.splitlines() or [""]
    cpus = [int(word[3:]) for word in header.split() if re.fullmatch(r"CPU\d+", word)]
    found = []
    for line in lines:
        label, colon, rest = line.partition(":")
        fields = rest.split()
        if not colon or not label.strip().isdigit() or len(fields) < len(cpus):
            continue
        if not all(field.isdigit() for field in fields[: len(cpus)]):
            continue
        irq = int(label)
        counts = {cpu: int(field) for cpu, field in zip(cpus, fields, strict=False) if field != "0"}
        allowed = text(tree, f"proc/irq/{irq}/smp_affinity_list")
        found.append(Interrupt(irq, " ".join(fields[len(cpus) :][-2:]), counts, _cpus(allowed)))
    return tuple(found)


def _cpus(content: Text) -> frozenset[int] | None:
    if isinstance(content, Unread):
        return None
    try:
        return parse_cpulist(content)
    except CpusetError:
        return None


def runs(tree: Tree, program: str) -> bool:
    """Whether a process of this name is there."""
    return any(text(tree, f"proc/{name}/comm") == program for name in names(tree, "proc") if name.isdigit())


def open_files(tree: Tree) -> tuple[int, int] | Unread:
    """RLIMIT_NOFILE, soft and hard."""
    content = text(tree, "proc/self/limits")
    if isinstance(content, Unread):
        return content
    line = re.search(r"^Max open files\s+(\d+|unlimited)\s+(\d+|unlimited)", content, re.MULTILINE)
    if line is None:
        return Unread("/proc/self/limits has no line of open files")
    soft, hard = (1 << 30 if word == "unlimited" else int(word) for word in line.groups())
    return soft, hard


def throttling(tree: Tree) -> Throttling | Unread:
    """Of the level, from the process's own cgroup up, that was throttled longest."""
    worst: Throttling | None = None
    try:
        levels = [directory for levels in hierarchies(tree, "cpu") for directory in levels]
    except TopologyError as error:
        return Unread(str(error))
    for directory in levels:
        content = text(tree, f"{directory}/cpu.stat"[1:])
        if isinstance(content, Unread):
            continue
        values = dict(re.findall(r"^(\w+) (\d+)$", content, re.MULTILINE))
        if "nr_periods" not in values:  # the root has no quota, hence no periods
            continue
        seconds = int(values.get("throttled_usec", 0)) / 1e6 or int(values.get("throttled_time", 0)) / 1e9
        found = Throttling(
            f"{directory}/cpu.stat", int(values["nr_periods"]), int(values.get("nr_throttled", 0)), seconds
        )
        if worst is None or found.throttled_seconds > worst.throttled_seconds:
            worst = found
    return worst or Unread(_NOTHING_LIMITS)


def memory_limit(tree: Tree) -> MemoryLimit | Unread:
    """The tightest of all levels; `bytes` None where the levels have files and none says a limit."""
    tightest: MemoryLimit | None = None
    try:
        levels = [directory for levels in hierarchies(tree, "memory") for directory in levels]
    except TopologyError as error:
        return Unread(str(error))
    for directory in levels:
        found = _v2_memory(tree, directory) or _v1_memory(tree, directory)
        if found is None:
            continue
        if tightest is None or (found.bytes is not None and (tightest.bytes is None or found.bytes < tightest.bytes)):
            tightest = found
    return tightest or Unread(_NOTHING_LIMITS)


def _v2_memory(tree: Tree, directory: str) -> MemoryLimit | None:
    limit = text(tree, f"{directory}/memory.max"[1:])
    if isinstance(limit, Unread):
        return None
    return _memory(tree, directory, "memory.max", limit, "memory.current", "inactive_file", "memory.events")


def _v1_memory(tree: Tree, directory: str) -> MemoryLimit | None:
    limit = text(tree, f"{directory}/memory.limit_in_bytes"[1:])
    if isinstance(limit, Unread):
        return None
    return _memory(
        tree, directory, "memory.limit_in_bytes", limit, "memory.usage_in_bytes", "total_inactive_file", "memory.oom_control"
    )  # fmt: skip


def _memory(
    tree: Tree, directory: str, name: str, limit: str, usage: str, cached: str, events: str
) -> MemoryLimit | None:
    if limit != "max" and not limit.isdigit():
        return None
    used = number(tree, f"{directory}/{usage}"[1:])
    given_back = _value(tree, f"{directory}/memory.stat"[1:], cached)
    return MemoryLimit(
        where=f"{directory}/{name}",
        bytes=None if limit == "max" or int(limit) >= _NO_LIMIT else int(limit),
        used_bytes=None if used is None else max(used - (given_back or 0), 0),
        kills=_value(tree, f"{directory}/{events}"[1:], "oom_kill") or 0,
    )


def _value(tree: Tree, path: str, key: str) -> int | None:
    content = text(tree, path)
    found = re.search(rf"^{key} (\d+)$", content, re.MULTILINE) if isinstance(content, str) else None
    return int(found[1]) if found else None


def cpus_of_threads(tree: Tree) -> frozenset[int] | None:
    """The CPUs that any thread of `proc/self` may run on; None where that cannot be read."""
    found: set[int] = set()
    for thread in names(tree, "proc/self/task"):
        content = text(tree, f"proc/self/task/{thread}/status")
        line = re.search(r"^Cpus_allowed_list:\s*(\S+)", content, re.MULTILINE) if isinstance(content, str) else None
        found |= (_cpus(line[1]) or frozenset()) if line else frozenset()
    return frozenset(found) or None


def swapped_bytes(tree: Tree) -> int:
    """VmSwap of `proc/self`; 0 where it has none."""
    content = text(tree, "proc/self/status")
    found = re.search(r"^VmSwap:\s*(\d+) kB", content, re.MULTILINE) if isinstance(content, str) else None
    return 1024 * int(found[1]) if found else 0


def anonymous_by_node(tree: Tree) -> dict[int, int] | None:
    """Bytes of the anonymous memory of `proc/self` by node, from numa_maps: pages of files may lie anywhere, they are shared."""
    content = text(tree, "proc/self/numa_maps")
    if isinstance(content, Unread):
        return None
    found: dict[int, int] = {}
    for line in content.splitlines():
        if " anon=" not in line:
            continue
        size = re.search(r"kernelpagesize_kB=(\d+)", line)
        for node, pages in re.findall(r" N(\d+)=(\d+)", line):
            found[int(node)] = found.get(int(node), 0) + int(pages) * 1024 * (int(size[1]) if size else 4)
    return found


def preload_of(tree: Tree) -> str:
    """LD_PRELOAD in the environment that `proc/self` started with; empty where it cannot be read."""
    content = text(tree, "proc/self/environ")
    if isinstance(content, Unread):
        return ""
    pairs = (item.partition("=") for item in content.split("\0"))
    return next((value for key, _, value in pairs if key == "LD_PRELOAD"), "")
