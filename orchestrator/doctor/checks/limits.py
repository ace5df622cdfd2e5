"""What do cgroups, resource limits, folders and ports leave to the orchestrator? Pure.

Sources: Documentation/scheduler/sched-bwc.rst (quota and throttling), getrlimit(2), admin-guide/cgroup-v2.rst (cpu.stat).
"""

from __future__ import annotations

from typing import Final

from orchestrator.config.words import counted
from orchestrator.doctor.finding import Finding, Level, unknown
from orchestrator.doctor.host import Folder, Host, Unread
from orchestrator.doctor.words import share, size

OTHER_DESCRIPTORS: Final = 64
"""Of a gateway beside its connections: sockets to the router, the channel, libraries, logs."""
FEWEST_DESCRIPTORS: Final = 256
"""With fewer a gateway refuses connections under any load worth serving."""
COSTLY_THROTTLING: Final = 0.01
LITTLE_SPACE, HARDLY_SPACE = 2 << 30, 512 << 20
"""All variants of all-MiniLM-L6-v2 take 340 MB in the cache; BERT-base takes five times as much."""


def quota(host: Host) -> Finding:
    if isinstance(host.machine, Unread):
        return unknown("CPU quota", "cgroup", host.machine)
    limit = host.machine.quota_cpus if isinstance(host.running, Unread) else host.running.quota_cpus
    allowed = sum(cpu.allowed for cpu in host.machine.cpus)
    if limit is None or limit >= allowed:
        found = "none" if limit is None else f"{limit:g} CPUs, no fewer than the {allowed} that may be used"
        return Finding(check="CPU quota", group="cgroup", level="ok", found=found)
    rest = limit - int(limit)
    return Finding(
        check="CPU quota",
        group="cgroup",
        level="costs" if limit < 1 else "note",
        found=f"{limit:g} of {counted(allowed, 'CPU')} that may be used",
        cost="less than one core: every thread stands still for part of each period (sched-bwc.rst)"
        if limit < 1
        else f"the plan stays within {counted(int(limit), 'core')}"
        + (f"; {rest:.2g} of a core is left over" if rest >= 0.05 else ""),
        mend="a cpuset of whole cores in place of a quota (AllowedCPUs=, --cpuset-cpus)",
    )


def throttling(host: Host) -> Finding:
    check = "throttling"
    running = not isinstance(host.running, Unread)
    reading = host.running.throttling if not isinstance(host.running, Unread) else host.throttling
    if isinstance(reading, Unread):
        if not isinstance(host.machine, Unread) and host.machine.quota_cpus is None:
            return Finding(check=check, group="cgroup", level="ok", found="no quota, nothing to throttle")
        return unknown(check, "cgroup", reading)
    part = reading.throttled_periods / reading.periods if reading.periods else 0.0
    whose = "the running orchestrator's cgroup" if running else "this shell's cgroup"
    if not reading.throttled_periods:
        return Finding(check=check, group="cgroup", level="ok", found=f"never, in {whose}")
    level: Level = "costs" if part >= COSTLY_THROTTLING else "note"
    return Finding(
        check=check,
        group="cgroup",
        level=level,
        found=f"in {share(reading.throttled_periods, reading.periods)} of its periods since {whose} was made ({reading.where})",
        cost=f"its threads stood still for {reading.throttled_seconds:.1f} s in all",
        mend="raise the quota (CPUQuota=, docker --cpus, limits.cpu), or plan fewer cores",
    )


def open_files(host: Host) -> Finding:
    """The limit that gateways will inherit, or have."""
    check = "open files"
    wanted = host.layout.limits.in_flight + OTHER_DESCRIPTORS
    gateways = [] if isinstance(host.running, Unread) else [p for p in host.running.processes if p.kind == "gateway"]
    known = [each.open_files for each in gateways if each.open_files is not None]
    if known:
        soft, hard = min(known)
        whose = "the running gateways"
    elif isinstance(host.open_files, Unread):
        return unknown(check, "limits", host.open_files)
    else:
        soft, hard = host.open_files
        whose = "this shell"
    found = f"{soft} for {whose} (at most {hard}); a gateway at its limit of {host.layout.limits.in_flight} requests has {wanted}"
    if soft >= wanted:
        return Finding(check=check, group="limits", level="ok", found=found)
    return Finding(
        check=check,
        group="limits",
        level="broken" if soft < FEWEST_DESCRIPTORS else "costs",
        found=found,
        cost=f"a gateway refuses connections beyond about {max(soft - OTHER_DESCRIPTORS, 0)}",
        mend=f"ulimit -n {wanted}, or LimitNOFILE={wanted} in the unit"
        + ("" if hard >= wanted else " (the hard limit has to rise as well)"),
    )


def cache(host: Host) -> Finding:
    if isinstance(host.cache, Unread):
        return unknown("cache folder", "limits", host.cache)
    if host.cache.problem:
        return _unusable(
            "cache folder", host.cache, "--cache-dir or $ORCHESTRATOR_CACHE_DIR", "no model can be prepared"
        )
    free = host.cache.free_bytes or 0
    found = f"{host.cache.path}: {size(free)} free"
    if free >= LITTLE_SPACE:
        return Finding(check="cache folder", group="limits", level="ok", found=found)
    return Finding(
        check="cache folder",
        group="limits",
        level="costs" if free < HARDLY_SPACE else "note",
        found=found,
        cost="all forms of all-MiniLM-L6-v2 take 340 MB there, of BERT-base about five times as much",
        mend="orchestrator models prune, or --cache-dir on another disk",
    )


def runtime(host: Host) -> Finding:
    if isinstance(host.runtime, Unread):
        return unknown("runtime folder", "limits", host.runtime)
    if host.runtime.problem:
        return _unusable(
            "runtime folder", host.runtime, "--runtime-dir or $ORCHESTRATOR_RUNTIME_DIR", "`up` refuses to start"
        )
    return Finding(check="runtime folder", group="limits", level="ok", found=host.runtime.path)


def _unusable(check: str, folder: Folder, option: str, cost: str) -> Finding:
    return Finding(
        check=check, group="limits", level="broken", found=f"{folder.path}: {folder.problem}", cost=cost,
        mend=f"name another with {option}",
    )  # fmt: skip


def port(host: Host) -> Finding:
    if isinstance(host.port, Unread):
        return unknown("port", "limits", host.port)
    if host.port.ok:
        return Finding(check="port", group="limits", level="ok", found=host.port.said)
    if "ermission" in host.port.said:
        return Finding(
            check="port", group="limits", level="broken", found=host.port.said, cost="`up` refuses to start",
            mend="a port from 1024 on, AmbientCapabilities=CAP_NET_BIND_SERVICE, or the socket unit",
        )  # fmt: skip
    return Finding(
        check="port", group="limits", level="broken", found=host.port.said, cost="`up` refuses to start",
        mend=f"--port with another, or see who has it: ss -ltnp 'sport = :{host.layout.port}'",
    )  # fmt: skip
