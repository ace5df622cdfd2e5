"""Is the past of the Status document kept as far back as promised, in bounded memory, with its gaps?"""

from __future__ import annotations

import sys
from typing import Any, get_args

import msgspec
import pytest

from orchestrator import history
from orchestrator.history import COARSE_POINTS, FINE_POINTS, History
from orchestrator.status import Event, GatewayStatus, InstanceState, Quantiles, RouterStatus
from orchestrator.supervisor import past as memory
from orchestrator.supervisor.past import LONGEST_WHY, MOST_EVENTS, Past
from orchestrator.supervisor.series import MOST_GONE


def read(past: Past, step: Any = 2, seconds: float = 1e9, uptime: float = 1e5, **given: Any) -> History:
    """As it comes out of the JSON."""
    document = past.document(
        step, seconds, version="0.1.0", pid=1, time_unix=1e6 + uptime, uptime_seconds=uptime, **given
    )
    return msgspec.json.decode(msgspec.json.encode(document), type=History)


def change(uptime: float, part: str = "short-0", why: str = "asked") -> Event:
    return Event(uptime, part, "worker", 1, "ready", "backoff", why)


def test_a_point_has_the_numbers_of_its_document_under_the_same_names(documents: Any) -> None:
    past = Past()
    one = documents.instance(
        sequences_per_second=41.5, tokens_per_second=1234.56, latency_ms=Quantiles(2.5, 4.0, 8.25), queue_depth=7,
        busy_ratio=0.83, state="draining",
    )  # fmt: skip
    past.record(documents.status(600.4, one))
    found = read(past)
    assert found.points == [600.4]
    (instance,) = found.instances
    assert instance.name == "short-0"
    assert (instance.state, instance.queue_depth, instance.rss_bytes) == (["draining"], [7], [312 << 20])
    assert (instance.sequences_per_second, instance.tokens_per_second) == ([41.5], [1234.6])
    assert (instance.latency_ms.p50, instance.latency_ms.p99, instance.busy_ratio) == ([2.5], [8.25], [0.83])
    assert found.totals.requests_per_second == [38.0]
    assert (found.totals.latency_ms.p50, found.totals.latency_ms.p99) == ([4.2], [58.0])
    assert (found.totals.queued, found.totals.in_flight, found.totals.ready) == ([3], [2], [0])


def test_batch_padding_and_cpu_are_those_since_the_point_before(documents: Any) -> None:
    past = Past()
    counted = [(10, 20, 100, 120, 5.0), (14, 36, 190, 220, 8.0), (14, 36, 190, 220, 8.5)]
    for at, (batches, sequences, tokens, padded, cpu) in zip((600.0, 602.0, 604.0), counted, strict=True):
        one = documents.instance(
            batches=batches, sequences=sequences, tokens=tokens, padded_tokens=padded, cpu_seconds=cpu
        )
        past.record(documents.status(at, one))
    (instance,) = read(past).instances
    assert instance.batch_mean == [None, 4.0, None]
    assert instance.padding_ratio == [None, 0.1, None]
    assert instance.cpu_ratio == [None, 1.5, 0.25]


def test_cpu_time_of_another_process_is_no_growth(documents: Any) -> None:
    past = Past()
    past.record(documents.status(600.0, documents.instance(pid=1, cpu_seconds=500.0)))
    past.record(documents.status(602.0, documents.instance(pid=2, cpu_seconds=1.0)))
    past.record(documents.status(604.0, documents.instance(pid=2, cpu_seconds=3.0)))
    assert read(past).instances[0].cpu_ratio == [None, None, 1.0]


def test_documents_that_come_at_every_change_make_one_point_in_two_seconds(documents: Any) -> None:
    past = Past()
    for tenth in range(100):
        past.record(documents.status(600 + tenth / 10))
    assert read(past).points == [600.0, 602.0, 604.0, 606.0, 608.0]


def test_a_time_without_documents_leaves_no_points_and_a_document_of_the_past_is_not_taken(documents: Any) -> None:
    past = Past()
    for at in (600.0, 602.0, 660.0, 655.0, 662.0):
        past.record(documents.status(at))
    assert read(past).points == [600.0, 602.0, 660.0, 662.0]


def test_ten_minutes_at_two_seconds_and_six_hours_at_one_minute_are_kept_and_no_more(documents: Any) -> None:
    past = Past()
    for at in range(0, 8 * 3600, 2):
        past.record(documents.status(float(at), documents.instance(queue_depth=at % 60)))
    fine, coarse = read(past, 2, uptime=8 * 3600), read(past, 60, uptime=8 * 3600)
    past.validate()
    assert len(fine.points) == FINE_POINTS
    assert fine.points[0] == fine.points[-1] - (FINE_POINTS - 1) * 2
    assert fine.points[-1] == 8 * 3600 - 2
    assert len(coarse.points) == COARSE_POINTS + 1  # and the minute that is not over
    assert set(coarse.instances[0].queue_depth) == {58}


