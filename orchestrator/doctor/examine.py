"""Which checks are there, and what do they all say of a host? Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from orchestrator.doctor.checks import cpu, frequency, idle, kernel, limits, memory, running, software
from orchestrator.doctor.finding import Finding, worst_first
from orchestrator.doctor.host import Host

CHECKS: Final[tuple[Callable[[Host], Finding | None], ...]] = (
    running.state,
    running.placement,
    running.remote_memory,
    running.swapped,
    running.allocators,
    limits.port,
    limits.runtime,
    limits.cache,
    limits.open_files,
    cpu.usable,
    limits.quota,
    limits.throttling,
    memory.limit,
    memory.policy,
    memory.libnuma,
    memory.numa_balancing,
    memory.transparent_huge_pages,
    memory.reserved_pages,
    memory.swap,
    cpu.machine,
    cpu.affinity,
    cpu.instruction_sets,
    cpu.amx,
    cpu.smt,
    cpu.isolated,
    cpu.interrupts,
    cpu.stolen,
    frequency.governor,
    frequency.limit,
    frequency.turbo,
    idle.sleep,
    kernel.clock,
    kernel.pidfd,
    software.engines,
    software.preload,
    software.layout_libraries,
)


def examine(host: Host) -> list[Finding]:
    """Every finding, worst first."""
    return worst_first([finding for check in CHECKS if (finding := check(host)) is not None])
