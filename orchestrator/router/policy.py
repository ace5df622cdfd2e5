"""Who may take what? Pure.

A policy is a row of this table; the core asks the functions below and knows no policy by name.

- by-seqlen: one lane per bucket, shared by its replicas. Buckets are a preference (Harchol-Balter et al., SIGMETRICS 2009:
  strict assignment by size loses to least-work-left when the mix drifts), so an idle instance of another bucket takes work
  that it will finish earlier than its home would, by a margin.
- by-seqlen-strict: the same without taking over.
- shortest-completion: one lane; an idle instance leaves the oldest sequence to a faster one that is busy if that one
  would be through with all that waits before this one were with a single sequence.
- least-loaded: one lane; whoever is idle takes the oldest sequence.
- round-robin: one lane per instance; each sequence is given to the next one in rotation when it arrives. What peers do.
"""

from __future__ import annotations

from math import inf
from typing import Final, Literal

import msgspec

from orchestrator.plan.model import Policy
from orchestrator.router.buckets import LengthClasses
from orchestrator.router.cost import Shape
from orchestrator.router.events import Item, Seconds
from orchestrator.router.instances import Instance, Lane


class Rules(msgspec.Struct, frozen=True):
    lanes: Literal["bucket", "instance", "one"]
    steals: bool = False
    fastest_first: bool = False
    """Among idle homes the fastest, and none if a busy one would still be earlier."""


RULES: Final[dict[Policy, Rules]] = {
    "by-seqlen": Rules("bucket", steals=True),
    "by-seqlen-strict": Rules("bucket"),
    "shortest-completion": Rules("one", fastest_first=True),
    "least-loaded": Rules("one"),
    "round-robin": Rules("instance"),
}

# Taking over pays only if it is earlier by this much: a prediction is off by a tenth or so, and a message takes 0.2 ms.
MARGIN_SHARE: Final = 0.1
MARGIN_SECONDS: Final = 0.3e-3
# A batch is given in advance when its worker will be free this soon: a round trip to a worker takes 0.2 ms and the poller's timer
# 1 ms. Any earlier, and it could still have grown in the queue, or been taken by somebody else.
PREFETCH_SECONDS: Final = 2e-3
# And so many times what its batches take besides the engine: a router that shares its cores with workers has its turn late, and the
# worst is a few times the mean. On two cores that two workers fill it is 0.5 to 1 ms; 2 to 3 % more requests/s on mixed load than
# without this, as many as with 4 ms everywhere.
PREFETCH_OVERHEADS: Final = 3.0


# What takes a smaller instance more than this many times its own longest is heavy for it. It takes that over only if the home of
# the heavy is free again within the same time; and while it is in it, the home begins nothing heavy as long as something light
# waits: then two heavy batches seldom run together, and somebody can relieve the light.
# Measured on two cores (int8, mixed, 16 in flight, 8 rounds of 6 s): 16, 14 and 12 give p99 of short 24.3, 23.8 and 22.2 ms, p99 of long
# 199, 212 and 238 ms; in other runs 10 gave 21 to 24 and 231 to 318, and round-robin 118 and 161.
PATIENCE: Final = 13.0
# Light work whose homes are in something heavy is relieved if it would still wait for this many times what it takes.
# By simulation (1x2, int8, mixed, 16 in flight), with a patience of 16: p99 of short 36 to 22 ms, throughput the same.
RELIEF: Final = 4.0


ALL_CLASSES: Final = -1


class HomeOutlook(msgspec.Struct, frozen=True):
    """When the homes of a lane that serve will have time for what waits in it."""

    free_at: Seconds
    """When the first of them is free; infinity without any."""
    through_at: Seconds
    """When they would be through with all that waits."""
    speed: float = 0.0
    """How many times as fast as their shape all of them are together."""

    @staticmethod
    def of(lane: Lane, now: Seconds) -> HomeOutlook:
        free, speed, shape = inf, 0.0, None
        for home in lane.homes:
            if home.serves:
                free = min(free, home.free_at(now))
                speed += 1.0 / home.predictor.factor
                shape = home.predictor.shape
        if shape is None:
            return HomeOutlook(inf, inf)
        return HomeOutlook(free, free + lane.queue.backlog(shape) / speed, speed)


def quickest(lane: Lane, length: int) -> Seconds:
    """Seconds that the fastest home that serves takes for one sequence; infinity without any."""
    return min(
        (home.predictor.seconds(length, 1) for home in lane.homes if home.serves and home.holds >= length),
        default=inf,
    )


def classes_to_steal(thief: Instance, lane: Lane, outlook: HomeOutlook, now: Seconds) -> int:
    """Bit mask of the classes that the idle `thief` may take over from `lane` now: a smaller instance takes nothing heavy while
    nobody could relieve its own short sequences soon (PATIENCE).
    """
    own = thief.bucket[1]
    if not 0 < own < lane.homes[0].bucket[1] or outlook.free_at == inf:
        return thief.classes
    shape = thief.predictor.shape
    if outlook.free_at - now <= _patience(own, shape) * thief.predictor.factor:
        return thief.classes
    return thief.classes & _light(lane.classes, own, shape)


