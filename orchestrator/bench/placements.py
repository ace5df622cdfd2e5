"""Where do so many instances of so many cores each run while they are measured? Pure.

Whole physical cores, as the planner takes them: isolated or performance cores where they suffice, no more than the CPU quota pays for,
no instance across nodes, none across last-level cache domains unless no domain is large enough. Instances go to the nodes in turn, as
the planner shares them out, and on a node fill one cache domain after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import Literal

from orchestrator.bench.cells import Place, Placement
from orchestrator.config.cores import Core, has_usable_memory, nearest_memory, usable_cores
from orchestrator.config.words import counted
from orchestrator.plan.pool import budget, narrowed, within_quota
from orchestrator.plan.regions import Region, best_first, regions_of
from topology.model import Machine

Count = int | Literal["fill"]
"""Of instances; fill: as many as there is room for."""


class DoesNotFit(Exception):
    """Instances that this machine has no room for: says how many of which size there are."""


def placements(
    machine: Machine, cores: Iterable[int], instances: Iterable[Count], taken: Iterable[int] = ()
) -> list[Placement]:
    """Each number of cores with each number of instances, in this order; what comes out twice is there once.

    `taken` are CPUs of others. DoesNotFit names the first that is not to be had.
    """
    found: list[Placement] = []
    gone = frozenset(taken)
    for size in cores:
        for count in instances:
            placement = _placement(machine, size, count, gone)
            if placement not in found:
                found.append(placement)
    return found


def largest(machine: Machine, taken: Iterable[int] = ()) -> int:
    """Cores of the largest instance that fits; 0 where none may be used."""
    return max((region.size for region in _regions(machine, usable_cores(machine, taken), None)), default=0)


def _placement(machine: Machine, size: int, count: Count, taken: frozenset[int]) -> Placement:
    cores = usable_cores(machine, taken)
    wanted = size if count == "fill" else size * count
    regions = _regions(machine, cores, wanted)
    rows = [_blocks(region, size) for region in regions]
    blocks = [block for block in chain.from_iterable(zip_longest(*rows)) if block is not None]
    if not blocks or (count != "fill" and count > len(blocks)):
        asked = "an instance" if count in ("fill", 1) else f"{count} instances"
        largest_region = max((region.size for region in regions), default=0)
        why = (
            f"no node has more than {counted(largest_region, 'core')} that this process may use"
            if size > largest_region
            else f"there is room for {len(blocks)}"
        )
        others = f"; CPUs of other orchestrators are left out: {len(taken)}" if taken else ""
        raise DoesNotFit(
            f"{asked} of {counted(size, 'core')} {'does' if asked[0] == 'a' else 'do'} not fit: {why}{others}"
        )
    chosen = blocks if count == "fill" else blocks[:count]
    return Placement(
        cores=size,
        places=tuple(_place(machine, block) for block in chosen),
        nodes_on_machine=sum(node.has_memory for node in machine.nodes),
    )


def _regions(machine: Machine, cores: Sequence[Core], wanted: int | None) -> list[Region]:
    """The best first; those that `wanted` cores would be taken from, None: as many as can be."""
    most = budget(machine, len(cores))
    with_memory = frozenset(node.node for node in machine.nodes if has_usable_memory(node))
    pool = narrowed(cores, wanted or 1, most, {}, [])
    return best_first(regions_of(within_quota(machine, pool, most, with_memory, {}), with_memory))


def _blocks(region: Region, size: int) -> list[tuple[Core, ...]]:
    """Disjoint blocks of so many cores: within domains, then of what is left over of several where no domain is large enough."""
    if any(len(domain) >= size for domain in region.domains):
        return [
            domain[start : start + size]
            for domain in region.domains
            for start in range(0, len(domain) - size + 1, size)
        ]
    every = region.cores
    return [every[start : start + size] for start in range(0, len(every) - size + 1, size)]


def _place(machine: Machine, block: Sequence[Core]) -> Place:
    home = nearest_memory(machine, block[0].node)
    return Place(tuple(sorted(core.pu for core in block)), () if home is None else (home,))
