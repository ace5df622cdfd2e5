"""Which numbers does Prometheus get? All of them from the newest Status document, whichever gateway is asked. Pure.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` on what only grows. Label values are the words of
the status document and of the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from orchestrator.status import (
    LATENCY_BOUNDS_SECONDS,
    BucketReport,
    GatewayStatus,
    InstanceStatus,
    RouterStatus,
    Status,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATES = ("starting", "ready", "degraded", "draining", "stopped")
INSTANCE_STATES = (
    "initial",
    "starting",
    "ready",
    "draining",
    "drained",
    "stopping",
    "killing",
    "backoff",
    "failed",
    "stopped",
)


def render(status: Status) -> bytes:
    """The text exposition format, complete."""
    registry = CollectorRegistry()
    registry.register(_Document(status))
    return generate_latest(registry)


class _Document(Collector):
    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        info = GaugeMetricFamily("orchestrator_info", "What runs here.", labels=["version", "policy"])
        info.add_metric([status.version, status.policy], 1)
        yield info
        model = GaugeMetricFamily(
            "orchestrator_model_info",
            "The model that is served.",
            labels=["model", "task", "architecture", "precision", "engine"],
        )
        of = status.model
        model.add_metric([of.id, of.task, of.architecture, of.precision, of.engine], 1)
        yield model
        state = GaugeMetricFamily("orchestrator_state", "1 for the state the orchestrator is in.", labels=["state"])
        for name in STATES:
            state.add_metric([name], float(status.state == name))
        yield state
        yield GaugeMetricFamily(
            "orchestrator_uptime_seconds", "Since the supervisor started.", value=status.uptime_seconds
        )
        yield GaugeMetricFamily(
            "orchestrator_status_timestamp_seconds", "When this document was made.", value=status.time_unix
        )
        yield from _router(status.router)
        yield from _instances(status.instances)
        yield from _gateways(status.gateways)


def _router(router: RouterStatus) -> Iterator[Metric]:
    def counter(name: str, help_: str, value: float) -> Metric:
        return CounterMetricFamily(f"orchestrator_router_{name}", help_, value=value)

    def gauge(name: str, help_: str, value: float) -> Metric:
        return GaugeMetricFamily(f"orchestrator_router_{name}", help_, value=value)

    yield counter("submitted_sequences", "Sequences that clients submitted.", router.submitted)
    yield counter("settled_sequences", "Sequences answered or refused.", router.settled)
    yield gauge("queued_sequences", "Sequences waiting in the router.", router.queued)
    yield gauge("in_flight_sequences", "Sequences that workers hold.", router.in_flight)
    rejected = CounterMetricFamily("orchestrator_router_rejected", "Refusals by reason.", labels=["reason"])
    for reason, count in sorted(router.rejected.items()):
        rejected.add_metric([reason], count)
    yield rejected
    yield counter("retried_sequences", "Sequences given to a second instance.", router.retried)
    yield counter("duplicate_submissions", "Submissions that were in progress already.", router.duplicates)
    yield counter("malformed_frames", "Frames that did not decode.", router.malformed_frames)
    yield counter("displaced_sequences", "Sequences refused to make room in a full queue.", router.displaced)
    yield counter("wrong_rows", "Batches answered with the wrong number of rows.", router.wrong_rows)
    yield counter(
        "undelivered_replies", "Messages to clients that had gone or did not read.", router.undelivered_replies
    )
    yield gauge("tenants", "Callers with requests in progress.", router.tenants)
    yield from _buckets(router.buckets)
    yield counter("late_results", "Results nobody waited for any more.", router.late_results)
    yield counter("restarts", "How often the router was started again.", router.restarts)
    if router.cpu_seconds is not None:
        yield counter("cpu_seconds", "CPU time used.", router.cpu_seconds)
    if router.rss_bytes is not None:
        yield gauge("resident_memory_bytes", "Resident memory.", router.rss_bytes)


def _buckets(buckets: Sequence[BucketReport]) -> Iterator[Metric]:
    def gauge(name: str, help_: str, *more: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"orchestrator_bucket_{name}", help_, labels=["bucket", *more])

    def counter(name: str, help_: str) -> CounterMetricFamily:
        return CounterMetricFamily(f"orchestrator_bucket_{name}", help_, labels=["bucket"])

    queued = gauge("queued_sequences", "Sequences waiting, by priority.", "priority")
    oldest = gauge("oldest_wait_seconds", "Age of the oldest waiting sequence.")
    dispatched = counter("dispatched_sequences", "Sequences that left the queue for an instance.")
    waited = counter("wait_seconds", "Time that these had waited.")
    spilled = counter("spilled_sequences", "Those that went to another bucket's instance.")
    for one in buckets:
        name = "all" if one.bucket is None else f"{one.bucket.min}-{one.bucket.max}"
        for priority, size in one.queued.items():
            queued.add_metric([name, priority], size)
        oldest.add_metric([name], one.oldest_wait_ms / 1000)
        dispatched.add_metric([name], one.dispatched)
        waited.add_metric([name], one.wait_seconds)
        spilled.add_metric([name], one.spilled)
    yield from (queued, oldest, dispatched, waited, spilled)


def _instances(instances: Sequence[InstanceStatus]) -> Iterator[Metric]:
    def gauge(name: str, help_: str, values: Iterator[float | None]) -> Metric:
        family = GaugeMetricFamily(f"orchestrator_instance_{name}", help_, labels=["instance"])
        for instance, value in zip(instances, values, strict=True):
            if value is not None:
                family.add_metric([instance.name], value)
        return family

    def counter(name: str, help_: str, values: Iterator[float]) -> Metric:
        family = CounterMetricFamily(f"orchestrator_instance_{name}", help_, labels=["instance"])
        for instance, value in zip(instances, values, strict=True):
            family.add_metric([instance.name], value)
        return family

    info = GaugeMetricFamily(
        "orchestrator_instance_info",
        "Where an instance runs and what it is for.",
        labels=["instance", "node", "bucket", "cpus"],
    )
    states = GaugeMetricFamily(
        "orchestrator_instance_state", "1 for the state an instance is in.", labels=["instance", "state"]
    )
    for one in instances:
        node = "" if one.node is None else str(one.node)
        bucket = "" if one.bucket is None else f"{one.bucket.min}-{one.bucket.max}"
        info.add_metric([one.name, node, bucket, ",".join(map(str, one.cpus))], 1)
        for name in INSTANCE_STATES:
            states.add_metric([one.name, name], float(one.state == name))
    yield info
    yield states
    yield gauge(
        "verified",
        "1 where the kernel confirms the planned cores and memory, 0 where it does not.",
        (None if i.verified is None else float(i.verified.matches_plan) for i in instances),
    )
    yield counter("restarts", "How often an instance was started again.", (i.restarts for i in instances))
    yield counter("sequences", "Sequences answered.", (i.served for i in instances))
    yield counter("tokens", "Tokens computed, padding not counted.", (i.tokens for i in instances))
    yield counter("padded_tokens", "Tokens computed for padding only.", (i.padded_tokens - i.tokens for i in instances))
    yield counter("batches", "Batches computed.", (i.batches for i in instances))
    yield counter(
        "stolen_sequences", "Sequences taken over from another instance's bucket.", (i.stolen for i in instances)
    )
    yield counter("computed_sequences", "Sequences computed, wanted or not.", (i.sequences for i in instances))
    yield counter("retried_sequences", "Sequences it held and did not answer.", (i.retried for i in instances))
    yield counter("wait_seconds", "Time that what it computed had waited.", (i.wait_seconds for i in instances))
    yield counter("service_seconds", "Time its batches took.", (i.service_seconds for i in instances))
    yield counter("predicted_seconds", "Time predicted for these batches.", (i.predicted_seconds for i in instances))
    yield gauge("cost_factor", "Present slowness against its measured costs.", (i.cost_factor for i in instances))
    yield gauge(
        "batch_overhead_seconds",
        "What a batch takes besides the engine's time.",
        (i.batch_overhead_seconds for i in instances),
    )
    yield gauge("queue_depth", "Sequences waiting that prefer this instance.", (i.queue_depth for i in instances))
    yield gauge(
        "oldest_wait_seconds", "Age of the oldest waiting sequence.", (i.oldest_wait_ms / 1000 for i in instances)
    )
    yield gauge("in_flight_sequences", "Sequences the instance holds.", (i.in_flight for i in instances))
    yield gauge("busy_ratio", "Share of time the engine computes.", (i.busy_ratio for i in instances))
    yield gauge("resident_memory_bytes", "Resident memory.", (i.rss_bytes for i in instances))
    latency = HistogramMetricFamily(
        "orchestrator_instance_latency_seconds",
        "From arrival in the router to the answer leaving it.",
        labels=["instance"],
    )
    for one in instances:
        _histogram(latency, [one.name], one.latency_buckets, one.latency_sum_seconds)
    yield latency


def _gateways(gateways: Sequence[GatewayStatus]) -> Iterator[Metric]:
    responses = CounterMetricFamily(
        "orchestrator_http_responses", "HTTP answers.", labels=["gateway", "route", "status"]
    )
    latency = HistogramMetricFamily(
        "orchestrator_http_latency_seconds", "Inferences answered with 200, whole pipeline.", labels=["gateway"]
    )
    for one in gateways:
        for key, count in sorted(one.responses.items()):
            route, _, code = key.rpartition(" ")
            responses.add_metric([one.name, route, code], count)
        _histogram(latency, [one.name], one.latency_buckets, one.latency_sum_seconds)
    yield responses
    yield latency

    def family(kind: type[GaugeMetricFamily] | type[CounterMetricFamily], name: str, help_: str, field: str) -> Metric:
        of = kind(f"orchestrator_gateway_{name}", help_, labels=["gateway"])
        for one in gateways:
            value = getattr(one, field)
            if value is not None:
                of.add_metric([one.name], value)
        return of

    yield family(GaugeMetricFamily, "in_flight_requests", "Requests being worked on.", "in_flight")
    yield family(GaugeMetricFamily, "connections", "Open connections.", "connections")
    yield family(CounterMetricFamily, "resubmitted_requests", "Sent again after a router restart.", "resubmitted")
    yield family(CounterMetricFamily, "late_replies", "Replies nobody waited for any more.", "late_replies")
    yield family(CounterMetricFamily, "tokenize_seconds", "Time spent on tokenizing.", "tokenize_seconds")
    yield family(CounterMetricFamily, "joined_requests", "Waited for another's answer to the same tokens.", "joined")

    def cache(kind: type[GaugeMetricFamily] | type[CounterMetricFamily], name: str, help_: str, field: str) -> Metric:
        of = kind(f"orchestrator_gateway_{name}", help_, labels=["gateway"])
        which, _, number = field.partition(".")
        for one in gateways:
            of.add_metric([one.name], getattr(getattr(one, which), number))
        return of

    for which, what in (
        ("token_cache", "texts whose tokens are known"),
        ("answer_cache", "sequences whose rows are known"),
    ):
        yield cache(CounterMetricFamily, f"{which}_hits", f"Found among {what}.", f"{which}.hits")
        yield cache(CounterMetricFamily, f"{which}_misses", f"Not found among {what}.", f"{which}.misses")
        yield cache(GaugeMetricFamily, f"{which}_bytes", f"Memory of {what}, estimated.", f"{which}.bytes")
    yield family(CounterMetricFamily, "restarts", "How often a gateway was started again.", "restarts")
    yield family(CounterMetricFamily, "cpu_seconds", "CPU time used.", "cpu_seconds")
    yield family(GaugeMetricFamily, "resident_memory_bytes", "Resident memory.", "rss_bytes")


def _histogram(family: HistogramMetricFamily, labels: list[str], cumulative: list[int], total: float) -> None:
    """Nothing has been counted yet where the list is empty: a histogram of zeros, so that the series exists from the start."""
    bounds = [str(bound) for bound in LATENCY_BOUNDS_SECONDS] + ["+Inf"]
    counts = cumulative if len(cumulative) == len(bounds) else [0] * len(bounds)
    family.add_metric(labels, buckets=list(zip(bounds, counts, strict=True)), sum_value=total)
