"""May this request come in? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf
from typing import Final

import msgspec

from orchestrator.router.events import Reason, Request, Seconds
from orchestrator.router.flows import CLASSES

_LONGEST_RETRY_MS: Final = 60_000


class Refusal(msgspec.Struct, frozen=True):
    reason: Reason
    message: str
    retry_after_ms: int = 0


class Limits(msgspec.Struct, frozen=True):
    """What the router can take at this moment."""

    longest: int
    """Tokens that the largest planned instance holds; 0 if none is planned."""
    queue_limit: int
    """Sequences that may wait."""
    draining: bool = False


def refusal(request: Request, longest: int, limits: Limits, queued: int) -> Refusal | None:
    """Why this request, whose longest sequence has `longest` tokens, cannot come in; None if it can.

    Reasons that a retry cannot mend come before those that it can.
    """
    n = len(request.lengths)
    if longest <= limits.longest and queued + n <= limits.queue_limit and not limits.draining:
        return None
    if limits.draining:
        return Refusal("draining", "the orchestrator is draining: it answers what it has and takes nothing new", 1000)
    if limits.longest == 0:
        return Refusal("no_instance", "the plan has no instance that could compute anything", 1000)
    if longest > limits.longest:
        return Refusal(
            "too_long",
            f"a sequence of {longest} tokens; the largest instance holds {limits.longest}: shorten or truncate it",
        )
    if n > limits.queue_limit:
        return Refusal(
            "too_long",
            f"{n} sequences in one request; the queue holds {limits.queue_limit}: send at most {limits.queue_limit} at once",
        )
    return Refusal("queue_full", f"{queued} sequences wait and {n} more exceed the limit of {limits.queue_limit}")


def whom_to_displace(held: Mapping[int, int], mine: int | None, priority: int, n: int, need: int) -> int | None:
    """The flow that gives up its newest request so that `n` sequences can come into a full queue; None if nobody has to.

    Overload degrades in order: first the least urgent class gives way, then, among equals, the tenant that has most waiting, as
    long as it still has more than the newcomer will have (longest queue drop: Suter et al., INFOCOM 1998).

    :param held: flow → sequences waiting
    :param mine: the newcomer's flow, None if nothing of its tenant is in progress
    :param need: sequences that have to go
    """
    below = [(flow % CLASSES, size, flow) for flow, size in held.items() if flow % CLASSES > priority]
    if sum(size for _, size, _ in below) >= need:
        return max(below)[2]
    share = n + (held.get(mine, 0) if mine is not None else 0)
    equals = [(size, flow) for flow, size in held.items() if flow % CLASSES == priority and flow != mine]
    size, flow = max(equals, default=(0, -1))
    return flow if size - need >= share else None


def too_late(request: Request, finish: Seconds, now: Seconds) -> Refusal | None:
    """Refuses a request that is predicted to finish, at the earliest, after its deadline."""
    if finish <= request.deadline:
        return None
    return Refusal(
        "deadline",
        f"{(finish - now) * 1e3:.0f} ms until an answer at the earliest, {request.timeout_ms} ms are allowed",
        retry_after_ms(finish - now),
    )


def retry_after_ms(backlog_seconds: Seconds) -> int:
    """How long a client should wait before it tries again: until half of the backlog is gone, at least 1 ms."""
    if backlog_seconds == inf:
        return 1000
    return min(max(1, ceil(backlog_seconds * 500)), _LONGEST_RETRY_MS)
