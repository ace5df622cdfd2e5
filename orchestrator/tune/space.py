"""Which layouts are worth a look? Bounds of buckets, cores per instance, shares of the cores, forms. Pure.

Bounds lie where a request must fall on one side or the other: at quantiles of the requests and of the work they are, where batching
stops to gain, in the widest gaps, and where `plan` has them. Cores go to buckets in proportion to the work in them. Sizes are powers
of two that do not shrink from a bucket to a longer one, since the longer a sequence is the better more threads are used and the more its
latency counts. Each bucket computes with the form that does its own work fastest, and one form for all is proposed beside that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, combinations_with_replacement, pairwise
from typing import Final

import msgspec

from orchestrator.config.schema import Batching
from orchestrator.models.choose import TIE
from orchestrator.plan.buckets import bounds as default_bounds
from orchestrator.tune.estimate import Shares, batched_seconds
from orchestrator.tune.proposal import Form, Group, Proposal

MOST_BUCKETS: Final = 3
MOST_BOUNDS: Final = 7
"""From which pairs are taken."""
_OF_REQUESTS: Final = (0.5, 0.9)
_OF_WORK: Final = (0.33, 0.67)
BATCH_TOKENS: Final = (256, 512, 1024, 2048)
_GAIN: Final = 0.08
"""Less than the router wants of each that joins a batch is no gain (docs/scheduling.md)."""


def sizes_within(node_cores: int) -> list[int]:
    """Cores that an instance may have: powers of two, and the whole of a node."""
    sizes = [1]
    while sizes[-1] * 2 <= node_cores:
        sizes.append(sizes[-1] * 2)
    return sizes if sizes[-1] == node_cores else [*sizes, node_cores]


def proposals(
    cores: int, sizes: Sequence[int], shares: Shares, forms: Mapping[str, Form], longest: int
) -> Iterator[Proposal]:
    """All, none twice. `cores` are to be given out; `longest` sequence that is served."""
    seen: set[Proposal] = set()
    for tops in bucketings(shares, forms, longest):
        for chosen in combinations_with_replacement(sizes, len(tops)):
            if sum(chosen) > cores:
                continue
            for each in _computing(tops, chosen, cores, shares, forms):
                if each not in seen:
                    seen.add(each)
                    yield each


def bucketings(shares: Shares, forms: Mapping[str, Form], longest: int) -> list[tuple[int, ...]]:
    """The longest sequence of each bucket, ascending; the last one is `longest`."""
    cuts = bounds_of(shares, forms, longest)
    return [
        (*inner, longest) for count in range(MOST_BUCKETS) for inner in combinations(cuts, count) if len(inner) == count
    ]


def bounds_of(shares: Shares, forms: Mapping[str, Form], longest: int) -> list[int]:
    lengths = [length for length, _ in shares]
    if len(lengths) < 2:
        return []
    fastest = [
        min(batched_seconds(form, 1, length, Batching().max_batch_tokens) for form in forms.values())
        for length in lengths
    ]
    work = [share * seconds for (_, share), seconds in zip(shares, fastest, strict=True)]
    wished = [_quantile(lengths, [share for _, share in shares], at) for at in _OF_REQUESTS]
    wished += [_quantile(lengths, work, at) for at in _OF_WORK]
    wished += [length for form in forms.values() if (length := _batching_gains_until(form, lengths)) is not None]
    # The widest gaps between lengths that come: what a bound there parts is far apart.
    gaps = sorted(pairwise(lengths), key=lambda pair: pair[0] / pair[1])
    wished = [*default_bounds(MOST_BUCKETS, longest)[:-1], *(low for low, _ in gaps[:2]), *wished]
    found: list[int] = []
    for wish in wished:
        at = bisect_right(lengths, wish)
        # Nothing below it, or nothing above: no bound.
        if 0 < at < len(lengths) and _round(lengths, at - 1) not in found:
            found.append(_round(lengths, at - 1))
    return sorted(found[:MOST_BOUNDS])


def neighbours(
    proposal: Proposal, cores: int, sizes: Sequence[int], shares: Shares, forms: Mapping[str, Form]
) -> Iterator[Proposal]:
    """One step away: a bound moved, an instance's worth of cores moved, another size, batching or policy, another form."""
    groups = proposal.groups
    for at, group in enumerate(groups):
        for other, theirs in enumerate(groups):
            given = -(-theirs.cores // group.cores)
            if at != other and group.replicas > given:
                less = msgspec.structs.replace(group, replicas=group.replicas - given)
                free = cores - proposal.cores + given * group.cores
                more = msgspec.structs.replace(theirs, replicas=theirs.replicas + free // theirs.cores)
                yield _with(proposal, {at: less, other: more})
        position = list(sizes).index(group.cores) if group.cores in sizes else 0
        for size in {sizes[max(0, position - 1)], sizes[min(len(sizes) - 1, position + 1)]} - {group.cores}:
            replicas = (group.cores * group.replicas + cores - proposal.cores) // size
            if replicas:
                yield _with(proposal, {at: msgspec.structs.replace(group, cores=size, replicas=replicas)})
    lengths = [length for length, _ in shares]
    for at, (group, following) in enumerate(pairwise(groups)):
        below = groups[at - 1].top if at else 0
        place = bisect_right(lengths, group.top) - 1
        for near in (place - 1, place + 1):
            if 0 <= near < len(lengths) - 1 and below < _round(lengths, near) < following.top:
                yield _with(proposal, {at: msgspec.structs.replace(group, top=_round(lengths, near))})
    for tokens in BATCH_TOKENS:
        if tokens != proposal.max_batch_tokens:
            yield msgspec.structs.replace(proposal, max_batch_tokens=tokens)
    for policy in ("by-seqlen", "by-seqlen-strict", "shortest-completion"):
        if policy != proposal.policy and (len(groups) == 1) != (policy == "by-seqlen-strict"):
            yield msgspec.structs.replace(proposal, policy=policy)
    for name in forms:
        if any(group.form != name for group in groups):
            yield _with(proposal, {at: msgspec.structs.replace(group, form=name) for at, group in enumerate(groups)})


def filled(proposal: Proposal, cores: int, times: int) -> Proposal:
    """So many times the replicas, and what is left of `cores` given to whoever it fits, the group with most cores first."""
    groups = [msgspec.structs.replace(group, replicas=group.replicas * times) for group in proposal.groups]
    left = cores - sum(group.cores * group.replicas for group in groups)
    for at in sorted(range(len(groups)), key=lambda at: -groups[at].cores * groups[at].replicas):
        more, left = divmod(left, groups[at].cores)
        groups[at] = msgspec.structs.replace(groups[at], replicas=groups[at].replicas + more)
    return msgspec.structs.replace(proposal, groups=tuple(groups))


def _with(proposal: Proposal, changed: Mapping[int, Group]) -> Proposal:
    return msgspec.structs.replace(
        proposal, groups=tuple(changed.get(at, group) for at, group in enumerate(proposal.groups))
    )


def _computing(
    tops: Sequence[int], sizes: Sequence[int], cores: int, shares: Shares, forms: Mapping[str, Form]
) -> Iterator[Proposal]:
    """With the best form in each bucket, and with the best one for all."""
    work = [_work(low, top, size, shares, forms) for low, top, size in zip((0, *tops), tops, sizes, strict=False)]
    own = [_fastest(each, forms) for each in work]
    alike = _fastest({name: sum(each[name] for each in work) for name in forms}, forms)
    for chosen in dict.fromkeys((tuple(own), (alike,) * len(tops))):
        loads = [size * each[name] for size, each, name in zip(sizes, work, chosen, strict=True)]
        replicas = _replicas(loads, sizes, cores)
        yield Proposal(
            tuple(
                Group(top, count, size, name)
                for top, count, size, name in zip(tops, replicas, sizes, chosen, strict=True)
            )
        )


def _work(low: int, top: int, size: int, shares: Shares, forms: Mapping[str, Form]) -> dict[str, float]:
    """Instance-seconds per request of the whole mix that fall into this bucket, by form."""
    mine = [(length, share) for length, share in shares if low < length <= top]
    tokens = Batching().max_batch_tokens
    return {
        name: sum(share * batched_seconds(form, size, length, tokens) for length, share in mine)
        for name, form in forms.items()
    }


def _fastest(work: Mapping[str, float], forms: Mapping[str, Form]) -> str:
    """The most exact of those that tie with the fastest, as `models.choose` has it."""
    least = min(work.values())
    tied = [name for name, seconds in work.items() if seconds <= least * TIE]
    return max(tied, key=lambda name: (round(forms[name].exactness, 4), -work[name]))


def _replicas(loads: Sequence[float], sizes: Sequence[int], cores: int) -> list[int]:
    """Instances of these sizes, one at least of each, so that the load per core is as even as can be: whoever has most gets the next."""
    counts = [1] * len(sizes)
    left = cores - sum(sizes)
    while True:
        fitting = [at for at, size in enumerate(sizes) if size <= left]
        if not fitting:
            return counts
        at = max(fitting, key=lambda at: (loads[at] / (counts[at] * sizes[at]), -at))
        counts[at] += 1
        left -= sizes[at]


def _round(lengths: Sequence[int], at: int) -> int:
    """A bound behind this length and before the next one: a multiple of 16 if there is one, or of 8, or of 4."""
    for step in (16, 8, 4):
        if (bound := -(-lengths[at] // step) * step) < lengths[at + 1]:
            return bound
    return lengths[at]


def _quantile(lengths: Sequence[int], weights: Sequence[float], share: float) -> int:
    """The length up to which this share of the weight lies."""
    wanted, so_far = share * sum(weights), 0.0
    for length, weight in zip(lengths, weights, strict=True):
        so_far += weight
        if so_far >= wanted * (1 - 1e-9):
            return length
    return lengths[-1]


def _batching_gains_until(form: Form, lengths: Sequence[int]) -> int | None:
    """The longest length at which two in a batch take less than two alone, by what the router wants; None if none does or all."""
    gaining = [
        length
        for length in lengths
        if form.costs.seconds(1, False, 2, length) < (2 - _GAIN) * form.costs.seconds(1, False, 1, length)
    ]
    return gaining[-1] if gaining and gaining[-1] != lengths[-1] else None
