"""Does Prometheus get every number of the status document under a name that lasts?"""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.gateway import metrics
from orchestrator.plan.model import Bucket
from orchestrator.status import (
    LATENCY_BOUNDS_SECONDS,
    BucketReport,
    GatewayStatus,
    InstanceStatus,
    MachineStatus,
    ModelStatus,
    RouterStatus,
    Status,
    Verified,
)

COUNTS = [min(at, 5) for at in range(len(LATENCY_BOUNDS_SECONDS) + 1)]


def status() -> Status:
    instance: dict[str, Any] = {
        "node": 0, "membind": [0], "threads": 2, "max_seqlen": 32, "reasons": [], "pid": 1, "incarnation": 3,
        "ready_seconds": 1.0, "last_error": None,
    }  # fmt: skip
    return Status(
        version="0.1.0",
        state="degraded",
        time_unix=1e9,
        uptime_seconds=12.5,
        window_seconds=10.0,
        pid=1,
        endpoint="x",
        policy="by-seqlen",
        model=ModelStatus('org/"q"\n', "sentence-embedding", "bert", "fp32", "onnxruntime", 256, 384, "d", "a"),
        router=RouterStatus(
            state="ready",
            submitted=9,
            settled=7,
            queued=1,
            in_flight=1,
            rejected={"deadline": 2, "queue_full": 3},
            cpu_seconds=1.5,
            rss_bytes=1000,
            displaced=4,
            tenants=2,
            buckets=[
                BucketReport(Bucket(1, 32), ["short-0"], {"interactive": 3, "bulk": 9}, 1500.0, 70, 3.5, 6),
                BucketReport(None, ["long-0"]),
            ],
        ),
        gateways=[
            GatewayStatus(
                name="g0",
                state="ready",
                responses={"/v1/models/{model} 404": 2, "/embed 200": 12},
                connections=4,
                latency_buckets=COUNTS,
                latency_sum_seconds=0.25,
            )
        ],
        instances=[
            InstanceStatus(
                name="short-0",
                cpus=[0, 1],
                bucket=Bucket(1, 32),
                state="ready",
                restarts=2,
                verified=Verified([0, 1], [0], "bind", 4, True),
                rss_bytes=500,
                served=5,
                oldest_wait_ms=250.0,
                tokens=80,
                padded_tokens=100,
                retried=2,
                wait_seconds=1.25,
                service_seconds=3.0,
                predicted_seconds=2.5,
                cost_factor=1.5,
                batch_overhead_seconds=0.0005,
                latency_buckets=COUNTS,
                latency_sum_seconds=0.5,
                **instance,
            ),
            InstanceStatus(
                name="long-0",
                cpus=[2],
                bucket=None,
                state="backoff",
                restarts=0,
                verified=None,
                rss_bytes=None,
                **instance,
            ),
        ],
        housekeeping_cpus=[0],
        unused_cpus=[],
        machine=MachineStatus("x", 1, 1, 2, []),
        warnings=[],
    )


def samples() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render(status()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(name: str, **labels: str) -> float:
    return samples()[name, tuple(sorted(labels.items()))]


def test_counters_end_in_total_and_carry_the_numbers_of_the_document() -> None:
    assert value("orchestrator_router_submitted_sequences_total") == 9
    assert value("orchestrator_router_rejected_total", reason="queue_full") == 3
    assert value("orchestrator_instance_sequences_total", instance="short-0") == 5
    assert value("orchestrator_instance_restarts_total", instance="short-0") == 2
    assert value("orchestrator_router_cpu_seconds_total") == 1.5


def test_a_route_and_a_status_are_labels_of_their_own() -> None:
    assert value("orchestrator_http_responses_total", gateway="g0", route="/embed", status="200") == 12
    assert value("orchestrator_http_responses_total", gateway="g0", route="/v1/models/{model}", status="404") == 2


def test_exactly_one_state_of_an_instance_is_set() -> None:
    states = {
        dict(labels)["state"]: n
        for (name, labels), n in samples().items()
        if name == "orchestrator_instance_state" and ("instance", "long-0") in labels
    }
    assert [state for state, n in states.items() if n] == ["backoff"]
    assert value("orchestrator_state", state="degraded") == 1


def test_milliseconds_of_the_document_become_seconds() -> None:
    assert value("orchestrator_instance_oldest_wait_seconds", instance="short-0") == 0.25


def test_latency_is_a_histogram_that_ends_at_infinity() -> None:
    labels = {"instance": "short-0"}
    assert value("orchestrator_instance_latency_seconds_bucket", **labels, le="+Inf") == 5
    assert value("orchestrator_instance_latency_seconds_bucket", **labels, le="0.001") == 1
    assert value("orchestrator_instance_latency_seconds_count", **labels) == 5
    assert value("orchestrator_instance_latency_seconds_sum", **labels) == 0.5
    assert value("orchestrator_http_latency_seconds_count", gateway="g0") == 5


def test_an_instance_that_has_served_nothing_has_its_series_at_zero() -> None:
    assert value("orchestrator_instance_latency_seconds_bucket", instance="long-0", le="+Inf") == 0


def test_what_is_not_known_is_left_out_and_not_zero() -> None:
    known = samples()
    assert ("orchestrator_instance_resident_memory_bytes", (("instance", "long-0"),)) not in known
    assert ("orchestrator_instance_verified", (("instance", "long-0"),)) not in known
    assert value("orchestrator_instance_verified", instance="short-0") == 1


def test_a_hostile_model_name_stays_inside_its_label() -> None:
    names = [dict(labels)["model"] for (name, labels) in samples() if name == "orchestrator_model_info"]
    assert names == ['org/"q"\n']


def test_buckets_say_what_waits_by_priority_and_what_left_for_where() -> None:
    found = samples()
    short = ("bucket", "1-32")
    assert found["orchestrator_bucket_queued_sequences", (short, ("priority", "bulk"))] == 9
    assert found["orchestrator_bucket_queued_sequences", (short, ("priority", "interactive"))] == 3
    assert found["orchestrator_bucket_oldest_wait_seconds", (short,)] == 1.5
    assert found["orchestrator_bucket_dispatched_sequences_total", (short,)] == 70
    assert found["orchestrator_bucket_wait_seconds_total", (short,)] == 3.5
    assert found["orchestrator_bucket_spilled_sequences_total", (short,)] == 6
    assert found["orchestrator_bucket_dispatched_sequences_total", (("bucket", "all"),)] == 0
    assert found["orchestrator_router_displaced_sequences_total", ()] == 4
    assert found["orchestrator_router_tenants", ()] == 2


def test_predicted_and_observed_service_padding_and_retries_are_told_per_instance() -> None:
    found = samples()
    name = (("instance", "short-0"),)
    assert found["orchestrator_instance_padded_tokens_total", name] == 20
    assert found["orchestrator_instance_service_seconds_total", name] == 3.0
    assert found["orchestrator_instance_predicted_seconds_total", name] == 2.5
    assert found["orchestrator_instance_wait_seconds_total", name] == 1.25
    assert found["orchestrator_instance_retried_sequences_total", name] == 2
    assert found["orchestrator_instance_cost_factor", name] == 1.5
    assert found["orchestrator_instance_batch_overhead_seconds", name] == 0.0005
