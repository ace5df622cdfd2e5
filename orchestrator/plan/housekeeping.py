"""Where do the supervisor, the router and the gateways run? Pure.

On larger machines on whole cores that no instance has: those of the lowest numbers, since CPU 0 takes most interrupts; or
efficiency cores, or cores that are not isolated, where instances do not want them. On small machines on the idle SMT
siblings of the instances' cores, else on those cores themselves. Under a CPU quota siblings would cost quota on top, and the
kernel would stop everything, so there it is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.config.cores import Core
from orchestrator.config.schema import HousekeepingConfig
from orchestrator.config.words import counted, cpus_in_words
from orchestrator.plan import cost
from orchestrator.plan.placed import Placed
from topology.cpuset import parse_cpulist


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept for housekeeping. Without cpus it is not settled yet: it depends on what instances leave."""

    cpus: tuple[int, ...]
    cores: tuple[Core, ...]
    """The whole cores that instances do not get because of it."""
    reason: str
    warnings: tuple[str, ...] = ()


UNSETTLED = Kept((), (), "")


def reserve(cores: Sequence[Core], pool: Sequence[Core], wanted: int, most: int) -> tuple[Kept, tuple[Core, ...]]:
    """What is kept, and the pool without it. At least `wanted` cores stay in the pool.

    `cores` are all that may be used, `pool` those that instances may get, `most` how many the quota pays for.
    """
    in_pool = {core.core for core in pool}
    spare = [core for core in cores if core.core not in in_pool]
    worth = cost.housekeeping_cores(len(pool))
    if spare and len(pool) < most:
        kept, _ = keep(spare, min(max(worth, 1), most - len(pool)), "cores that instances do not want")
        return kept, tuple(pool)
    number = min(worth, len(pool) - wanted)
    if number <= 0:
        return UNSETTLED, tuple(pool)
    return keep(pool, number, f"{number} of {len(pool)} cores kept free, the first ones: CPU 0 takes most interrupts")


def keep_house(kept: Kept, placed: Sequence[Placed], quota_cores: int | None) -> Kept:
    """Settles what was left open, now that it is known which cores instances use.

    `quota_cores` is how many cores the CPU quota pays for, None without a quota.
    """
    if kept.cpus:
        return kept
    busy = {cpu for each in placed for cpu in each.cpus}
    idle = {cpu for each in placed for core in each.cores for cpu in core.pus} - busy
    quota_binds = quota_cores is not None and len(busy) >= quota_cores
    if idle and not quota_binds:
        return Kept(
            tuple(sorted(idle)), (), "too few cores to keep one free: on the SMT siblings of the instances' cores"
        )
    why = "the CPU quota pays for no more" if quota_binds else "too few cores to keep one free, and no SMT siblings"
    return Kept(tuple(sorted(busy)), (), f"shared with the instances: {why}")


def keep(cores: Sequence[Core], number: int, reason: str) -> tuple[Kept, tuple[Core, ...]]:
    """`number` of these cores kept for housekeeping, and the others.

    Not isolated ones before isolated ones, efficiency cores before others, those of one node together, then the lowest.
    """
    first_of: dict[int | None, int] = {}
    for core in cores:
        first_of[core.node] = min(first_of.get(core.node, core.pu), core.pu)
    ranked = sorted(cores, key=lambda core: (core.isolated, core.kind != "efficiency", first_of[core.node], core.pu))
    chosen = frozenset(core.core for core in ranked[:number])
    kept = tuple(core for core in cores if core.core in chosen)
    cpus = tuple(sorted(cpu for core in kept for cpu in core.pus))
    return Kept(cpus, kept, reason), tuple(core for core in cores if core.core not in chosen)


def as_configured(
    cores: Sequence[Core], pool: Sequence[Core], wanted: int, config: HousekeepingConfig
) -> tuple[Kept, tuple[Core, ...]]:
    """What the layout says, and the pool without its cores, if that leaves `wanted` of them; else shared, with a warning.

    A core counts as housekeeping's own if its first PU is named; an SMT sibling alone takes no core from instances.
    """
    cpus = parse_cpulist(config.cpus)
    own = tuple(core for core in cores if core.pu in cpus)
    rest = tuple(core for core in pool if core.pu not in cpus)
    reason = "the layout says so"
    if config.shared:
        return Kept(tuple(sorted(cpus)), (), reason), tuple(pool)
    if len(rest) >= wanted:
        return Kept(tuple(sorted(cpus)), own, reason), rest
    both = cpus_in_words(core.pu for core in pool if core.pu in cpus)
    warning = f"housekeeping shares {both} with instances: without that {counted(len(rest), 'core')} would be left for {wanted}"
    return Kept(tuple(sorted(cpus)), (), reason, (warning,)), tuple(pool)
