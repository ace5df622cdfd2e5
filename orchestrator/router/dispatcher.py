"""Who gets what waits, and when? Pure.

Every path that makes work or makes room ends in `pump`: it moves items from one lane to whoever may take them (an idle
home; an idle other instance, where the policy lets it take over; a home that will be free within moments) until nothing can
move. Nothing is decided earlier than it has to be.
"""

from __future__ import annotations

from math import inf
from typing import Final

from orchestrator.router.events import QUEUED, Action, Dispatch, Flight, Item, Reason, Refuse, Request, Seconds
from orchestrator.router.instances import Instance, Lane
from orchestrator.router.ledger import Ledger
from orchestrator.router.policy import (
    HomeOutlook,
    classes_to_steal,
    leave_to_a_busy_one,
    light_while_stuck,
    prefetch_from,
    time_to_relieve,
    time_to_steal,
)
from orchestrator.router.queue import MAX_BATCH
from orchestrator.router.roster import NO_LANE, Roster

# An idle instance that left work to a busy one looks again this often: after the next event, in case that one is late.
# It bounds what looking costs where many instances idle beside a long queue that is not theirs.
_LOOK_AGAIN_SECONDS: Final = 0.5e-3
_LEAST_WAKE_SECONDS: Final = 1e-3


class Dispatcher:
    """`first_batch_id`: see `RouterCore`."""

    def __init__(self, roster: Roster, ledger: Ledger, first_batch_id: int) -> None:
        self._roster = roster
        self._ledger = ledger
        self._next_batch = first_batch_id
        self.hurry = False
        """Draining: nothing is held back for the sake of a fuller batch."""

    def pump(self, lane: Lane, now: Seconds, actions: list[Action]) -> None:
        """Moves what waits in this lane until nothing can move."""
        roster, queue = self._roster, lane.queue
        while queue.size:
            if lane.idle:
                if roster.plan.max_queue_delay_ms and now < self._held_until(lane):
                    return
                if self._start_at_home(lane, now, actions):
                    continue
            if (
                roster.idle > len(lane.idle)
                and roster.rules.steals
                and now >= lane.steal_due
                and self._start_elsewhere(lane, now, actions)
            ):
                continue
            if now >= lane.prefetch_due and self._prefetch(lane, now, actions):
                continue
            return

    def pump_all(self, now: Seconds, actions: list[Action]) -> None:
        if self._ledger.counts.queued:
            for lane in self._roster.lanes:
                if lane.queue.size:
                    self.pump(lane, now, actions)

    def feed(self, instance: Instance, now: Seconds, actions: list[Action]) -> None:
        """An instance has room after a batch: first for light work that is stuck, then for its own lane's, then for the others',
        whose oldest has waited longest first."""
        lane = instance.lane
        if lane is None or not instance.serves:
            return
        queue = lane.queue
        if instance.running is None:
            self._relieve(instance, now, actions)
        if queue.size:
            self.pump(lane, now, actions)
        if instance.running is not None:
            due = prefetch_from(instance)
            if due <= now and queue.size and queue.has(instance.classes):
                if not self._relieve(instance, now, actions):
                    self._launch(instance, lane, now, actions)
                due = prefetch_from(instance)
            if due < lane.prefetch_due:
                lane.prefetch_due = due
            return
        if not self._ledger.counts.queued:
            return
        if self._roster.rules.steals:
            waiting = [
                (head.request.turn, head.rank, other.index)
                for other in self._roster.lanes
                if other is not lane and other.queue.size and (head := other.queue.oldest(instance.classes))
            ]
            for _, _, index in sorted(waiting):
                self.pump(self._roster.lanes[index], now, actions)

    def next_due(self, now: Seconds) -> Seconds:
        """When `pump_all` may move something if nothing else happens; infinity if never."""
        due = inf
        roster = self._roster
        if self._ledger.counts.queued:
            for lane in roster.lanes:
                if lane.queue.size:
                    due = min(due, lane.prefetch_due)
                    if lane.idle:
                        held = self._held_until(lane)
                        due = min(due, held if held > now else now + _LEAST_WAKE_SECONDS)
                    elif roster.rules.steals and roster.idle:
                        due = min(due, lane.steal_due)
        return max(due, now + _LEAST_WAKE_SECONDS)

    # ---- the ways out of a lane ---------------------------------------------------------------------------------

    def _held_until(self, lane: Lane) -> Seconds:
        """How long a batch that is not full is kept back (max_queue_delay_ms); −infinity if it need not be."""
        plan = self._roster.plan
        if not plan.max_queue_delay_ms or self.hurry or lane.queue.tokens >= plan.max_batch_tokens:
            return -inf
        return lane.queue.oldest_arrival() + plan.max_queue_delay_ms * 1e-3

    def _start_at_home(self, lane: Lane, now: Seconds, actions: list[Action]) -> bool:
        queue, roster = lane.queue, self._roster
        for instance in self._idle_homes(lane):
            head = queue.oldest(instance.classes)
            if head is None:
                continue
            if roster.rules.fastest_first and leave_to_a_busy_one(instance, lane, head, now):
                return False
            most = MAX_BATCH
            if queue.size > 1 and roster.idle > 1:
                # A client's batch is split over those that are idle: [B, S] becomes N × [B/N, S].
                most = -(-queue.size // self._helpers(lane, instance, head))
            self._launch(instance, lane, now, actions, most=most)
            return True
        return False

    def _idle_homes(self, lane: Lane) -> list[Instance]:
        if self._roster.rules.fastest_first and len(lane.idle) > 1:
            return sorted(lane.idle, key=_slowness)
        return lane.idle[::-1]

    def _helpers(self, lane: Lane, instance: Instance, head: Item) -> int:
        """How many idle instances could share what waits in this lane, `instance` among them."""
        helpers = len(lane.idle)
        if self._roster.rules.steals and self._roster.idle > helpers:
            enough = 2.0 * instance.predictor.seconds(head.length, 1)
            for other in self._roster.lanes:
                if other is not lane:
                    for one in other.idle:
                        if one.holds >= head.length and one.predictor.seconds(head.length, 1) <= enough:
                            helpers += 1
        return helpers

    def _start_elsewhere(self, lane: Lane, now: Seconds, actions: list[Action]) -> bool:
        """Gives the lane's oldest to the idle instance of another lane that computes it soonest, if that pays."""
        best: Instance | None = None
        best_alone, best_spare, best_classes = inf, 0.0, 0
        outlook: HomeOutlook | None = None
        for other in self._roster.lanes:
            if other is lane:
                continue
            for thief in other.idle:
                if outlook is None:
                    outlook = HomeOutlook.of(lane, now)
                classes = classes_to_steal(thief, lane, outlook, now)
                while (head := lane.queue.oldest(classes)) is not None:
                    alone = thief.predictor.seconds(head.length, 1)
                    if alone >= best_alone:
                        break
                    spare = time_to_steal(thief, lane, head, outlook, now)
                    if spare > 0.0:
                        best, best_alone, best_spare, best_classes = thief, alone, spare, classes
                        break
                    # Too heavy to pay; what is lighter may.
                    classes &= (1 << lane.classes.of(head.length)) - 1
        if best is None:
            lane.steal_due = now + _LOOK_AGAIN_SECONDS
            return False
        self._launch(best, lane, now, actions, seconds=best_spare, classes=best_classes)
        return True

    def _prefetch(self, lane: Lane, now: Seconds, actions: list[Action]) -> bool:
        best: Instance | None = None
        best_due = due = inf
        for home in lane.homes:
            at = prefetch_from(home)
            if at <= now and at < best_due and lane.queue.has(home.classes):
                best, best_due, at = home, at, best_due
            if at < due:
                due = at
        lane.prefetch_due = due
        if best is None:
            return False
        if self._relieve(best, now, actions):
            return True
        self._launch(best, lane, now, actions)
        if best.prefetched is None:  # all of it had expired
            lane.prefetch_due = min(due, best_due)
        return True

    def _relieve(self, helper: Instance, now: Seconds, actions: list[Action]) -> bool:
        """Gives an instance that has room the light work of a smaller bucket whose homes are all in something heavy."""
        roster, own = self._roster, helper.lane
        if not roster.rules.steals or own is None:
            return False
        for lane in roster.lanes:
            if not lane.queue.size or lane.idle or lane is own or lane.homes[0].bucket[1] >= helper.bucket[1]:
                continue
            head = lane.queue.oldest(helper.classes)
            if head is None:
                continue
            seconds = time_to_relieve(helper, lane, head, now)
            if seconds > 0.0:
                held = len(actions)
                self._launch(helper, lane, now, actions, seconds=seconds)
                return len(actions) > held and helper.running is not None
        return False

    def _own_classes(self, instance: Instance, lane: Lane, now: Seconds) -> int:
        """The classes of which an instance takes the next batch of its own lane: first what is light, while a smaller bucket may soon
        need somebody to relieve it."""
        for other in self._roster.lanes if self._roster.rules.steals else ():
            if other.bucket[1] < lane.bucket[1]:
                classes = instance.classes & light_while_stuck(other, instance.free_at(now))
                if classes != instance.classes and lane.queue.has(classes):
                    return classes
        return instance.classes

    def _launch(
        self,
        instance: Instance,
        lane: Lane,
        now: Seconds,
        actions: list[Action],
        *,
        most: int = MAX_BATCH,
        seconds: Seconds = inf,
        classes: int | None = None,
    ) -> None:
        """Takes the next batch from the lane for an instance that has room; at most `most` sequences, only of `classes` (a bit mask)
        where they are given, and no more than can be computed in `seconds` joins the oldest."""
        predictor = instance.predictor
        if classes is None:
            classes = self._own_classes(instance, lane, now) if instance.lane is lane else instance.classes
        batch = lane.queue.take(
            classes,
            predictor.shape,
            max_tokens=self._roster.plan.max_batch_tokens,
            max_n=most,
            max_seconds=predictor.room(seconds),
        )
        longest = 0
        arrived = 0.0
        for item in batch:
            item.lane = NO_LANE
            arrived += item.request.arrived
            if item.length > longest:
                longest = item.length
        if now >= self._ledger.next_deadline:
            batch = self._still_wanted(batch, now, actions)
            if not batch:
                return
            longest = max([item.length for item in batch])
            arrived = sum([item.request.arrived for item in batch])
        self._ledger.launched(batch)
        n = len(batch)
        predicted = predictor.seconds(longest, n)
        home = instance.lane
        counts = lane.counts
        counts.dispatched += n
        counts.wait_seconds += now * n - arrived
        if home is not lane:
            counts.spilled += n
        flight = Flight(
            self._next_batch,
            instance.name,
            instance.incarnation,
            batch,
            longest,
            predicted,
            now,
            now,
            home is lane,
        )
        self._next_batch += 1
        if instance.running is None:
            instance.running = flight
            self._roster.rouse(instance)
            if home is not None:
                home.prefetch_due = min(home.prefetch_due, prefetch_from(instance))
        else:
            flight.started = inf
            instance.prefetched = flight
        actions.append(Dispatch(flight))

    # ---- what is not wanted any more ----------------------------------------------------------------------------

    def _still_wanted(self, batch: list[Item], now: Seconds, actions: list[Action]) -> list[Item]:
        """Refuses what has passed its deadline: it is never computed. The rest of the batch goes on."""
        for item in batch:
            request = item.request
            if request.deadline <= now and request.unsettled:
                self.refuse_late(request, actions)
        return [item for item in batch if item.state is QUEUED]

    def refuse(
        self, request: Request, reason: Reason, message: str, actions: list[Action], retry_after_ms: int = 0
    ) -> None:
        """Ends an accepted request that still has unanswered sequences."""
        self.drop(self._ledger.close(request, reason))
        actions.append(Refuse(request, reason, message, retry_after_ms))

    def refuse_late(self, request: Request, actions: list[Action]) -> None:
        """Ends a request whose deadline has passed."""
        serving = any(instance.serves for instance in self._roster.instances.values())
        message = f"{request.timeout_ms} ms have passed" + ("" if serving else " and no instance was there to serve it")
        self.drop(self._ledger.close(request, "deadline"))
        actions.append(Refuse(request, "deadline", message))

    def drop(self, items: list[Item]) -> None:
        """Lets go of items that were settled while they waited."""
        lanes = self._roster.lanes
        left = [item for item in items if item.lane != NO_LANE]
        for item in left:
            lanes[item.lane].queue.forget(item)
        for index in {item.lane for item in left}:
            lanes[index].queue.sweep()


def _slowness(instance: Instance) -> Seconds:
    return instance.predictor.seconds(128, 1)
