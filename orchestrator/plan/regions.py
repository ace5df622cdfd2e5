"""How are cores divided so that no instance crosses a NUMA node, and none a cache domain without need? Pure.

Theory of operation
-------------------
A *region* is the cores of one kind on one node; an instance lies inside a region. A region is a row of last-level cache
*domains*. Instances come as a row of weights, ordered by the lengths they serve, and both rows are cut in order, so that
neighbours in length are neighbours on the machine:
- regions take runs of instances: where there are more than three for two regions, in number in proportion to their cores,
  so that all are about as large; else by weight, so that the few keep the shares they were given;
- in a region with at least as many instances as domains, each domain takes a run of instances;
- with fewer, each instance takes a run of whole domains, so that no domain is shared by two.
Cutting is greedy: each part takes the run that comes nearest to its share of what is left, within what leaves enough for
the others. That is linear and off by at most half an element per cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from orchestrator.config.cores import Core
from topology.model import CoreKind


@dataclass(frozen=True, slots=True)
class Region:
    """The usable cores of one kind on one node."""

    node: int | None
    kind: CoreKind | None
    local_memory: bool
    """Whether its node has memory of its own that may be used."""
    domains: tuple[tuple[Core, ...], ...]

    @property
    def cores(self) -> tuple[Core, ...]:
        return tuple(core for domain in self.domains for core in domain)

    @property
    def size(self) -> int:
        return sum(len(domain) for domain in self.domains)


def regions_of(cores: Sequence[Core], nodes_with_memory: frozenset[int]) -> list[Region]:
    """The regions of these cores, by node; domains and cores in the order of their first PU."""
    grouped: dict[tuple[int | None, CoreKind | None], dict[int | None, list[Core]]] = {}
    for core in sorted(cores, key=lambda each: each.pu):
        grouped.setdefault((core.node, core.kind), {}).setdefault(core.llc, []).append(core)
    return [
        Region(
            node=node,
            kind=kind,
            local_memory=node is None or node in nodes_with_memory,
            domains=tuple(tuple(domain) for domain in by_llc.values()),
        )
        for (node, kind), by_llc in sorted(grouped.items(), key=lambda each: -1 if each[0][0] is None else each[0][0])
    ]


def best_first(regions: Sequence[Region]) -> list[Region]:
    """Performance cores first, then own memory, then the most cores."""
    return sorted(regions, key=lambda each: (each.kind == "efficiency", not each.local_memory, -each.size))


def best_regions(regions: Sequence[Region], count: int) -> list[Region]:
    """The `count` best of them, in the order in which they were."""
    chosen = best_first(regions)[:count]
    return [region for region in regions if any(region is each for each in chosen)]


def counts_of(weights: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """How many of the instances, in order, each region takes. Same conditions as `runs`."""
    if 2 * len(weights) <= 3 * len(sizes):
        return runs(weights, sizes)
    counts = whole_shares(len(weights), sizes)
    for index, size in enumerate(sizes):  # a region has no more instances than cores
        while counts[index] > size:
            counts[index] -= 1
            room = [sizes[other] - counts[other] for other in range(len(sizes))]
            counts[room.index(max(room))] += 1
    return counts


def runs(weights: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """How many of the weights, in order, each part takes: at least 1, at most its size, all of them in all.

    Needs len(sizes) ≤ len(weights) ≤ sum(sizes).
    """
    total = [0.0, *accumulate(weights)]
    taken, counts = 0, []
    for index, size in enumerate(sizes):
        later = sizes[index + 1 :]
        left = len(weights) - taken
        fewest = max(1, left - sum(later))
        most = min(size, left - len(later))
        target = (total[-1] - total[taken]) * size / (size + sum(later))
        done = total[taken]
        count = min(range(fewest, most + 1), key=lambda k: abs(total[taken + k] - done - target))
        counts.append(count)
        taken += count
    return counts


def whole_shares(size: int, weights: Sequence[float]) -> list[int]:
    """`size` cores in whole numbers in proportion to the weights, at least one each."""
    ideal = [size * weight / sum(weights) for weight in weights]
    shares = [max(1, int(each)) for each in ideal]
    while sum(shares) > size:
        over = [share - each if share > 1 else -1.0 for share, each in zip(shares, ideal, strict=True)]
        shares[over.index(max(over))] -= 1
    while sum(shares) < size:
        under = [each - share for share, each in zip(shares, ideal, strict=True)]
        shares[under.index(max(under))] += 1
    return shares


def divide(region: Region, weights: Sequence[float]) -> list[tuple[Core, ...]]:
    """The region's cores for instances of these weights, in order. Needs 1 ≤ len(weights) ≤ region.size.

    An instance that would span cache domains although its cores fit into one gets that one alone.
    """
    domains = region.domains
    if len(weights) >= len(domains):
        parts: list[tuple[Core, ...]] = []
        start = 0
        for domain, count in zip(domains, runs(weights, [len(each) for each in domains]), strict=True):
            cut = 0
            for share in whole_shares(len(domain), weights[start : start + count]):
                parts.append(domain[cut : cut + share])
                cut += share
            start += count
        return parts
    return _whole_domains(domains, weights)


def _whole_domains(domains: Sequence[tuple[Core, ...]], weights: Sequence[float]) -> list[tuple[Core, ...]]:
    largest = max(len(domain) for domain in domains)
    sizes = [0, *accumulate(len(domain) for domain in domains)]
    parts: list[tuple[Core, ...]] = []
    start = 0
    for index, weight in enumerate(weights):
        most = len(domains) - start - (len(weights) - index - 1)
        if index == len(weights) - 1:
            end = len(domains)
        else:
            target = (sizes[-1] - sizes[start]) * weight / sum(weights[index:])
            begin = sizes[start]
            end = start + min(range(1, most + 1), key=lambda k: abs(sizes[start + k] - begin - target))
        run = domains[start:end]
        if len(run) > 1 and sum(map(len, run)) <= largest:
            run = [max(run, key=len)]
        parts.append(tuple(core for domain in run for core in domain))
        start = end
    return parts
