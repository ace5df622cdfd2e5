"""Does a real system measure its costs, serve the urgent first, and tell what it did?"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

LONG = " ".join(["Many words about nothing in particular, so that it takes its time."] * 15)
BULK = 40


def queue_ms(headers: dict[str, str]) -> float:
    found = re.search(r"queue;dur=([0-9.]+)", headers["server-timing"])
    assert found is not None
    return float(found[1])


def test_every_worker_tells_the_router_what_it_measured(shared_system: Any) -> None:
    pattern = re.compile(r"instance=(\S+) connected incarnation=1 pid=\d+ costs=(\d+)")
    shared_system.until(
        "both are connected",
        lambda _: {name for name, _ in pattern.findall(shared_system.said())} == {"short-0", "long-0"},
    )
    assert all(int(points) >= 1 for _, points in pattern.findall(shared_system.said()))


def test_an_interactive_request_overtakes_a_flood_of_bulk_of_another_caller(shared_system: Any) -> None:
    bulk = {"x-priority": "bulk", "x-api-key": "the batch job"}
    with ThreadPoolExecutor(BULK) as pool:
        flood = [pool.submit(shared_system.post, "/embed", {"inputs": [LONG] * 2}, **bulk) for _ in range(2 * BULK)]
        waits = []
        while sum(one.done() for one in flood) < BULK:
            status, headers, _ = shared_system.post("/embed", {"inputs": LONG}, **{"x-priority": "interactive"})
            assert status == 200
            waits.append(queue_ms(headers))
        answers = [one.result() for one in flood]
    assert {status for status, _, _ in answers} == {200}, "bulk is late, not lost"
    assert median(waits) < 0.5 * median(queue_ms(headers) for _, headers, _ in answers)


@pytest.mark.parametrize("sent", ["urgent", "0"])
def test_a_priority_that_does_not_exist_is_refused(shared_system: Any, sent: str) -> None:
    status, _, body = shared_system.post("/embed", {"inputs": "hello"}, **{"x-priority": sent})
    assert status == 400
    assert "interactive, normal, bulk" in body["error"]


def test_metrics_tell_of_each_bucket_and_how_good_the_predictions_were(shared_system: Any) -> None:
    shared_system.embed("a few words")
    shared_system.embed(LONG)
    shared_system.until("all is counted", lambda status: status.router.buckets and not status.router.queued)
    shared_system.until("served", lambda status: all(one.service_seconds > 0 for one in status.instances))
    status = shared_system.status()
    assert sum(one.dispatched for one in status.router.buckets) >= sum(one.served for one in status.instances) > 0
    for one in status.instances:
        assert one.predicted_seconds > 0
        assert 0.005 <= one.cost_factor <= 200
    found = {
        family.name: family for family in text_string_to_metric_families(shared_system.get("/metrics")[1].decode())
    }
    buckets = {sample.labels["bucket"] for sample in found["orchestrator_bucket_queued_sequences"].samples}
    assert len(buckets) == 2
    assert "1-32" in buckets
    assert {"orchestrator_instance_predicted_seconds", "orchestrator_instance_service_seconds"} <= set(found)
