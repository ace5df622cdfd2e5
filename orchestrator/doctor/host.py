"""What is known of a host when the checks begin? Read in one place (`read`, `trials`), judged in another (`checks`). Pure.

A reading that cannot be had is an `Unread` that says why; a check turns it into a finding of level `unknown`. Texts of files are kept
as the kernel wrote them, without the last newline.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from orchestrator.config.schema import Layout
from orchestrator.status import Status
from topology.model import Machine


class Unread(Struct, frozen=True):
    """A reading that cannot be had here."""

    why: str


Text = str | Unread


class Frequency(Struct, frozen=True):
    """/sys/devices/system/cpu/cpuN/cpufreq; None where there is no such file. Frequencies in kHz."""

    cpu: int
    driver: str | None
    governor: str | None
    preference: str | None
    """energy_performance_preference."""
    lowest: int | None
    highest: int | None
    """What the hardware can, turbo included (cpuinfo_max_freq)."""
    limit: int | None
    """What the policy lets it (scaling_max_freq)."""
    base: int | None


class Idle(Struct, frozen=True):
    """How cores sleep: /sys/devices/system/cpu/cpuidle and the states of one CPU."""

    driver: str
    deepest: int
    """Microseconds until a core is awake again from its deepest state, as the driver says (cpu*/cpuidle/state*/latency)."""
    halt_poll_ns: int | None = None
    """How long a guest spins before it halts its core; None where that is not its driver."""


class HugePool(Struct, frozen=True):
    """/sys/kernel/mm/hugepages/hugepages-NkB"""

    page_kb: int
    total: int
    free: int


class Swap(Struct, frozen=True):
    """A line of /proc/swaps."""

    name: str
    bytes: int
    used_bytes: int


class Interrupt(Struct, frozen=True):
    """A numbered line of /proc/interrupts, and where it may go."""

    number: int
    name: str
    counts: Mapping[int, int]
    """By CPU, since boot."""
    affinity: frozenset[int] | None


class Throttling(Struct, frozen=True):
    """cpu.stat of the nearest cgroup that has a quota, since the cgroup was made."""

    where: str
    periods: int
    throttled_periods: int
    throttled_seconds: float


class MemoryLimit(Struct, frozen=True):
    """The tightest memory limit from a process's cgroup up to the root."""

    where: str
    bytes: int | None
    """None: no limit."""
    used_bytes: int | None
    """Without the page cache that the kernel would give back (inactive_file)."""
    kills: int = 0
    """Processes that the kernel killed for want of memory (memory.events, oom_kill)."""


class Trial(Struct, frozen=True):
    """Something that was really tried, in a child process."""

    ok: bool
    said: str
    died: bool = False
    """It ended the child, as it would end a worker."""


class Folder(Struct, frozen=True):
    path: str
    problem: str = ""
    """Why it cannot be used; empty if it can."""
    free_bytes: int | None = None


class Process(Struct, frozen=True):
    """A process of the running orchestrator, as the kernel shows it."""

    name: str
    pid: int
    kind: Literal["supervisor", "router", "gateway", "worker"]
    open_files: tuple[int, int] | None = None
    """RLIMIT_NOFILE, soft and hard."""
    cpus: frozenset[int] | None = None
    """On which its threads may run, all together, just now."""
    swapped_bytes: int = 0
    pages_by_node: Mapping[int, int] | None = None
    """Bytes of its anonymous memory on each node; None where numa_maps cannot be read."""
    preload: str = ""


Answer = Literal["status", "absent", "starting", "silent", "refused"]
"""Of the orchestrator that may run here: its status; there is none; one holds the lock and has no control socket yet; one has it and
does not answer; it belongs to another user or is of another version."""


class Running(Struct, frozen=True):
    status: Status
    processes: tuple[Process, ...]
    throttling: Throttling | Unread
    memory: MemoryLimit | Unread
    quota_cpus: float | None = None
    """Of the supervisor's cgroup."""


class Host(Struct, frozen=True, kw_only=True):
    live: bool
    """False: read from a captured tree; nothing was tried, and nothing runs there."""
    machine: Machine | Unread
    layout: Layout
    """What is to be served here; the default layout where none was named."""
    worker_cpus: frozenset[int] = frozenset()
    """Of the running orchestrator, else of the plan."""
    housekeeping_cpus: frozenset[int] = frozenset()
    """Of its router and gateways."""
    instances: int = 1
    widest_instance: int = 1
    """Threads of the largest instance."""

    frequencies: tuple[Frequency, ...] | Unread
    no_turbo: Text
    """intel_pstate/no_turbo"""
    boost: Text
    """cpufreq/boost"""
    idle: Idle | Unread
    smt_control: Text
    nohz_full: Text
    stolen: tuple[int, int] | Unread
    """Ticks since boot, over all CPUs: given to other guests, and all."""
    interrupts: tuple[Interrupt, ...] | Unread
    irqbalance: bool
    uptime_seconds: float | Unread

    thp_enabled: Text
    thp_defrag: Text
    pools: tuple[HugePool, ...] | Unread
    numa_balancing: Text
    swaps: tuple[Swap, ...] | Unread
    swappiness: Text
    total_memory: int | Unread
    available_memory: int | Unread

    throttling: Throttling | Unread
    memory: MemoryLimit | Unread
    cpuset: Text
    """Which file narrows the CPUs."""
    open_files: tuple[int, int] | Unread

    clock: Text
    clocks: Text
    """Those that could be chosen."""
    release: Text
    """Of the kernel."""

    preload: str
    """LD_PRELOAD of this environment."""
    preload_file: Text
    """/etc/ld.so.preload"""
    engines: Mapping[str, str]
    """Those that are installed, with their versions."""
    missing_libraries: tuple[str, ...] = ()
    """Problems of the layout's allocators on this machine."""

    affinity: Trial | Unread
    memory_policy: Trial | Unread
    libnuma: Trial | Unread
    amx: Trial | Unread
    pidfd: Trial | Unread
    clock_nanoseconds: float | Unread
    """What reading the clock costs."""
    wakeup_microseconds: float | Unread
    """From a write on one core to its reader running on another that had nothing to do."""

    cache: Folder | Unread
    runtime: Folder | Unread
    port: Trial | Unread
    answer: Answer = "absent"
    running: Running | Unread
    weights_bytes: int | None = None
    """Of the model's graph, where the cache knows it."""


def isa_of(host: Host) -> frozenset[str]:
    """Instruction sets; empty where the machine cannot be read."""
    return frozenset() if isinstance(host.machine, Unread) else frozenset(host.machine.isa)
