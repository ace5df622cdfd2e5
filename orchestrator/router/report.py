"""What does the router say of itself once a second? Pure."""

from __future__ import annotations

from orchestrator.plan.model import Bucket
from orchestrator.router.events import Seconds
from orchestrator.router.flows import CLASSES
from orchestrator.router.instances import Instance, Lane
from orchestrator.router.ledger import Ledger
from orchestrator.router.roster import Roster
from orchestrator.status import BucketReport, InstanceReport, RouterReport, RouterStatus
from workers.wire import PRIORITIES


def report_router(ledger: Ledger, roster: Roster, now: Seconds, state: str) -> RouterReport:
    """The numbers of `RouterStatus` and, per instance, of `InstanceReport`."""
    counts = ledger.counts
    status = RouterStatus(
        state,
        submitted=counts.submitted,
        queued=counts.queued,
        in_flight=counts.in_flight,
        settled=counts.settled,
        rejected=dict(counts.rejected),
        retried=counts.retried,
        duplicates=counts.duplicates,
        late_results=counts.late_results,
        wrong_rows=counts.wrong_rows,
        displaced=counts.displaced,
        tenants=len(ledger.tenants),
        buckets=_buckets(roster, now),
    )
    return RouterReport(status, [report_instance(one, now) for one in roster.instances.values()])


def report_instance(instance: Instance, now: Seconds) -> InstanceReport:
    """The numbers of one instance at this moment; rates and quantiles since about ten seconds ago."""
    counts, running = instance.counts, instance.running
    recent = counts.recent(now, now - running.started if running is not None else 0.0)
    depth, oldest_seconds = _share_of_lane(instance, now)
    return InstanceReport(
        instance.name,
        instance.incarnation,
        instance.connected,
        served=counts.served,
        sequences_per_second=recent.sequences_per_second,
        tokens_per_second=recent.tokens_per_second,
        latency_ms=recent.latency_ms,
        queue_depth=depth,
        oldest_wait_ms=oldest_seconds * 1e3,
        in_flight=instance.in_flight,
        batch_mean=counts.sequences / counts.batches if counts.batches else 0.0,
        padding_ratio=1.0 - counts.tokens / counts.padded_tokens if counts.padded_tokens else 0.0,
        busy_ratio=recent.busy_ratio,
        batches=counts.batches,
        tokens=counts.tokens,
        padded_tokens=counts.padded_tokens,
        stolen=counts.stolen,
        latency_buckets=counts.latency_buckets(),
        latency_sum_seconds=counts.latency_sum_seconds,
        sequences=counts.sequences,
        wait_seconds=counts.wait_seconds,
        service_seconds=counts.busy_seconds,
        predicted_seconds=counts.predicted_seconds,
        cost_factor=instance.predictor.factor,
        batch_overhead_seconds=instance.predictor.overhead,
        retried=counts.retried,
    )


def report_lane(lane: Lane, now: Seconds) -> BucketReport:
    """What waits in one lane, and what has left it."""
    low, high = lane.bucket
    queued = dict.fromkeys(PRIORITIES, 0)
    for flow, size in lane.queue.flows():
        queued[PRIORITIES[flow % CLASSES]] += size
    counts = lane.counts
    return BucketReport(
        Bucket(low, high) if high else None,
        [home.name for home in lane.homes],
        queued,
        oldest_wait_ms=(now - lane.queue.oldest_arrival()) * 1e3 if lane.queue.size else 0.0,
        dispatched=counts.dispatched,
        wait_seconds=counts.wait_seconds,
        spilled=counts.spilled,
    )


def _share_of_lane(instance: Instance, now: Seconds) -> tuple[int, Seconds]:
    """Sequences that wait for this instance first, and the wait of the oldest. Replicas share their lane's evenly, so that
    the sum over all instances is what is queued."""
    lane = instance.lane
    if lane is None or not lane.queue.size:
        return 0, 0.0
    share, rest = divmod(lane.queue.size, len(lane.homes))
    return share + (lane.homes.index(instance) < rest), now - lane.queue.oldest_arrival()


def _buckets(roster: Roster, now: Seconds) -> list[BucketReport]:
    """One report per bucket; where each instance has a lane of its own, those of one bucket are one."""
    reports: dict[tuple[int, int], BucketReport] = {}
    for lane in roster.lanes:
        one = report_lane(lane, now)
        same = reports.setdefault(lane.bucket, one)
        if same is not one:
            same.instances += one.instances
            same.oldest_wait_ms = max(same.oldest_wait_ms, one.oldest_wait_ms)
            for priority, size in one.queued.items():
                same.queued[priority] += size
    return list(reports.values())