def test_asked_for_a_minute_it_gives_a_minute(documents: Any) -> None:
    past = Past()
    for at in range(0, 1200, 2):
        past.record(documents.status(float(at)))
    assert read(past, 2, seconds=60, uptime=1198).points == [float(at) for at in range(1138, 1200, 2)]
    assert read(past, 2, seconds=0, uptime=1199).points == []


def test_the_present_minute_is_there_from_its_first_document(documents: Any) -> None:
    past = Past()
    past.record(documents.status(3.0, documents.instance(sequences_per_second=10.0)))
    past.record(documents.status(5.0, documents.instance(sequences_per_second=20.0)))
    found = read(past, 60, uptime=5.0)
    assert (found.points, found.instances[0].sequences_per_second) == ([5.0], [15.0])


def test_of_a_minute_rates_are_the_mean_and_what_was_bad_the_worst(documents: Any) -> None:
    past = Past()
    minute = [
        documents.instance(sequences_per_second=10.0, latency_ms=Quantiles(1.0, 2.0, 3.0), queue_depth=1),
        documents.instance(sequences_per_second=20.0, latency_ms=Quantiles(3.0, 8.0, 90.0), queue_depth=50),
        documents.instance(sequences_per_second=0.0, state="backoff", rss_bytes=None),
    ]
    for at, one in zip((60.0, 62.0, 64.0), minute, strict=True):
        past.record(documents.status(at, one))
    past.record(documents.status(120.0, documents.instance()))
    found = read(past, 60, uptime=120.0)
    (instance,) = found.instances
    assert found.points == [64.0, 120.0]
    assert (instance.state, instance.sequences_per_second) == (["backoff", "ready"], [10.0, 0.0])
    assert (instance.latency_ms.p50, instance.latency_ms.p99) == ([2.0, None], [90.0, None])
    assert (instance.queue_depth, instance.rss_bytes) == ([50, 0], [312 << 20, 312 << 20])
    assert found.totals.ready == [0, 1]


def test_an_instance_has_no_values_for_the_time_before_it_and_after_it(documents: Any) -> None:
    past = Past()
    old, new = documents.instance("old-0", queue_depth=1), documents.instance("new-0", queue_depth=2)
    past.record(documents.status(600.0, old))
    past.record(documents.status(602.0, old, new))
    past.record(documents.status(604.0, new))
    assert {one.name: one.queue_depth for one in read(past).instances} == {
        "old-0": [1, 1, None],
        "new-0": [None, 2, 2],
    }
    assert {one.name: one.state for one in read(past).instances}["old-0"] == ["ready", "ready", None]


def test_an_instance_that_is_no_more_is_forgotten_with_its_last_point(documents: Any) -> None:
    past = Past()
    past.record(documents.status(0.0, documents.instance("old-0")))
    for number in range(1, FINE_POINTS + 1):
        assert "old-0" in {one.name for one in read(past).instances}
        past.record(documents.status(2.0 * number, documents.instance("new-0")))
    assert {one.name for one in read(past).instances} == {"new-0"}
    assert {one.name for one in read(past, 60, uptime=600.0).instances} == {"old-0", "new-0"}


def test_six_hours_after_an_instance_was_there_nothing_is_left_of_it(documents: Any) -> None:
    past = Past()
    past.record(documents.status(0.0, documents.instance("old-0")))
    for at in range(2, (COARSE_POINTS + 2) * 60, 2):
        past.record(documents.status(float(at), documents.instance("new-0")))
        if at == COARSE_POINTS * 60:  # its minute is the oldest that is kept
            assert {one.name for one in read(past, 60, uptime=1e6).instances} == {"old-0", "new-0"}
    assert {one.name for one in read(past, 60, uptime=1e6).instances} == {"new-0"}


def test_a_gateway_that_is_gone_makes_no_errors_of_those_that_others_had_counted_before(documents: Any) -> None:
    past = Past()
    gateways = [GatewayStatus(f"gateway-{at}", "ready", responses={"/embed 500": 5 - 2 * at}) for at in range(2)]
    past.record(documents.status(600.0, gateways=gateways))
    past.record(documents.status(602.0, gateways=gateways[1:]))
    assert [(one.uptime_seconds, one.part, one.count) for one in read(past).grown] == [
        (600.0, "gateway-0", 5),
        (600.0, "gateway-1", 3),
    ]


