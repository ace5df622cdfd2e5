"""On what was a benchmark measured, and what else ran meanwhile? Read before and after; without it no figure means anything."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import psutil

from orchestrator.doctor import files
from orchestrator.doctor.host import Unread
from topology.cpuset import format_cpulist
from topology.model import Machine
from topology.tree import DiskTree
from workers.engines.installed import installed

_PACKAGES = ("orchestrator", "onnxruntime", "openvino", "numpy", "tokenizers", "aiohttp", "uvloop", "pyzmq")
HEAVY_CPUS = 0.1
"""From so much CPU on, mean over the measurement, another process is named."""
MOST_NAMED = 5
BUSY_SHARE = 0.25
"""Of the cores: a load average over it, before anything was measured, is told."""
STOLEN_SHARE = 0.02
"""From so much of the CPUs' time on that other guests of the host had, a warning says so."""


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the result belongs to. Texts are the kernel's own words; what it does not say is `unknown`."""

    when: str
    """UTC, ISO 8601, at the start."""
    seconds: float
    """From the first reading to the last."""
    cpu: str
    isa: list[str]
    cores: int
    """Physical, that this process may use."""
    smt: int
    """Threads per core."""
    numa: list[str]
    """Of each node: its CPUs and its memory."""
    quota_cpus: float | None
    kernel: str
    governor: str
    turbo: str
    transparent_huge_pages: str
    numa_balancing: str
    python: str
    versions: dict[str, str]
    commit: str | None
    """Of the program's own repository, `-dirty` if files were changed; None where it is none."""
    load_average_before: float | None
    load_average_after: float | None
    """Runnable processes, mean over a minute; the benchmark's own count too."""
    others_cpus: float | None
    """CPUs that others than the benchmark used meanwhile, mean; None where nobody can tell, as of a server that was there before."""
    others: list[str]
    """The heaviest of those that were there at the end."""
    warnings: list[str]


class Watch:
    """Begins when it is made."""

    def __init__(self, machine: Machine, *, alone: bool = True) -> None:
        """`alone` False: what is measured is not ours, and cannot be told from what disturbs it."""
        self._machine = machine
        self._alone = alone
        self._tree = DiskTree(Path("/"))
        self._when = datetime.now(UTC).isoformat(timespec="seconds")
        self._began = time.monotonic()
        self._load = _load_average()
        self._times = _cpu_times()
        self._stolen = files.stolen(self._tree)
        self._busy = self._others_seconds()

    def environment(self, warnings: Sequence[str] = ()) -> Environment:
        """What was read at the beginning and now, while all servers that were started still run."""
        machine, tree = self._machine, self._tree
        seconds = time.monotonic() - self._began
        busy = self._others_seconds()
        used = None if busy is None or self._busy is None else max(0.0, busy - self._busy) / max(seconds, 1e-3)
        others = _others(self._times, _cpu_times(), seconds) if self._alone else []
        said = [*machine.warnings, *warnings]
        if used is not None and used >= HEAVY_CPUS:
            named = f": {'; '.join(others)}" if others else ""
            said.append(f"other processes used {used:.1f} CPUs meanwhile{named}")
        cores = len({cpu.core for cpu in machine.cpus if cpu.allowed})
        if self._load is not None and self._load > BUSY_SHARE * cores:
            said.append(
                f"the load average was {self._load:g} on {cores} cores before it began: something else was running"
            )
        share = _stolen_share(self._stolen, files.stolen(tree))
        if share is not None and share >= STOLEN_SHARE:
            said.append(f"other guests of this host had {share:.0%} of the CPUs' time (steal of /proc/stat)")
        governors = files.frequencies(tree, (cpu.cpu for cpu in machine.cpus if cpu.allowed))
        return Environment(
            when=self._when,
            seconds=round(seconds, 1),
            cpu=machine.model_name or "unknown",
            isa=list(machine.isa),
            cores=cores,
            smt=machine.smt,
            numa=[_node(node.cpus, node.node, node.memory_bytes) for node in machine.nodes],
            quota_cpus=machine.quota_cpus,
            kernel=platform.release(),
            governor=(
                "unknown" if isinstance(governors, Unread)
                else "+".join(sorted({each.governor or "unknown" for each in governors}))
            ),
            turbo=_turbo(files.text(tree, "sys/devices/system/cpu/intel_pstate/no_turbo"),
                         files.text(tree, "sys/devices/system/cpu/cpufreq/boost")),
            transparent_huge_pages=_chosen(files.text(tree, "sys/kernel/mm/transparent_hugepage/enabled")),
            numa_balancing=_known(files.text(tree, "proc/sys/kernel/numa_balancing")),
            python=platform.python_version(),
            versions=installed(_PACKAGES),
            commit=commit(Path(__file__).parents[2]),
            load_average_before=self._load,
            load_average_after=_load_average(),
            others_cpus=None if used is None else round(used, 2),
            others=others,
            warnings=said,
        )  # fmt: skip

    def _others_seconds(self) -> float | None:
        """CPU time of everybody else on the CPUs that we may use, so far."""
        if not self._alone:
            return None
        content = files.text(self._tree, "proc/stat")
        if isinstance(content, Unread):
            return None
        allowed = {f"cpu{cpu.cpu}" for cpu in self._machine.cpus if cpu.allowed}
        busy = 0
        for line in content.splitlines():
            name, *ticks = line.split()
            if name in allowed:
                busy += sum(map(int, ticks[:3])) + sum(
                    map(int, ticks[5:7])
                )  # neither idle, nor waiting for a disk, nor stolen
        return busy / os.sysconf("SC_CLK_TCK") - _own_seconds()


