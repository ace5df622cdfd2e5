"""What may this process use: affinity, cgroup cpuset and CFS quota, and who says so?

Sources: Documentation/admin-guide/cgroup-v2.rst (cpu.max, cpuset.*), cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst, proc(5).
Every level of nesting limits: a quota is the tightest from the process's own cgroup up to the root; a cpuset is the effective one of
the nearest level that has it (a parent's can be smaller: it excludes what it lent to a partition).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from topology.cpuset import CpusetError, parse_cpulist, parse_mask
from topology.facts import Limits
from topology.model import TopologyError
from topology.tree import Tree

STATUS_KEYS = ("Cpus_allowed", "Cpus_allowed_list", "Mems_allowed", "Mems_allowed_list")
_LIMITING = frozenset({"cpu", "cpuset", "memory"})


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted cgroup hierarchy. `controllers` is empty for cgroup v2."""

    point: str
    root: str
    """Which cgroup of the hierarchy is seen at the mount point."""
    controllers: frozenset[str]


def read_limits(tree: Tree, *, affinity: frozenset[int] | None = None) -> Limits:
    """The limits of the process that reads (live) or that captured the tree.

    `affinity` is sched_getaffinity(0) on the live machine; None reads proc/self/status. TopologyError names a file of nonsense.
    """
    status = _status(tree)
    if affinity is None:
        affinity = _either(tree, "proc/self/status", status, "Cpus_allowed")
    mems_allowed = _either(tree, "proc/self/status", status, "Mems_allowed")
    cpuset, cpuset_where = _cpuset(tree, "cpus")
    mems, _ = _cpuset(tree, "mems")
    quota, quota_where = _quota(tree)
    return Limits(
        affinity=affinity or None,
        cpuset=cpuset,
        cpuset_where=cpuset_where,
        mems_allowed=mems_allowed or None,
        cgroup_mems=mems,
        quota_cpus=quota,
        quota_where=quota_where,
    )


def _status(tree: Tree) -> dict[str, str]:
    lines = (tree.read("proc/self/status") or "").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines) if key in STATUS_KEYS}


def _either(tree: Tree, path: str, values: dict[str, str], key: str) -> frozenset[int] | None:
    if f"{key}_list" in values:
        return parsed(tree, path, values[f"{key}_list"], parse_cpulist)
    if key in values:
        return parsed(tree, path, values[key], parse_mask)
    return None


def parsed(tree: Tree, path: str, text: str, parse: Callable[[str], frozenset[int]]) -> frozenset[int]:
    """The numbers in the text of a file; TopologyError names the file, its content and the position."""
    try:
        return parse(text)
    except CpusetError as error:
        raise TopologyError(f"{tree.origin}{path}: {error}; mend the file or capture the tree again") from error


def _cpuset(tree: Tree, resource: str) -> tuple[frozenset[int] | None, str]:
    names = (
        f"cpuset.{resource}.effective",  # v2
        f"cpuset.effective_{resource}",  # v1 since 3.17
        f"cpuset.{resource}",
        resource,  # v1 mounted as `cpuset` or with noprefix
    )
    for levels in hierarchies(tree, "cpuset"):
        for directory in levels:
            for name in names:
                text = tree.read(f"{directory}/{name}"[1:])
                if text is not None and text.strip():
                    return parsed(tree, f"{directory}/{name}"[1:], text, parse_cpulist), f"{directory}/{name}"
    return None, ""


def _quota(tree: Tree) -> tuple[float | None, str]:
    tightest: tuple[float, str] | None = None
    for levels in hierarchies(tree, "cpu"):
        for directory in levels:
            limit = _v2_quota(tree, directory) or _v1_quota(tree, directory)
            if limit is not None and (tightest is None or limit < tightest):
                tightest = limit
    return tightest or (None, "")


def _v2_quota(tree: Tree, directory: str) -> tuple[float, str] | None:
    path = f"{directory}/cpu.max"
    text = tree.read(path[1:])
    if text is None:
        return None
    match = re.fullmatch(r"\s*(max|\d+)(?:\s+(\d+))?\s*", text)
    if match is None or match[2] == "0" or match[1] == "0":
        raise TopologyError(
            f"{tree.origin}{path[1:]}: not a quota: {text.strip()!r}; cpu.max holds `max` or microseconds, then a period"
        )
    return None if match[1] == "max" else (int(match[1]) / int(match[2] or 100_000), path)


