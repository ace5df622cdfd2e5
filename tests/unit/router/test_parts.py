"""Do the small pure parts of the router keep their word: buckets, costs, meters, admission?"""

from __future__ import annotations

from math import inf

import pytest

from orchestrator.router.admission import Limits, refusal, retry_after_ms, too_late
from orchestrator.router.buckets import NOWHERE, Home, LengthClasses, lane_by_length
from orchestrator.router.cost import DefaultCosts, Predictor, Shape
from orchestrator.router.events import Client, Request
from orchestrator.router.meter import InstanceCounts, quantiles
from orchestrator.status import LATENCY_BOUNDS_SECONDS


def test_a_length_belongs_to_the_smallest_bucket_that_holds_it() -> None:
    table = lane_by_length([Home(512, 512), Home(32, 32), Home(384, 384)])
    assert [table[length] for length in (1, 32, 33, 384, 385, 512)] == [1, 1, 2, 2, 0, 0]
    assert table[0] == NOWHERE


def test_a_length_beyond_all_buckets_goes_to_who_holds_it() -> None:
    table = lane_by_length([Home(32, 48), Home(128, 512)])
    assert [table[length] for length in (40, 128, 129, 512)] == [1, 1, 1, 1]


def test_a_bucket_whose_instances_turned_out_too_small_gives_its_lengths_to_others() -> None:
    table = lane_by_length([Home(128, 64), Home(512, 512)])
    assert [table[length] for length in (64, 65, 128)] == [0, 1, 1]


def test_nobody_at_all_holds_nothing() -> None:
    assert lane_by_length([]) == (NOWHERE,)


def test_classes_end_at_every_required_limit_and_are_sixteen_at_most_unless_more_are_required() -> None:
    classes = LengthClasses.over([30, 384, 512])
    assert {30, 384, 512} <= set(classes.limits)
    assert len(classes.limits) <= 16
    assert classes.limits[-1] == 512
    assert len(LengthClasses.over(range(1, 40)).limits) == 39


def test_an_instance_holds_a_class_as_a_whole_or_not_at_all() -> None:
    classes = LengthClasses.over([30, 384])
    held = classes.held_by(30)
    assert held & 1 << classes.of(30)
    assert not held & 1 << classes.of(31)
    assert classes.held_by(0) == 0


def test_default_costs_are_the_measured_ones_within_a_tenth_on_one_core() -> None:
    shape = DefaultCosts().shape("any", 1)
    for length, measured in ((16, 1.00e-3), (128, 6.34e-3), (384, 29.6e-3), (512, 43.6e-3)):
        assert shape.seconds(length, 1) == pytest.approx(measured, rel=0.1)


def engine_takes(predictor: Predictor, times: float, overhead: float = 0.0, length: int = 128, n: int = 1) -> None:
    """One batch that took the engine so many times what its shape says, and everybody else `overhead` seconds."""
    took = times * predictor.shape.seconds(length, n)
    predictor.observe(length, n, took, took + overhead)


def test_the_first_observation_replaces_a_wrong_default_and_later_ones_move_it_slowly() -> None:
    predictor = Predictor(DefaultCosts().shape("any", 1))
    engine_takes(predictor, 10.0)
    assert predictor.factor == pytest.approx(10.0)
    for _ in range(40):
        engine_takes(predictor, 10.0)
    assert predictor.factor == pytest.approx(10.0)
    engine_takes(predictor, 20.0)
    assert predictor.factor == pytest.approx(11.0), "a tenth of the error"


def test_a_step_in_speed_is_nine_tenths_learnt_after_22_batches() -> None:
    predictor = Predictor(DefaultCosts().shape("any", 1))
    for _ in range(40):
        engine_takes(predictor, 1.0)
    for _ in range(22):
        engine_takes(predictor, 3.0)
    assert predictor.factor > 1 + 0.9 * 2


def test_what_messages_cost_short_batches_is_not_expected_of_long_ones_in_proportion() -> None:
    predictor = Predictor(DefaultCosts().shape("any", 1))
    for _ in range(40):
        engine_takes(predictor, 1.2, overhead=0.5e-3, length=16)
    assert predictor.factor == pytest.approx(1.2)
    assert predictor.overhead == pytest.approx(0.5e-3)
    assert predictor.seconds(512, 1) == pytest.approx(0.5e-3 + 1.2 * predictor.shape.seconds(512, 1))
    assert predictor.room(predictor.seconds(64, 3)) == pytest.approx(predictor.shape.seconds(64, 3))