def test_names_that_come_and_go_do_not_make_it_grow(documents: Any) -> None:
    past = Past()
    for number in range(3 * MOST_GONE):
        past.record(documents.status(2.0 * number, documents.instance(f"one-{number}")))
        past.validate()
    names = [one.name for one in read(past).instances]
    assert len(names) == MOST_GONE + 1
    assert names[-1] == f"one-{3 * MOST_GONE - 1}"
    assert names[0] == f"one-{2 * MOST_GONE - 1}"


def test_the_rings_of_an_instance_are_as_large_as_is_said(documents: Any) -> None:
    past = Past()
    for at in range(0, 7 * 3600, 2):
        past.record(documents.status(float(at), documents.instance()))
    rings = [past._fine._columns["short-0"], past._coarse._columns["short-0"]]
    assert sum(sys.getsizeof(column) for columns in rings for column in columns) < 64 << 10


def test_counters_of_trouble_are_told_by_how_much_they_grew(documents: Any) -> None:
    past = Past()

    def at(uptime: float, refused: int, restarts: int, failed: int) -> None:
        router = RouterStatus("ready", rejected={"queue_full": refused}, malformed_frames=1)
        gateway = GatewayStatus("gateway-0", "ready", responses={"/embed 200": 9, "/embed 500": failed})
        past.record(documents.status(uptime, documents.instance(restarts=restarts), router=router, gateways=[gateway]))

    at(600.0, 40, 0, 0)
    at(602.0, 40, 0, 0)
    at(604.0, 52, 1, 2)
    at(606.0, 5, 1, 2)  # the router began anew and has refused five since
    found = read(past)
    assert [(one.uptime_seconds, one.kind, one.what, one.count) for one in found.grown] == [
        (600.0, "rejected", "queue_full", 40),
        (600.0, "malformed", "router", 1),
        (604.0, "rejected", "queue_full", 12),
        (604.0, "response", "/embed 500", 2),
        (604.0, "restarted", "short-0", 1),
        (606.0, "rejected", "queue_full", 5),
    ]
    assert {(one.kind, one.what): one.count for one in found.counts} == {
        ("rejected", "queue_full"): 5,
        ("malformed", "router"): 1,
        ("response", "/embed 500"): 2,
        ("restarted", "short-0"): 1,
    }
    minute = [(one.uptime_seconds, one.what, one.count) for one in read(past, 60, uptime=606.0).grown]
    assert minute == [
        (606.0, "queue_full", 57),
        (606.0, "router", 1),
        (606.0, "/embed 500", 2),
        (606.0, "short-0", 1),
    ]


def test_a_document_that_would_be_too_large_leaves_points_out_but_not_the_newest_nor_what_grew(
    documents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = Past()
    for number in range(100):
        router = RouterStatus("ready", rejected={"queue_full": number})
        past.record(documents.status(2.0 * number, documents.instance(queue_depth=number), router=router))
    values = 100 * (len(memory.INSTANCE_COLUMNS) + len(memory.TOTAL_COLUMNS))
    monkeypatch.setattr(memory, "MOST_VALUES", values // 3 + 1)
    found = read(past)
    assert found.step_seconds == 6.0
    assert found.instances[0].queue_depth == list(range(0, 100, 3))
    assert found.points[-1] == 198.0
    assert sum(one.count for one in found.grown) == 99
    assert {one.uptime_seconds for one in found.grown} <= set(found.points)


def test_the_last_events_are_kept_with_a_reason_that_is_not_endless(documents: Any) -> None:
    past = Past()
    for number in range(MOST_EVENTS + 3):
        past.happened(change(float(number), why="x" * 1000))
    found = read(past).events
    assert [one.uptime_seconds for one in found] == [float(number) for number in range(3, MOST_EVENTS + 3)]
    assert {len(one.why) for one in found} == {LONGEST_WHY}
    assert [one.uptime_seconds for one in past.latest_events(2)] == [MOST_EVENTS + 1, MOST_EVENTS + 2]


def test_what_an_operator_asks_for_is_an_event_once(documents: Any) -> None:
    past = Past()
    for at, changing in enumerate(
        ("", "restart short-0 (pid 7)", "restart short-0 (pid 7)", "", "drain short-0 (pid 7)")
    ):
        past.record(documents.status(600.0 + at, changing=changing))
    assert [(one.uptime_seconds, one.part, one.after, one.why) for one in past.latest_events(9)] == [
        (601.0, "orchestrator", "asked", "restart short-0 (pid 7)"),
        (604.0, "orchestrator", "asked", "drain short-0 (pid 7)"),
    ]


def test_every_state_of_an_instance_has_its_place_among_the_states() -> None:
    assert sorted(history.STATES) == sorted(get_args(InstanceState))
