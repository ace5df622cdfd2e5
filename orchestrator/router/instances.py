"""What does the router know of one instance, and of the lane that instances call home? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from orchestrator.plan.model import PlannedInstance
from orchestrator.router.buckets import LengthClasses
from orchestrator.router.cost import CostTable, Predictor, Shape, fitted
from orchestrator.router.events import Flight, Seconds
from orchestrator.router.flows import FlowQueue
from orchestrator.router.meter import BucketCounts, InstanceCounts
from workers.wire import Cost

NO_INCARNATION = -1


class Lane:
    """A queue and the instances that it belongs to."""

    __slots__ = ("bucket", "classes", "counts", "homes", "idle", "index", "prefetch_due", "queue", "steal_due")

    def __init__(
        self, index: int, homes: list[Instance], classes: LengthClasses, bucket: tuple[int, int], counts: BucketCounts
    ) -> None:
        self.index = index
        self.homes = homes
        self.bucket = bucket
        """Lengths that its homes are for; (0, 0) where that is all."""
        self.classes = classes
        self.counts = counts
        """Outlive the lane: a plan may make it anew."""
        self.idle: list[Instance] = []
        """Connected homes that compute nothing, the last to become idle at the end."""
        self.queue = FlowQueue(classes)
        self.prefetch_due: Seconds = inf
        """No home can take a batch in advance before this time."""
        self.steal_due: Seconds = -inf
        """No other instance looks for work here before this time: it has just looked and left it to the homes."""


class Instance:
    """One model instance, over all its incarnations."""

    __slots__ = (
        "bucket", "classes", "connected", "counts", "dead", "holds", "incarnation", "label", "lane", "measured", "name",
        "pid", "planned", "predictor", "prefetched", "running", "said", "serves",
    )  # fmt: skip

    def __init__(self, planned: PlannedInstance, costs: CostTable) -> None:
        self.name: str = planned.name
        self.label = planned.name.encode()
        self.bucket = (0, 0)
        self.planned = True
        """False after it was taken out of the plan: it gets nothing more, and what it holds is awaited."""
        self.holds = 0
        """The longest sequence it can compute."""
        self.said: int | None = None
        """The longest sequence its worker said it can compute."""
        self.incarnation = NO_INCARNATION
        self.dead = NO_INCARNATION
        """The latest incarnation that is known to have ended; nothing is taken from it or one before it."""
        self.pid = 0
        self.connected = False
        self.serves = False
        """Connected, and nobody has asked to withhold work from it."""
        self.running: Flight | None = None
        self.prefetched: Flight | None = None
        self.lane: Lane | None = None
        self.classes = 0
        """Bit mask of the classes of lengths it can compute."""
        self.measured: Shape | None = None
        """What its worker measured; goes before any table."""
        self.predictor = Predictor(costs.shape(planned.name, planned.threads))
        self.counts = InstanceCounts()
        self.configure(planned, costs)

    def configure(self, planned: PlannedInstance, costs: CostTable) -> None:
        """Takes over what a plan, perhaps a changed one, says of it."""
        self.planned = True
        self.bucket = (planned.bucket.min, planned.bucket.max) if planned.bucket else (0, 0)
        shape = self.measured or costs.shape(planned.name, planned.threads)
        if shape != self.predictor.shape:
            self.predictor = Predictor(shape)
        # What a worker says of itself can only lower what the plan says: it sizes tables here.
        self.holds = planned.max_seqlen if self.said is None else max(0, min(self.said, planned.max_seqlen))

    def learn(self, costs: Sequence[Cost]) -> bool:
        """Takes over what its worker measured; False if that cannot be of an engine, and nothing changes."""
        shape = fitted(costs)
        if shape is None:
            return False
        self.measured = shape
        if shape != self.predictor.shape:
            self.predictor = Predictor(shape)
        return True

    @property
    def idle(self) -> bool:
        """It could take work at once."""
        return self.serves and self.running is None

    @property
    def in_flight(self) -> int:
        """Sequences that its worker holds."""
        return (len(self.running.items) if self.running else 0) + (len(self.prefetched.items) if self.prefetched else 0)

    def free_at(self, now: Seconds) -> Seconds:
        """When it will have computed all it holds, as far as can be predicted.

        A batch that is overdue is expected to take a quarter of the time again that it is late by: the later it is, the
        less is expected of it, and work goes elsewhere.
        """
        running = self.running
        if running is None:
            return now
        end = running.started + running.predicted
        if end < now:
            end = now + 0.25 * (now - end)
        if self.prefetched is not None:
            end += self.prefetched.predicted
        return end