def _patience(own: int, shape: Shape) -> Seconds:
    return PATIENCE * shape.seconds(own, 1)


def _light(classes: LengthClasses, own: int, shape: Shape) -> int:
    """Bit mask of the classes that are not heavy for an instance of this shape whose bucket ends at `own`."""
    patience = _patience(own, shape)
    light = 0
    for index, limit in enumerate(classes.limits):
        if shape.seconds(limit, 1) > patience:
            break
        light |= 1 << index
    return light


def light_while_stuck(lane: Lane, start: Seconds) -> int:
    """Bit mask of the classes that a larger instance, which has room at `start`, may begin in view of a smaller bucket's `lane`: nothing
    that is heavy there while all its homes are in something heavy that they took over."""
    soonest, shape = inf, None
    for home in lane.homes:
        if home.serves:
            if home.running is None or home.running.home:
                return ALL_CLASSES
            soonest = min(soonest, home.free_at(start))
            shape = home.predictor.shape
    own = lane.bucket[1]
    if shape is None or soonest - start <= _patience(own, shape):
        return ALL_CLASSES
    return _light(lane.classes, own, shape)


def time_to_steal(thief: Instance, lane: Lane, item: Item, outlook: HomeOutlook, now: Seconds) -> Seconds:
    """How many seconds of work the idle `thief` may take over from `lane`, beginning with `item`; 0 = it should not.

    A larger instance is measured against the time when home would be through with all that waits. A smaller one, whose
    short sequences would wait behind what it takes, only against the time when home would be through with this one.
    """
    if outlook.free_at == inf:
        return inf
    alone = thief.predictor.seconds(item.length, 1)
    end = outlook.free_at + quickest(lane, item.length)
    if thief.bucket[1] >= lane.homes[0].bucket[1]:
        end = max(end, outlook.through_at)
    spare = end - now - MARGIN_SECONDS - MARGIN_SHARE * alone
    return spare if spare > alone else 0.0


def time_to_relieve(helper: Instance, lane: Lane, item: Item, now: Seconds) -> Seconds:
    """How many seconds of light work `helper` should take from a smaller bucket's lane before it turns to its own; 0 = none.

    `helper` has room now, or will have it when what it runs is done. Only where the homes are all in something that they took over:
    homes that are busy with their own are not stuck, and a full bucket must not starve the larger ones.
    """
    for home in lane.homes:
        if home.serves and (home.running is None or home.running.home):
            return 0.0
    alone = helper.predictor.seconds(item.length, 1)
    waits = HomeOutlook.of(lane, now).free_at - helper.free_at(now)
    return RELIEF * alone if waits > RELIEF * alone else 0.0


def earliest_finish(lanes: list[Lane], length: int, flow: int | None, priority: int, now: Seconds) -> Seconds:
    """The earliest time at which a sequence that arrives now could be answered; `now` where too little was observed.

    `flow` is that of its tenant and priority, None if the tenant has nothing in progress. Deliberately hopeful: it
    starts at once where anybody is free, or after the shortest of all lanes otherwise, so that what is refused at the
    door could not have been served.
    """
    best = inf
    for lane in lanes:
        homes = [home for home in lane.homes if home.serves and home.holds >= length]
        if not homes:
            continue
        if not all(home.predictor.trusted for home in homes):
            return now
        outlook = HomeOutlook.of(lane, now)
        # Batches gain against one at a time; half of it is more than they were ever seen to.
        ahead = lane.queue.ahead_of(flow, priority, homes[0].predictor.shape)
        start = outlook.free_at + 0.5 * ahead / outlook.speed
        best = min(best, start + quickest(lane, length))
    return now if best == inf else best


def leave_to_a_busy_one(candidate: Instance, lane: Lane, item: Item, now: Seconds) -> bool:
    """Whether a busy home would clearly be through with all that waits before the idle `candidate` were with `item` alone."""
    # By a margin, as when taking over: without it, among 192 alike the noise of their corrections alone kept idle ones idle
    # (`simulate --machine 8x25 --instances 192`: p95 66 ms instead of 42).
    finish = now + (1.0 - MARGIN_SHARE) * candidate.predictor.seconds(item.length, 1)
    for other in lane.homes:
        if other.serves and other.running is not None and other.holds >= item.length:
            backlog = lane.queue.backlog(other.predictor.shape) * other.predictor.factor
            if other.free_at(now) + backlog + MARGIN_SECONDS < finish:
                return True
    return False


def prefetch_from(instance: Instance) -> Seconds:
    """When this busy instance may be given a batch in advance; infinity if it holds one already, or gets none."""
    running = instance.running
    if running is None or instance.prefetched is not None or not instance.serves:
        return inf
    return running.started + running.predicted - PREFETCH_SECONDS - PREFETCH_OVERHEADS * instance.predictor.overhead
