"""What can a layout do at most, and about, without simulating it? Pure.

Two cheap answers thin out hundreds of proposals before the first one is simulated.

The *bound* is work conservation: no schedule serves more than cores ÷ the core-seconds that the mix takes where each length is computed by
whichever group computes it most cheaply.

The *estimate* takes each bucket for a queue with `c` servers: Sakasegawa's approximation of the mean wait (Annals of the Institute of
Statistical Mathematics 29, 1977), P(wait) ≈ ρ^(√(2(c+1))−1), an exponential tail behind it, and service times as varied as the
lengths make them. Since `by-seqlen` lets idle instances help, a bucket counts as loaded half by itself and half as all are. It
ranks; it is never reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt

from orchestrator.tune.proposal import Form, Group, Proposal

_BATCHES = (1, 2, 4, 8, 16)
Shares = Sequence[tuple[int, float]]
"""Lengths in ascending order, each with its share of the requests."""


def batched_seconds(form: Form, cores: int, length: int, max_batch_tokens: int) -> float:
    """Per sequence, in the best batch that may be made, while all other cores compute as well."""
    costs = form.costs
    best = min(costs.seconds(cores, False, n, length) / n for n in _BATCHES if n == 1 or n * length <= max_batch_tokens)
    return best * costs.crowding(length)


def bound(proposal: Proposal, shares: Shares, forms: Mapping[str, Form]) -> float:
    """Requests per second that this layout cannot exceed."""
    kinds = {(group.cores, group.form) for group in proposal.groups}
    return bound_of(kinds, proposal.cores, proposal.max_batch_tokens, shares, forms)


def bound_of(
    kinds: Iterable[tuple[int, str]], cores: int, max_batch_tokens: int, shares: Shares, forms: Mapping[str, Form]
) -> float:
    """Of instances of these `kinds` (cores of each, form) that have so many cores together."""
    each = list(kinds)
    work = sum(
        share * min(size * batched_seconds(forms[form], size, length, max_batch_tokens) for size, form in each)
        for length, share in shares
    )
    return cores / work


@dataclass(frozen=True)
class _Queue:
    servers: int
    cores: int
    share: float
    mean: float
    """Seconds of service."""
    variation: float
    """Squared coefficient of variation of it."""
    heaviest: tuple[tuple[float, float], ...]
    """Per class of lengths in it: seconds of its longest one alone, and the limit in seconds."""


def queues(
    proposal: Proposal, shares: Shares, forms: Mapping[str, Form], kinds: Mapping[str, int], limits: Mapping[str, float]
) -> list[_Queue]:
    """`kinds`: the longest sequence of each class; `limits`: milliseconds for its p99."""
    found = []
    low = 0
    for group in proposal.groups:
        mine = [(length, share) for length, share in shares if low < length <= group.top]
        top = max((length for length, _ in mine), default=0)
        served = [
            (_alone(forms, group, min(longest, top)), limits[kind] / 1e3)
            for kind, longest in kinds.items()
            if mine and longest > low and min(longest, top) > 0
        ]
        low = group.top
        share = sum(each for _, each in mine)
        if not share:
            found.append(_Queue(group.replicas, group.cores, 0.0, 0.0, 0.0, ()))
            continue
        times = [
            (batched_seconds(forms[group.form], group.cores, length, proposal.max_batch_tokens), each / share)
            for length, each in mine
        ]
        mean = sum(seconds * each for seconds, each in times)
        square = sum(seconds * seconds * each for seconds, each in times)
        found.append(_Queue(group.replicas, group.cores, share, mean, max(0.0, square / mean**2 - 1.0), tuple(served)))
    return found


def pressure(of: Sequence[_Queue], rate: float) -> float:
    """About, at so many requests per second; infinite where the work does not fit."""
    work = sum(queue.share * queue.mean * queue.cores for queue in of)
    overall = rate * work / sum(queue.servers * queue.cores for queue in of)
    worst = 0.0
    for queue in of:
        if not queue.share:
            continue
        own = rate * queue.share * queue.mean / queue.servers
        load = 0.5 * (own + overall)
        if load >= 1.0:
            return inf
        waits = load ** (sqrt(2.0 * (queue.servers + 1)) - 1.0)
        tail = queue.mean * (1.0 + queue.variation) / (2.0 * queue.servers * (1.0 - load))
        wait = tail * log(100.0 * waits) if waits > 0.01 else 0.0
        worst = max(worst, *((alone + wait) / limit for alone, limit in queue.heaviest), 0.0)
    return worst


def reach(of: Sequence[_Queue], most: float) -> float:
    """About the highest rate, up to `most`, at which the pressure is at most 1; next to nothing if there is none."""
    low, high = 1e-6 * most, most
    if pressure(of, low) > 1.0:
        # Its lone requests are too slow already. Among such the nearer one goes first.
        return low / pressure(of, low)
    for _ in range(24):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if pressure(of, middle) <= 1.0 else (low, middle)
    return low


def _alone(forms: Mapping[str, Form], group: Group, length: int) -> float:
    return forms[group.form].costs.seconds(group.cores, False, 1, length)
