"""Where do a process's threads and memory really lie? The kernel's answer, never the plan's.

Source: proc(5): /proc/PID/task/TID/status (Cpus_allowed_list, Mems_allowed_list) and /proc/PID/numa_maps, whose second field is
the policy of a mapping, or of the task where the mapping has none of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.allocators import huge_bytes, mapped_allocator
from orchestrator.status import Verified
from topology.cpuset import parse_cpulist


class VanishedError(Exception):
    """The process ended while it was looked at."""


def verify(
    pid: int,
    cpus: list[int],
    membind: list[int],
    notes: list[str],
    proc: Path = Path("/proc"),
    *,
    allocator: str = "system",
    huge_pages: str = "system",
) -> Verified:
    """Reads back every thread of `pid` and compares with what was planned. VanishedError if it is gone."""
    root = proc / str(pid)
    try:
        threads = list(_threads(root))
        policy, nodes = _policy(root)
        mapped = _read(root / "maps")
        rollup = _read(root / "smaps_rollup") if huge_pages != "system" else None
    except (FileNotFoundError, ProcessLookupError) as error:
        raise VanishedError(str(error)) from None
    if not threads:
        raise VanishedError(f"{root}: no thread is left")
    found: list[str] = []
    allowed: set[int] = set()
    mems: set[int] = set()
    for tid, text in threads:
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        own = set(parse_cpulist(fields["Cpus_allowed_list"]))
        mems = set(parse_cpulist(fields.get("Mems_allowed_list", "")))
        allowed |= own
        stray = sorted(own - set(cpus))
        if stray:
            found.append(f"thread {tid} may run on CPU {stray}, outside the plan")
    memory = nodes if nodes is not None else mems
    if policy != "bind" and membind and not memory <= set(membind):
        found.append(f"memory may come from node {sorted(memory)}, planned was {membind}")
    if policy == "bind" and membind and memory != set(membind):
        found.append(f"memory is bound to node {sorted(memory)}, planned was {membind}")
    loaded = mapped_allocator(mapped) if mapped is not None else None
    if allocator != "system" and loaded is not None and loaded != allocator:
        found.append(f"{allocator} was to be preloaded and is not mapped; its first lines of log say why")
    return Verified(
        cpus=sorted(allowed),
        membind=sorted(memory),
        policy=policy,
        threads=len(threads),
        matches_plan=not found,
        notes=[*found, *notes],
        allocator=loaded,
        huge_page_bytes=huge_bytes(rollup) if rollup is not None else None,
    )


def _read(path: Path) -> str | None:
    """None where this process may not look (another user's, or hidepid)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except PermissionError:
        return None


def _threads(root: Path) -> Iterator[tuple[int, str]]:
    """Each thread and its status. Pools end threads while others of theirs are read; that says nothing of the process."""
    for task in (root / "task").iterdir():
        try:
            yield int(task.name), (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue


def _policy(root: Path) -> tuple[str, set[int] | None]:
    """(policy, its nodes or None where it names none). The first mapping is the executable: it has no policy of its own."""
    try:
        with (root / "numa_maps").open() as maps:
            words = maps.readline().split()
    except PermissionError:
        return "unknown", None
    except FileNotFoundError:
        if root.exists():
            return "default", None  # a kernel built without NUMA
        raise
    if len(words) < 2:
        return "unknown", None
    name, _, nodes = words[1].partition(":")
    name = name.split("=", 1)[0]
    if name.startswith("prefer"):
        return "preferred", set(parse_cpulist(nodes)) if nodes else None
    return name, set(parse_cpulist(nodes)) if nodes else None