def _v1_quota(tree: Tree, directory: str) -> tuple[float, str] | None:
    path = f"{directory}/cpu.cfs_quota_us"
    quota = tree.read(path[1:])
    if quota is None:
        return None
    period = tree.read(f"{directory}/cpu.cfs_period_us"[1:]) or "100000"
    try:
        quota_us, period_us = int(quota), int(period)
    except ValueError as error:
        raise TopologyError(
            f"{tree.origin}{path[1:]}: not a quota: {quota.strip()!r} of a period {period.strip()!r}; both are microseconds"
        ) from error
    if quota_us == -1:
        return None
    if quota_us <= 0 or period_us <= 0:
        raise TopologyError(
            f"{tree.origin}{path[1:]}: a quota of {quota_us} in a period of {period_us} microseconds cannot be; "
            "-1 means no limit"
        )
    return quota_us / period_us, path


def hierarchies(tree: Tree, controller: str) -> Iterator[tuple[str, ...]]:
    """For each hierarchy that can hold the controller: the directories from the process's own cgroup up to the root's."""
    paths = _own_cgroups(tree)
    for mount in _mounts(tree):
        if mount.controllers and controller not in mount.controllers:
            continue
        path = paths.get(controller if mount.controllers else "", "/")
        yield _levels(mount, path)


def _levels(mount: Mount, path: str) -> tuple[str, ...]:
    # A process outside its cgroup namespace's root has a path of `/..`; a container may see only its own part of the hierarchy.
    root = mount.root.rstrip("/")
    inside = path == root or path.startswith(root + "/")
    parts = [part for part in path[len(root) :].split("/") if part] if inside else []
    if ".." in parts:
        parts = []
    return tuple(posixpath.join(mount.point, *parts[:depth]) for depth in range(len(parts), -1, -1))


def _own_cgroups(tree: Tree) -> dict[str, str]:
    """Controller → path of the process's cgroup; the empty name is v2's."""
    text = tree.read("proc/self/cgroup")
    if text is None:  # kernels without cgroups, or with cpusets alone
        cpuset = tree.read("proc/self/cpuset")
        return {"cpuset": cpuset.strip()} if cpuset and cpuset.startswith("/") else {}
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, first, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if not (first and second and path.startswith("/")):
            raise TopologyError(
                f"{tree.origin}proc/self/cgroup: not a cgroup line: {line!r}; it is `number:controllers:/path`"
            )
        for controller in controllers.split(","):
            paths[controller] = path
    return paths


def _mounts(tree: Tree) -> tuple[Mount, ...]:
    for path, parse in MOUNT_TABLES.items():
        table = tree.read(path)
        if table is not None:
            return tuple(mount for line in table.splitlines() if (mount := parse(line)) is not None)
    # No mount table in the tree: the places where systemd and the kernel's documentation mount them.
    return (
        Mount("/sys/fs/cgroup", "/", frozenset()),
        Mount("/sys/fs/cgroup/cpuset", "/", frozenset({"cpuset"})),
        Mount("/sys/fs/cgroup/cpu", "/", frozenset({"cpu"})),
        Mount("/sys/fs/cgroup/cpu,cpuacct", "/", frozenset({"cpu"})),
        Mount("/sys/fs/cgroup/memory", "/", frozenset({"memory"})),
        Mount("/dev/cpuset", "/", frozenset({"cpuset"})),
    )


def mountinfo_line(line: str) -> Mount | None:
    """`36 35 98:0 /root /point options… - fstype source super-options`."""
    before, dash, after = line.partition(" - ")
    fields, tail = before.split(" "), after.split(" ")
    if not dash or len(fields) < 6 or len(tail) < 3:
        return None
    return _mount(_unescaped(fields[4]), _unescaped(fields[3]), tail[0], tail[2])


def mounts_line(line: str) -> Mount | None:
    fields = line.split(" ")
    return _mount(_unescaped(fields[1]), "/", fields[2], fields[3]) if len(fields) >= 4 else None


def _mount(point: str, root: str, kind: str, options: str) -> Mount | None:
    # A mount point cannot lead out of the tree, whatever the table says.
    point = posixpath.normpath("/" + point.lstrip("/"))
    if kind == "cgroup2":
        return Mount(point, root, frozenset())
    if kind == "cpuset":
        return Mount(point, root, frozenset({"cpuset"}))
    controllers = _LIMITING & set(options.split(","))
    return Mount(point, root, controllers) if kind == "cgroup" and controllers else None


MOUNT_TABLES: Mapping[str, Callable[[str], Mount | None]] = {
    "proc/self/mountinfo": mountinfo_line,
    "proc/self/mounts": mounts_line,
    "proc/mounts": mounts_line,
}
"""The mount tables by preference, and how a line of each is read."""


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def process_affinity() -> frozenset[int]:
    """The CPUs the scheduler may run this process on (sched_getaffinity of the live machine)."""
    return frozenset(os.sched_getaffinity(0))
