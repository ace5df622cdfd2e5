"""How many instances, and how much for housekeeping, when nothing was measured on this machine? Pure.

The figures behind the rules, measured with all-MiniLM-L6-v2 on two cores of an AMX-capable Xeon: two one-core instances
gave 1.9 times (int8, 16 tokens) to 1.03 times (fp32, 128 tokens) the throughput of one two-core instance, never less. A
request costs the front end 130 µs of HTTP, 55 of routing and 27 to 930 of tokenizing, against 1 to 44 ms of inference.
`tune` replaces all this by a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LARGEST_INSTANCE: Final = 8
"""Cores. The published example gives as many to short sequences on 48 cores; short inputs do not scale further."""

FEWEST_INSTANCES: Final = 4
"""Wanted before instances get more than one core, so that one long sequence never holds up everything."""

KEPT_FREE_FROM: Final = 8
"""Cores from which on whole cores are kept free for housekeeping; below, one would be an eighth of the machine or more."""

CORES_PER_HOUSEKEEPING_CORE: Final = 24
"""One core of front end feeds 24 of a BERT-base on short input with room to spare (200 µs against 8.5 ms of int8)."""


def instance_size(cores: int, domain: int) -> int:
    """Cores of one instance where the count is left to us: a power of two, 1 to 8, no more than a cache domain has.

    `cores` is how many physical cores there are, `domain` the largest last-level cache domain in cores. A domain of one
    core is no shared cache and does not count.
    """
    size = 1
    while size * 2 <= min(LARGEST_INSTANCE, cores // FEWEST_INSTANCES):
        size *= 2
    return min(size, domain) if domain > 1 else size


def instance_count(region_cores: Sequence[int], size: int) -> int:
    """Instances of about `size` cores over regions that no instance may cross; at least one in each."""
    return sum(max((cores + size // 2) // size, 1) for cores in region_cores)


def housekeeping_cores(cores: int) -> int:
    """Whole cores that housekeeping is worth on a machine of so many physical cores; 0 on a small one."""
    return -(-cores // CORES_PER_HOUSEKEEPING_CORE) if cores >= KEPT_FREE_FROM else 0