def commit(root: Path) -> str | None:
    """Of the repository whose top folder this is; None where it is none, or git is not there."""
    if not (root / ".git").exists():
        return None
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def _cpu_times() -> dict[tuple[int, float], tuple[float, str, tuple[int, ...]]]:
    """By pid and start: CPU seconds so far, the name, and the pids of its ancestors."""
    found = {}
    parents: dict[int, int] = {}
    for process in psutil.process_iter(["pid", "ppid", "name", "cpu_times", "create_time"]):
        info = process.info
        parents[info["pid"]] = info["ppid"] or 0
        if info["cpu_times"] is not None:
            spent = info["cpu_times"].user + info["cpu_times"].system
            found[info["pid"], info["create_time"]] = (spent, info["name"] or "?")
    return {(pid, born): (spent, name, _ancestors(pid, parents)) for (pid, born), (spent, name) in found.items()}


def _ancestors(pid: int, parents: dict[int, int]) -> tuple[int, ...]:
    line: list[int] = [pid]
    while (parent := parents.get(line[-1], 0)) and parent not in line:
        line.append(parent)
    return tuple(line)


def _own_seconds() -> float:
    """Of this process and all that descend from it, those that have ended too."""
    total = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # it has ended since; whoever waits for it counts it
    return total


def _others(
    before: dict[tuple[int, float], tuple[float, str, tuple[int, ...]]],
    after: dict[tuple[int, float], tuple[float, str, tuple[int, ...]]],
    seconds: float,
) -> list[str]:
    """The heaviest first."""
    used = []
    for key, (spent, name, line) in after.items():
        cpus = (spent - before.get(key, (0.0,))[0]) / max(seconds, 1e-3)
        if cpus >= HEAVY_CPUS and os.getpid() not in line:
            used.append((cpus, f"{name} (pid {key[0]}) {cpus:.1f} CPUs"))
    return [said for _, said in sorted(used, reverse=True)[:MOST_NAMED]]


def _stolen_share(before: tuple[int, int] | Unread, after: tuple[int, int] | Unread) -> float | None:
    if isinstance(before, Unread) or isinstance(after, Unread) or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def _node(cpus: Sequence[int], node: int, memory_bytes: int | None) -> str:
    memory = "no memory" if memory_bytes is None else f"{memory_bytes / (1 << 30):.0f} GiB"
    return f"node {node}: CPUs {format_cpulist(cpus) or 'none'}, {memory}"


def _turbo(no_turbo: str | Unread, boost: str | Unread) -> str:
    if isinstance(no_turbo, str):
        return "off" if no_turbo == "1" else "on"
    return "unknown" if isinstance(boost, Unread) else "on" if boost == "1" else "off"


def _chosen(text: str | Unread) -> str:
    """`always [madvise] never` → madvise"""
    return "unknown" if isinstance(text, Unread) else text.partition("[")[2].partition("]")[0] or text


def _known(text: str | Unread) -> str:
    return "unknown" if isinstance(text, Unread) else {"0": "off", "1": "on"}.get(text, text)
