"""Which range of sequence lengths does each instance prefer, and what share of the cores is it worth? Pure.

When nothing was measured, the shape is that of the smart-dispatching example in "Scaling up BERT-like model inference on
modern CPU, part 1" (Hugging Face, 2021): of 48 cores on two sockets, 8 of socket 0 for up to 32 tokens, the other 16 of
socket 0 for up to 384, the 24 of socket 1 for the rest; that is a sixth, a third and a half. Where the model's limit is
smaller than the 512 of that example, the bounds keep their proportions: half and three quarters of it at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from orchestrator.config.lengths import group_ranges
from orchestrator.config.schema import InstanceGroup
from orchestrator.plan.model import Bucket, Policy

BUCKETED: Final[frozenset[Policy]] = frozenset({"by-seqlen", "by-seqlen-strict"})
"""The policies that look at buckets."""

SHORT_TOKENS: Final = 32
MEDIUM_TOKENS: Final = 384


@dataclass(frozen=True, slots=True)
class Slot:
    """An instance before it has cores."""

    name: str
    bucket: Bucket | None
    weight: float
    """Share of all cores it is worth; the weights of a plan add up to 1."""
    reason: str


@dataclass(frozen=True, slots=True)
class _Band:
    name: str
    share: float
    bucket: Bucket


def slots(count: int, policy: Policy, max_seqlen: int) -> list[Slot]:
    """`count` instances from the shortest bucket to the longest, replicas of one bucket side by side."""
    if policy not in BUCKETED:
        even = f"one of {count} equal shares: {policy} does not look at lengths"
        return [Slot(f"instance-{index}", None, 1 / count, even) for index in range(count)]
    bands = _bands(count, max_seqlen)
    replicas = _replicas([band.share for band in bands], count)
    return [
        Slot(f"{band.name}-{index}", band.bucket, band.share / number, _reason(band, index, number))
        for band, number in zip(bands, replicas, strict=True)
        for index in range(number)
    ]


def bounds(count: int, max_seqlen: int) -> list[int]:
    """The longest sequence of each of at most `count` buckets, ascending, the last one `max_seqlen`."""
    short = min(SHORT_TOKENS, max_seqlen // 2)
    medium = min(MEDIUM_TOKENS, max_seqlen * 3 // 4)
    if count >= 3 and 1 <= short < medium < max_seqlen:
        return [short, medium, max_seqlen]
    if count >= 2 and 1 <= short < max_seqlen:
        return [short, max_seqlen]
    return [max_seqlen]


def _bands(count: int, max_seqlen: int) -> list[_Band]:
    tops = bounds(count, max_seqlen)
    names, shares = {
        1: (("all",), (1.0,)),
        2: (("short", "long"), (1 / 6, 5 / 6)),
        3: (("short", "medium", "long"), (1 / 6, 1 / 3, 1 / 2)),
    }[len(tops)]
    lows = [1, *(top + 1 for top in tops)]
    return [
        _Band(name, share, Bucket(low, top)) for name, share, low, top in zip(names, shares, lows, tops, strict=False)
    ]


def _replicas(shares: Sequence[float], count: int) -> list[int]:
    """Whole numbers in proportion to the shares, at least one each, `count` in all; the largest remainders win."""
    numbers = [max(int(share * count), 1) for share in shares]
    while sum(numbers) < count:
        deficits = [share * count - number for share, number in zip(shares, numbers, strict=True)]
        numbers[deficits.index(max(deficits))] += 1
    while sum(numbers) > count:  # small counts: the floors of one may exceed it
        excess = [number - share * count if number > 1 else -1.0 for share, number in zip(shares, numbers, strict=True)]
        numbers[excess.index(max(excess))] -= 1
    return numbers


def _reason(band: _Band, index: int, replicas: int) -> str:
    lengths = f"sequences of {band.bucket.min} to {band.bucket.max} tokens"
    if band.share == 1.0 and replicas == 1:
        return f"{lengths}: the only instance takes all"
    alike, together = (f", replica {index + 1} of {replicas}", " together") if replicas > 1 else ("", "")
    return f"{lengths}{alike}: {band.share:.0%} of the cores{together}, as in the published example (nothing measured)"


def layout_buckets(
    groups: Sequence[InstanceGroup], policy: Policy, max_seqlen: int
) -> tuple[list[Bucket | None], list[str]]:
    """The bucket of each entry of a layout under the model's limit, and warnings.

    What lies above the limit is cut; an entry that lies above it altogether takes the longest range that is left, and if
    the entries end below the limit the longest of them is extended, so that every length has a bucket and no core idles.
    """
    if policy not in BUCKETED:
        limits = [group.name for group in groups if group.min_seqlen is not None or group.max_seqlen is not None]
        said = [f"{policy} does not look at lengths: min_seqlen and max_seqlen are not used"] if limits else []
        return [None] * len(groups), said
    ranges = [(low, max_seqlen if high is None else high) for low, high in group_ranges(groups)]
    warnings: list[str] = []
    within = [(low, min(high, max_seqlen)) for low, high in ranges if low <= max_seqlen]
    top_low, top = max(within, key=lambda each: (each[1], each[0])) if within else (1, max_seqlen)
    buckets: list[Bucket | None] = []
    for group, (low, high) in zip(groups, ranges, strict=True):
        if low > max_seqlen:
            longest = Bucket(top_low, max_seqlen)
            warnings.append(
                f'"{group.name}" is for {low} to {high} tokens, the longest sequence served is {max_seqlen}: '
                f"it takes {longest.min} to {longest.max} as well"
            )
            buckets.append(longest)
            continue
        if high == top < max_seqlen:
            warnings.append(
                f'"{group.name}" ends at {high} tokens, sequences of up to {max_seqlen} are served: it takes those too'
            )
            high = max_seqlen
        buckets.append(Bucket(low, min(high, max_seqlen)))
    # An explicit min_seqlen of every entry may leave the shortest ones to nobody once others were cut away.
    lowest = min(bucket.min for bucket in buckets if bucket is not None)
    if lowest > 1:
        buckets = [Bucket(1, b.max) if b is not None and b.min == lowest else b for b in buckets]
        warnings.append(f"no entry takes sequences under {lowest} tokens: the one of the shortest range does")
    return buckets, warnings