@pytest.mark.parametrize("said", [0.0, -1.0, 3600.0], ids=["nothing", "less than nothing", "an hour"])
def test_what_a_worker_cannot_have_taken_is_not_believed(said: float) -> None:
    predictor = Predictor(DefaultCosts().shape("any", 1))
    predictor.observe(128, 1, said, 2 * predictor.shape.seconds(128, 1))
    assert predictor.factor == pytest.approx(2.0)
    assert predictor.overhead == 0.0


def test_a_batch_that_began_before_its_turn_was_known_costs_no_overhead() -> None:
    predictor = Predictor(DefaultCosts().shape("any", 1))
    took = predictor.shape.seconds(128, 1)
    predictor.observe(128, 1, took, 0.8 * took)
    assert (predictor.factor, predictor.overhead) == (pytest.approx(1.0), 0.0)


def test_an_observation_of_nothing_teaches_nothing() -> None:
    predictor = Predictor(DefaultCosts().shape("any", 1))
    predictor.observe(128, 1, 1.0, 0.0)
    predictor.observe(0, 0, 1.0, 0.0)
    assert (predictor.factor, predictor.overhead, predictor.observations) == (1.0, 0.0, 0)
    predictor = Predictor(Shape(0.0, 0.0, 0.0))
    predictor.observe(128, 1, 1.0, 1.0)
    assert (predictor.factor, predictor.overhead, predictor.observations) == (1.0, 0.0, 0)


def test_nothing_is_refused_while_there_is_room() -> None:
    assert refusal(Request(Client(b"c"), 1, [5]), 5, Limits(512, 10), 9) is None
    assert refusal(Request(Client(b"c"), 1, [5, 5]), 5, Limits(512, 10), 9) is not None


@pytest.mark.parametrize(
    ("lengths", "limits", "queued", "reason"),
    [
        ([5], Limits(512, 10, draining=True), 0, "draining"),
        ([5], Limits(0, 10), 0, "no_instance"),
        ([513], Limits(512, 10), 10, "too_long"),
        ([5] * 11, Limits(512, 10), 10, "too_long"),
        ([5], Limits(512, 10), 10, "queue_full"),
    ],
)
def test_the_reason_that_a_retry_cannot_mend_is_named_first(
    lengths: list[int], limits: Limits, queued: int, reason: str
) -> None:
    refused = refusal(Request(Client(b"c"), 1, lengths), max(lengths), limits, queued)
    assert refused is not None
    assert refused.reason == reason


def test_a_deadline_is_refused_only_if_even_the_earliest_finish_is_later() -> None:
    request = Request(Client(b"c"), 1, [5], timeout_ms=100, deadline=10.1)
    assert too_late(request, 10.1, 10.0) is None
    refused = too_late(request, 10.2, 10.0)
    assert refused is not None
    assert "200 ms" in refused.message


def test_a_time_to_retry_is_half_of_the_backlog_within_bounds() -> None:
    assert [retry_after_ms(seconds) for seconds in (0.0, 0.5, 1e9, inf)] == [1, 250, 60_000, 1000]


def test_quantiles_of_nothing_are_none_and_of_much_are_within_a_twentieth() -> None:
    assert quantiles([0] * 300).p50 is None
    counts = InstanceCounts()
    counts.recent(0.0, 0.0)
    for at in range(1, 1001):
        counts.answered(at * 1e-4)
    latency = counts.recent(1.0, 0.0).latency_ms
    assert latency.p50 == pytest.approx(50.0, rel=0.05)
    assert latency.p95 == pytest.approx(95.0, rel=0.05)
    assert latency.p99 == pytest.approx(99.0, rel=0.05)


def test_the_published_histogram_is_cumulative_and_has_one_more_count_than_bounds() -> None:
    counts = InstanceCounts()
    for latency in (0.0001, 0.0005, 0.0006, 40.0):
        counts.answered(latency)
    buckets = counts.latency_buckets()
    assert len(buckets) == len(LATENCY_BOUNDS_SECONDS) + 1
    assert (buckets[0], buckets[1], buckets[-2], buckets[-1]) == (2, 3, 3, 4)


def test_rates_forget_what_is_older_than_the_window() -> None:
    counts = InstanceCounts()
    counts.recent(0.0, 0.0)
    for _ in range(100):
        counts.answered(0.001)
    for second in range(1, 12):
        recent = counts.recent(float(second), 0.0)
    assert recent.sequences_per_second == 0.0
    assert recent.latency_ms.p50 is None
