"""Which instances are there, and which lane does each call home? Pure."""

from __future__ import annotations

from typing import assert_never

from orchestrator.plan.model import Plan
from orchestrator.router.buckets import Home, LengthClasses, lane_by_length
from orchestrator.router.cost import CostTable
from orchestrator.router.events import Item, Seconds
from orchestrator.router.instances import Instance, Lane
from orchestrator.router.meter import BucketCounts
from orchestrator.router.policy import RULES, prefetch_from


class Roster:
    def __init__(self, plan: Plan, costs: CostTable) -> None:
        self._costs = costs
        self._rotation = 0
        self.instances: dict[str, Instance] = {}
        """All of the plan, and those outside it that are still connected."""
        self.lanes: list[Lane] = []
        self.idle = 0
        """Instances of the plan that serve and compute nothing."""
        self.withheld: set[str] = set()
        """Names of instances that get nothing new, over all their incarnations, planned or not, until they are released."""
        self._bucket_counts: dict[tuple[str, int, int], BucketCounts] = {}
        self.configure(plan)

    def configure(self, plan: Plan) -> None:
        """Makes instances and lanes from a plan. The lanes are empty afterwards: drain them first."""
        self.plan = plan
        self.rules = RULES[plan.policy]
        self._rotates = self.rules.lanes == "instance"
        for instance in self.instances.values():
            instance.planned = False
            instance.lane = None
        for planned in plan.instances:
            known = self.instances.get(planned.name)
            if known is None:
                self.instances[planned.name] = Instance(planned, self._costs)
            else:
                known.configure(planned, self._costs)
        self.forget_the_gone()
        members = [self.instances[planned.name] for planned in plan.instances]
        self.longest = max((instance.holds for instance in members), default=0)
        """Tokens that the largest instance holds; 0 with no instance."""
        ends = [min(instance.bucket[1] or self.longest, self.longest) for instance in members]
        classes = LengthClasses.over([*ends, *(instance.holds for instance in members)])
        self.lanes = []
        for index, homes in enumerate(self._homes(members)):
            buckets = {home.bucket for home in homes}
            bucket = buckets.pop() if len(buckets) == 1 else (0, 0)
            counts = self._bucket_counts.setdefault((self.rules.lanes, *bucket), BucketCounts())
            self.lanes.append(Lane(index, homes, classes, bucket, counts))
        for instance in self.instances.values():
            instance.classes = classes.held_by(instance.holds)
        self.idle = 0
        for lane in self.lanes:
            for home in lane.homes:
                home.lane = lane
                if home.idle:
                    self.rest(home)
                lane.prefetch_due = min(lane.prefetch_due, prefetch_from(home))
        self._lane_table = lane_by_length(
            [
                Home(max(home.bucket[1] or home.holds for home in lane.homes), max(home.holds for home in lane.homes))
                for lane in self.lanes
            ]
        )
        self._rotation = 0

    def _homes(self, members: list[Instance]) -> list[list[Instance]]:
        """Which instances share a lane."""
        match self.rules.lanes:
            case "instance":
                return [[instance] for instance in members]
            case "one":
                return [members] if members else []
            case "bucket":
                by_bucket: dict[tuple[int, int], list[Instance]] = {}
                for instance in members:
                    # Without a bucket an instance is for every length that it holds.
                    bucket = instance.bucket if instance.bucket[1] else (1, instance.holds)
                    by_bucket.setdefault(bucket, []).append(instance)
                return list(by_bucket.values())
            case _:
                assert_never(self.rules.lanes)

    def reconfigure_instance(self, instance: Instance, said: int) -> bool:
        """Takes over what a worker says it can hold; True if lanes have to be made anew."""
        holds = instance.holds
        instance.said = said
        for planned in self.plan.instances:
            if planned.name == instance.name:
                instance.configure(planned, self._costs)
        return instance.holds != holds

    def forget_the_gone(self) -> None:
        """Drops instances that are neither planned nor connected any more."""
        self.instances = {name: one for name, one in self.instances.items() if one.planned or one.connected}

    def rest(self, instance: Instance) -> None:
        """A connected instance computes nothing from now on; whether it may get work is `serves`."""
        if instance.serves and instance.lane is not None:
            instance.lane.idle.append(instance)
            self.idle += 1

    def rouse(self, instance: Instance) -> None:
        """An instance that was idle gets work, is withheld or goes away: call it before `serves` changes."""
        lane = instance.lane
        if instance.serves and lane is not None:
            if lane.idle[-1] is instance:
                lane.idle.pop()
            else:
                lane.idle.remove(instance)
            self.idle -= 1

    def lane_of(self, length: int) -> Lane:
        """Where a sequence of this length waits. LookupError if no instance holds it: refuse it first."""
        if not self._rotates:
            return self.lanes[self._lane_table[length]]
        return self._next_in_rotation(length)

    def _next_in_rotation(self, length: int) -> Lane:
        lanes = self.lanes
        fallback = None
        for step in range(self._rotation, self._rotation + len(lanes)):
            lane = lanes[step % len(lanes)]
            if lane.homes[0].holds >= length:
                if lane.homes[0].serves:
                    self._rotation = (lane.index + 1) % len(lanes)
                    return lane
                if fallback is None:
                    fallback = lane
        if fallback is None:
            raise LookupError(f"no instance holds {length} tokens")
        # Nobody who could take it serves: it waits with the next one in rotation, and `stranded` finds it there.
        self._rotation = (fallback.index + 1) % len(lanes)
        return fallback

    def put(self, items: list[Item]) -> None:
        """Queues items by rank, each before all that arrived after it."""
        by_lane: dict[int, list[Item]] = {}
        for item in items:
            item.lane = self.lane_of(item.length).index
            by_lane.setdefault(item.lane, []).append(item)
        for index, here in by_lane.items():
            self.lanes[index].queue.push_front(here)

    def take_all(self) -> list[Item]:
        """Everything that waits, taken out of the lanes, oldest first."""
        items = [item for lane in self.lanes for item in lane.queue.drain()]
        for item in items:
            item.lane = NO_LANE
        return sorted(items, key=_rank)

    def spread(self) -> None:
        """Where each instance has a lane of its own: gives what waits for one that does not serve to those that are there."""
        if self.rules.lanes != "instance" or not any(lane.homes[0].serves for lane in self.lanes):
            return
        stranded: list[Item] = []
        for lane in self.lanes:
            if lane.queue.size and not lane.homes[0].serves:
                stranded += lane.queue.drain()
        self.put(sorted(stranded, key=_rank))

    def held(self) -> dict[int, int]:
        """Flow → sequences waiting, over all lanes."""
        held: dict[int, int] = {}
        for lane in self.lanes:
            for flow, size in lane.queue.flows():
                held[flow] = held.get(flow, 0) + size
        return held

    def newest(self, flow: int) -> Item | None:
        """The sequence of a flow that came last, whatever lane it waits in."""
        found = [item for lane in self.lanes if (item := lane.queue.newest(flow)) is not None]
        return max(found, key=_rank, default=None)

    def backlog_seconds(self) -> Seconds:
        """How long all that waits will take, everybody helping; infinity if nobody serves."""
        speed = work = 0.0
        for lane in self.lanes:
            for home in lane.homes:
                if home.serves:
                    speed += 1.0 / home.predictor.factor
            work += lane.queue.backlog(lane.homes[0].predictor.shape)
        return work / speed if speed else float("inf")


NO_LANE = -1


def _rank(item: Item) -> int:
    return item.rank
