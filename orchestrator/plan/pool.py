"""Which of the usable cores may instances get, where the planner chooses? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.cores import Core
from orchestrator.config.words import counted, cpus_in_words
from orchestrator.plan.regions import best_first, regions_of
from topology.model import Machine


def budget(machine: Machine, cores: int) -> int:
    """How many cores may be busy at once: the floor of the quota, at least one."""
    return cores if machine.quota_cpus is None else max(1, min(cores, int(machine.quota_cpus)))


def narrowed(
    cores: Sequence[Core], wanted: int, most: int, why: dict[int, str], warnings: list[str]
) -> tuple[Core, ...]:
    """Isolated cores only, where the administrator meant that; performance cores only, where they suffice."""
    pool = tuple(cores)
    isolated = tuple(core for core in pool if core.isolated)
    if len(isolated) >= wanted and len(pool) > len(isolated) >= len(pool) / 2:
        reason = "not isolated: left to the system, since the administrator isolated other cores for work like this"
        why.update({core.pu: reason for core in pool if not core.isolated})
        pool = isolated
    fast = tuple(core for core in pool if core.kind != "efficiency")
    if wanted <= len(fast) < len(pool):
        reason = "an efficiency core: an instance that mixes kinds waits for its slowest thread"
        slow = [core for core in pool if core.kind == "efficiency"]
        why.update({core.pu: reason for core in slow})
        if most > len(fast):
            warnings.append(
                f"{len(slow)} efficiency cores ({cpus_in_words(core.pu for core in slow)}) have no instance; "
                "a layout file can give them one of their own"
            )
        pool = fast
    return pool


def within_quota(
    machine: Machine, pool: Sequence[Core], most: int, with_memory: frozenset[int], why: dict[int, str]
) -> tuple[Core, ...]:
    """No more cores than the CFS quota pays for, from as few nodes and cache domains as possible."""
    if len(pool) <= most:
        return tuple(pool)
    ranked: list[Core] = []
    for region in best_first(regions_of(pool, with_memory)):
        for domain in sorted(region.domains, key=len, reverse=True):
            ranked.extend(domain)
    reason = f"the cgroup's CPU quota of {machine.quota_cpus:g} pays for {counted(most, 'core')}"
    why.update({core.pu: reason for core in ranked[most:]})
    return tuple(sorted(ranked[:most], key=lambda core: core.pu))
