"""How does one get the readings of this host, or of a captured one?"""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import Struct

from orchestrator.config.schema import Layout
from orchestrator.doctor import files
from orchestrator.doctor.host import Answer, Folder, Host, Process, Running, Trial, Unread
from orchestrator.doctor.trials import NAMES, Where, tried
from orchestrator.paths import LONGEST_SOCKET_PATH
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.preload import libraries
from orchestrator.status import Status
from topology.limits import process_affinity, read_limits
from topology.model import Machine, TopologyError
from topology.sysfs import read_facts, read_machine
from topology.tree import GZIP, DiskTree, MemoryTree, Tree, open_archive, read_file
from workers.engines.installed import installed

NOT_LIVE = Unread("read from a captured tree: nothing can be tried there")


class Asked(Struct, frozen=True, kw_only=True):
    """What `orchestrator doctor` was called for."""

    sysroot: Path
    layout: Layout
    cache: Path
    runtime: Path
    status: Status | Unread
    """Of the orchestrator that runs here."""
    answer: Answer
    weights_bytes: int | None = None


def read_host(asked: Asked, environment: Mapping[str, str]) -> Host:
    """All readings. TopologyError only if `sysroot` itself is nothing that can be read."""
    live = asked.sysroot.resolve() == Path("/")
    tree = _tree(asked.sysroot)
    machine = _machine(asked.sysroot)
    planned = _planned(machine, asked.layout)
    cpus, house = _in_use(planned, asked.status)
    trials = _trials(machine, planned) if live else dict.fromkeys(NAMES, NOT_LIVE)
    clock, wakeup = trials["clock"], trials["wakeup"]
    tree_cpus = () if isinstance(machine, Unread) else tuple(cpu.cpu for cpu in machine.cpus if cpu.allowed)
    running = _running(tree, asked.status) if live else NOT_LIVE
    return Host(
        live=live,
        machine=machine,
        layout=asked.layout,
        worker_cpus=cpus,
        housekeeping_cpus=house,
        instances=len(planned.instances) if planned is not None else 1,
        widest_instance=max((each.threads for each in planned.instances), default=1) if planned is not None else 1,
        frequencies=files.frequencies(tree, tree_cpus),
        no_turbo=files.text(tree, "sys/devices/system/cpu/intel_pstate/no_turbo"),
        boost=files.text(tree, "sys/devices/system/cpu/cpufreq/boost"),
        idle=files.idle(tree, min(cpus, default=0)),
        smt_control=files.text(tree, "sys/devices/system/cpu/smt/control"),
        nohz_full=files.text(tree, "sys/devices/system/cpu/nohz_full"),
        stolen=files.stolen(tree),
        interrupts=files.interrupts(tree),
        irqbalance=files.runs(tree, "irqbalance"),
        uptime_seconds=files.uptime(tree),
        thp_enabled=files.text(tree, "sys/kernel/mm/transparent_hugepage/enabled"),
        thp_defrag=files.text(tree, "sys/kernel/mm/transparent_hugepage/defrag"),
        pools=files.pools(tree),
        numa_balancing=files.text(tree, "proc/sys/kernel/numa_balancing"),
        swaps=files.swaps(tree),
        swappiness=files.text(tree, "proc/sys/vm/swappiness"),
        total_memory=files.memory_total(tree, "MemTotal"),
        available_memory=files.memory_total(tree, "MemAvailable"),
        throttling=files.throttling(tree),
        memory=files.memory_limit(tree),
        cpuset=_cpuset(tree, live),
        open_files=files.open_files(tree),
        clock=files.text(tree, "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        clocks=files.text(tree, "sys/devices/system/clocksource/clocksource0/available_clocksource"),
        release=files.text(tree, "proc/sys/kernel/osrelease"),
        preload=environment.get("LD_PRELOAD", "") if live else "",
        preload_file=files.text(tree, "etc/ld.so.preload"),
        engines=installed() if live else {},
        missing_libraries=tuple(map(str, libraries(asked.layout, environment).problems)) if live else (),
        affinity=trials["affinity"],
        memory_policy=trials["policy"],
        libnuma=trials["libnuma"],
        amx=trials["amx"],
        pidfd=trials["pidfd"],
        clock_nanoseconds=clock if isinstance(clock, Unread) else _number(clock),
        wakeup_microseconds=wakeup if isinstance(wakeup, Unread) else _number(wakeup),
        cache=_folder(asked.cache) if live else NOT_LIVE,
        runtime=_runtime(asked.runtime) if live else NOT_LIVE,
        port=_port(asked) if live else NOT_LIVE,
        answer=asked.answer,
        running=running,
        weights_bytes=asked.weights_bytes,
    )


def _tree(sysroot: Path) -> Tree:
    if sysroot.is_dir():
        return DiskTree(sysroot)
    content = read_file(sysroot)
    # A file of lscpu output names the CPUs and nothing that a doctor asks after.
    return open_archive(sysroot, content) if content.startswith(GZIP) else MemoryTree({}, f"{sysroot}:")


def _machine(sysroot: Path) -> Machine | Unread:
    try:
        return read_machine(sysroot)
    except TopologyError as error:
        return Unread(str(error))


def _planned(machine: Machine | Unread, layout: Layout) -> Plan | None:
    if isinstance(machine, Unread):
        return None
    try:
        return plan(machine, PlanRequest(layout=layout))
    except PlanError:
        return None  # `orchestrator check` says why


def _in_use(planned: Plan | None, status: Status | Unread) -> tuple[frozenset[int], frozenset[int]]:
    """The CPUs of instances and of housekeeping: of those that run, or else of the plan for this layout."""
    if isinstance(status, Status):
        return frozenset(cpu for each in status.instances for cpu in each.cpus), frozenset(status.housekeeping_cpus)
    if planned is None:
        return frozenset(), frozenset()
    return frozenset(cpu for each in planned.instances for cpu in each.cpus), frozenset(planned.housekeeping.cpus)


def _trials(machine: Machine | Unread, planned: Plan | None) -> Mapping[str, Trial | Unread]:
    if isinstance(machine, Unread):
        cpu, other, node, nodes = min(process_affinity()), None, 0, 1
    else:
        allowed = [each for each in machine.nodes if each.has_memory and each.allowed]
        first = planned.instances[0] if planned is not None else None
        cpu = first.cpus[0] if first is not None else min(process_affinity())
        node = first.membind[0] if first is not None and first.membind else (allowed[0].node if allowed else 0)
        nodes = max(1, sum(each.has_memory for each in machine.nodes))
        core = next((each.core for each in machine.cpus if each.cpu == cpu), None)
        apart = (each.cpu for each in machine.cpus if each.allowed and each.online and each.core != core)
        other = min(apart, default=None)
    return tried(Where(cpu, other, node, nodes))


def _number(measured: Trial) -> float | Unread:
    return float(measured.said) if measured.ok else Unread(measured.said)


def _cpuset(tree: Tree, live: bool) -> str | Unread:
    try:
        limits = read_facts(tree, affinity=process_affinity() if live else None).limits
    except TopologyError as error:
        return Unread(str(error))
    return limits.cpuset_where or Unread("no cgroup of this process has a cpuset")


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _folder(path: Path) -> Folder:
    try:
        there = _nearest(path)
    except OSError as error:  # a folder above it that this user may not enter
        return Folder(str(path), f"{error.strerror} for user {os.getuid()}")
    if not there.is_dir():
        return Folder(str(path), f"{there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        return Folder(str(path), f"user {os.getuid()} may not write to {there}")
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Folder(str(path), f"{there}: {error.strerror}")
    return Folder(str(path), "", free)


def _runtime(path: Path) -> Folder:
    found = _folder(path)
    if len(str(path / "control.sock")) > LONGEST_SOCKET_PATH:
        return Folder(str(path), f"too long for a unix socket (at most {LONGEST_SOCKET_PATH} bytes)")
    if not found.problem and path.exists():
        state = path.stat()
        if state.st_uid != os.getuid():
            return Folder(str(path), f"belongs to user {state.st_uid}")
        if state.st_mode & 0o022:
            return Folder(str(path), "others may write to it")
    return found


def _port(asked: Asked) -> Trial:
    """Whether the layout's port can be had, by taking it for a moment."""
    host, port = asked.layout.host, asked.layout.port
    ours = asked.status.endpoint if isinstance(asked.status, Status) else ""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and ours.endswith(f":{port}"):
            return Trial(True, f"{host}:{port} is held by the orchestrator that runs here")
        return Trial(False, f"{host}:{port}: {error.strerror or error}")
    return Trial(True, f"{host}:{port} is free" if port else f"{host}: a free port can be had")


def _running(tree: Tree, status: Status | Unread) -> Running | Unread:
    if isinstance(status, Unread):
        return status
    kinds: list[tuple[str, int | None, Literal["supervisor", "router", "gateway", "worker"]]] = [
        ("supervisor", status.pid, "supervisor"),
        ("router", status.router.pid, "router"),
        *((each.name, each.pid, "gateway") for each in status.gateways),
        *((each.name, each.pid, "worker") for each in status.instances),
    ]  # fmt: skip
    processes = []
    for name, pid, kind in kinds:
        if pid is None:
            continue
        own = files.ProcessTree(tree, pid)
        limits = files.open_files(own)
        processes.append(
            Process(
                name=name,
                pid=pid,
                kind=kind,
                open_files=None if isinstance(limits, Unread) else limits,
                cpus=files.cpus_of_threads(own) if kind == "worker" else None,
                swapped_bytes=files.swapped_bytes(own),
                pages_by_node=files.anonymous_by_node(own) if kind == "worker" else None,
                preload=files.preload_of(own),
            )
        )
    supervisor = files.ProcessTree(tree, status.pid)
    return Running(
        status, tuple(processes), files.throttling(supervisor), files.memory_limit(supervisor), _quota(supervisor)
    )


def _quota(tree: Tree) -> float | None:
    try:
        return read_limits(tree).quota_cpus
    except TopologyError:
        return None
