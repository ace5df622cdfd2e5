"""What does the core decide, event by event?"""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.router.core import STORY_LENGTH
from orchestrator.router.events import (
    BatchDone,
    Client,
    ClientGone,
    Drain,
    Drained,
    PlanChanged,
    Undelivered,
    WorkerHello,
    WorkerLeft,
    WorkerLost,
)

TWO = (("short", 1, 32), ("long", 33, 512))


def test_without_load_each_length_goes_to_its_home_instance(make_desk: Any) -> None:
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    for length in (1, 32, 33, 512, 32, 33):
        desk.submit(length)
        home = "short" if length <= 32 else "long"
        assert desk.dispatched()[-1] == (home, [length])
        desk.finish(home, seconds=0.01)


def test_what_comes_before_any_worker_waits_for_the_first_hello(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.submit(20)
    assert desk.dispatched() == []
    desk.hello("short")
    assert desk.dispatched() == [("short", [20])]
    desk.finish("short")
    assert desk.answered() == [(1, [0])]


def test_a_repeated_hello_of_a_busy_incarnation_changes_nothing(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short")
    desk.submit(20)
    assert desk.hello("short") == []
    assert desk.lengths_at("short") == [[20]]


def test_a_lost_worker_returns_its_batch_to_the_front_of_the_queue(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512), max_batch_tokens=1)
    desk.hello("a")
    first = desk.submit(400)
    second = desk.submit(400)
    desk.lose("a")
    assert desk.counts.queued == 2
    desk.hello("a", 2)
    assert desk.running("a").items[0].request is first
    assert desk.running("a").items[0].attempts == 2
    desk.finish("a")
    assert desk.running("a").items[0].request is second
    assert desk.counts.retried == 1


def test_a_sequence_that_saw_two_workers_die_is_refused_and_its_batch_mates_are_answered(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512))
    killer, innocent = desk.submit(16), desk.submit(16)
    desk.hello("a", 1)
    assert desk.lengths_at("a") == [[16, 16]]
    desk.lose("a", 1)
    desk.hello("a", 2)
    assert desk.running("a").items[0].request is killer, "the oldest first, and alone this time"
    assert desk.lengths_at("a")[0] == [16]
    desk.lose("a", 2)
    assert desk.refused() == [(killer.request_id, "worker_lost")]
    desk.hello("a", 3)
    desk.finish("a")
    assert desk.answered() == [(innocent.request_id, [0])]


def test_a_batch_that_was_only_prefetched_is_not_blamed_for_the_death(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 64))
    desk.hello("a", 1)
    desk.submit(16)
    waiting = desk.submit(16)
    assert desk.lengths_at("a") == [[16], [16]], "the first is nearly done: the second is given in advance"
    desk.lose("a", 1)
    assert waiting.items[0].deaths == 0
    assert waiting.items[0].attempts == 2


@pytest.mark.parametrize(("besides", "ahead"), [(0.0, 0.002), (0.001, 0.005)])
def test_a_batch_is_given_the_earlier_in_advance_the_longer_batches_take_besides_their_engine(
    make_desk: Any, besides: float, ahead: float
) -> None:
    desk = make_desk(("a", 1, 512))
    desk.hello("a")
    desk.submit(500)
    desk.finish("a", seconds=0.1, besides=besides)
    desk.submit(500)
    desk.submit(500)
    end = desk.running("a").started + desk.running("a").predicted
    desk.after(end - ahead - 0.0001 - desk.now)
    assert desk.lengths_at("a") == [[500]]
    desk.after(0.0002)
    assert desk.lengths_at("a") == [[500], [500]]


def test_of_a_failed_batch_each_is_tried_alone_and_only_the_bad_one_is_refused(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512))
    good, bad, fine = desk.submit(16), desk.submit(16), desk.submit(16)
    desk.hello("a")
    assert desk.lengths_at("a")[0] == [16, 16, 16]
    desk.fail("a")
    assert [len(batch) for batch in desk.lengths_at("a")] == [1, 1]
    desk.finish("a")
    desk.fail("a", "token 7 is bad")
    desk.finish("a")
    assert desk.answered() == [(good.request_id, [0]), (fine.request_id, [0])]
    (refusal,) = desk.refusals()
    assert (refusal.request, refusal.reason, refusal.message) == (bad, "model_error", "token 7 is bad")


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_wrong_number_of_rows_fails_the_batch_and_answers_nobody(make_desk: Any, rows: int) -> None:
    desk = make_desk(("a", 1, 512))
    desk.submit(16, 16)
    desk.hello("a")
    assert desk.lengths_at("a") == [[16, 16]]
    desk.finish("a", rows=rows)
    assert desk.answered() == []
    assert desk.counts.wrong_rows == 1
    assert desk.lengths_at("a") == [[16], [16]], "each is tried once more, alone"
    desk.finish("a", rows=rows + 2)
    assert desk.refused() == [(1, "model_error")]
    assert f"{rows + 2} rows for a batch of 1" in desk.refusals()[0].message


def test_an_answer_for_a_batch_that_is_not_held_or_was_answered_is_counted_and_dropped(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short")
    desk.submit(20)
    flight = desk.running("short")
    assert desk.give(BatchDone("long", 1, flight.batch_id, 1, 5)) == []
    assert desk.give(BatchDone("short", 2, flight.batch_id, 1, 5)) == []
    assert desk.give(BatchDone("nobody", 1, flight.batch_id, 1, 5)) == []
    desk.finish("short")
    assert desk.give(BatchDone("short", 1, flight.batch_id, 1, 5)) == []
    assert desk.counts.late_results == 4
    assert desk.answered() == [(1, [0])]


def test_a_newer_incarnation_supersedes_the_old_one_and_a_stale_one_is_ignored(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short", 3)
    desk.submit(20)
    desk.hello("short", 5)
    assert desk.running("short").incarnation == 5
    desk.hello("short", 3)
    desk.hello("short", 4)
    assert desk.core.is_current("short", 5)
    desk.lose("short", 3)
    assert desk.core.is_current("short", 5), "old news of an old incarnation"
    desk.lose("short", 5)
    desk.hello("short", 5)
    assert not desk.core.is_current("short", 5), "the dead do not come back"


def test_a_worker_that_says_bye_and_one_that_cannot_be_reached_may_come_back_as_they_are(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short")
    desk.give(WorkerLeft("short", 1))
    desk.submit(20)
    desk.hello("short")
    flight = desk.running("short")
    desk.give(Undelivered("short", 1, flight.batch_id))
    assert desk.counts.queued == 1
    assert flight.items[0].deaths == 0, "it never reached the worker"
    desk.hello("short")
    assert desk.running("short").items == flight.items


def test_a_prefetched_batch_that_cannot_be_delivered_blames_the_running_one(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 64))
    desk.hello("a", 1)
    first, second = desk.submit(16), desk.submit(16)
    prefetched = desk.core.roster.instances["a"].prefetched
    desk.give(Undelivered("a", 1, prefetched.batch_id))
    assert (first.items[0].deaths, second.items[0].deaths) == (1, 0)


@pytest.mark.parametrize(("from_outside", "deaths"), [(False, 2), (True, 4)])
def test_a_sequence_over_which_workers_die_is_refused_and_later_where_somebody_killed_them(
    make_desk: Any, from_outside: bool, deaths: int
) -> None:
    desk = make_desk(("a", 1, 64))
    request = desk.submit(16)
    for incarnation in range(1, deaths + 1):
        assert desk.refused() == []
        desk.hello("a", incarnation)
        desk.give(WorkerLost("a", incarnation, from_outside))
    assert desk.refused() == [(request.request_id, "worker_lost")]
    assert f"{deaths} workers died" in desk.refusals()[0].message


def test_a_hello_of_an_instance_that_is_not_planned_is_ignored(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    assert desk.hello("medium") == []
    assert not desk.core.is_current("medium", 1)


def test_what_expires_in_the_queue_is_refused_on_time_and_never_computed(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.submit(20, timeout_ms=50)
    assert desk.core.next_wake(desk.now) == desk.now + 0.05
    desk.after(0.049)
    assert desk.refused() == []
    desk.after(0.002)
    assert desk.refused() == [(1, "deadline")]
    assert "no instance was there to serve it" in desk.refusals()[0].message
    desk.hello("short")
    assert desk.dispatched() == []


def test_what_has_expired_by_the_time_a_worker_comes_is_not_computed(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512), max_batch_tokens=512)
    late, early = desk.submit(20, timeout_ms=50), desk.submit(20)
    desk.now += 0.06
    desk.hello("a")
    assert desk.refused() == [(late.request_id, "deadline")]
    assert desk.running("a").items[0].request is early
    assert desk.lengths_at("a") == [[20]]


def test_a_result_after_the_deadline_is_dropped_in_silence(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short")
    desk.submit(20, timeout_ms=50)
    desk.after(0.06)
    assert desk.refused() == [(1, "deadline")]
    desk.finish("short")
    assert desk.answered() == []


def test_a_deadline_that_cannot_be_met_is_refused_at_the_door_once_costs_are_known(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512))
    desk.hello("a")
    desk.submit(500, timeout_ms=5)
    assert desk.refused() == [], "nothing was observed yet: no guess refuses anybody"
    desk.finish("a", seconds=0.1)
    for _ in range(8):
        desk.submit(500)
        desk.finish("a", seconds=0.1)
    doomed = desk.submit(500, timeout_ms=50)
    (refusal,) = [one for one in desk.refusals() if one.request is doomed]
    assert refusal.reason == "deadline"
    assert "50 ms are allowed" in refusal.message
    fine = desk.submit(500, timeout_ms=500)
    assert fine.unsettled == 1


def test_a_full_queue_refuses_with_a_time_to_retry_and_takes_again_when_there_is_room(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512), queue_limit=2)
    desk.hello("a")
    for _ in range(4):
        desk.submit(500)
    (refusal,) = desk.refusals()
    assert (refusal.request.request_id, refusal.reason) == (4, "queue_full")
    assert refusal.retry_after_ms > 0
    desk.finish("a")
    assert desk.submit(500).unsettled == 1


def test_more_sequences_than_the_queue_can_ever_hold_are_refused_with_the_limit(make_desk: Any) -> None:
    desk = make_desk(*TWO, queue_limit=1024)
    desk.submit(*[10] * 10_000)
    (refusal,) = desk.refusals()
    assert refusal.reason == "too_long"
    assert "10000 sequences" in refusal.message
    assert "1024" in refusal.message
    assert desk.counts.settled == 10_000


def test_a_sequence_that_no_planned_instance_holds_is_refused_at_once(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.submit(3, 513)
    (refusal,) = desk.refusals()
    assert refusal.reason == "too_long"
    assert "513" in refusal.message
    assert "512" in refusal.message


def test_what_a_worker_turns_out_not_to_hold_is_refused_where_it_waits(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512))
    desk.submit(400)
    desk.submit(100)
    desk.hello("a", holds=128)
    assert desk.refused() == [(1, "too_long")]
    assert desk.lengths_at("a") == [[100]]


def test_draining_answers_what_is_there_refuses_what_comes_and_says_so_once(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short")
    desk.submit(20)
    assert desk.give(Drain()) == []
    desk.submit(20)
    assert desk.refused() == [(2, "draining")]
    assert any(isinstance(action, Drained) for action in desk.finish("short"))
    assert desk.give(Drain()) == []


def test_draining_an_idle_router_is_done_at_once(make_desk: Any) -> None:
    assert make_desk(*TWO).give(Drain()) == [Drained()]


def test_a_cancelled_request_leaves_the_queue_and_its_result_is_dropped_in_silence(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512))
    desk.hello("a")
    running, waiting, kept = desk.submit(500), desk.submit(500), desk.submit(500)
    assert desk.cancel(running) == []
    assert desk.cancel(waiting) == []
    assert desk.cancel(waiting) == []
    assert waiting.payload is None
    desk.finish("a")
    assert desk.running("a").items[0].request is kept
    desk.finish("a")
    assert desk.answered() == [(kept.request_id, [0])]
    assert desk.counts.rejected == {"cancelled": 2}


def test_what_is_submitted_and_cancelled_for_ever_does_not_pile_up(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    for _ in range(1000):
        desk.cancel(desk.submit(20, 21))
    (lane, _) = desk.core.roster.lanes
    assert sum(len(bin_) for flow in lane.queue._flows.values() for bin_ in flow.queue._bins) < 200
    assert desk.counts.queued == 0


def test_all_requests_of_a_client_that_has_gone_are_cancelled_and_nobody_elses(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.submit(20, client=Client(b"gone"))
    desk.submit(20, 300, client=Client(b"gone"))
    kept = desk.submit(20)
    desk.give(ClientGone(Client(b"gone")))
    desk.hello("short")
    desk.finish("short")
    assert desk.answered() == [(kept.request_id, [0])]
    assert desk.counts.queued == desk.counts.in_flight == 0


def test_the_same_request_again_while_it_is_in_progress_is_counted_and_dropped(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.submit(20)
    desk.next_id = 0
    desk.submit(20)
    assert desk.counts.duplicates == 1
    assert desk.counts.queued == 1
    desk.hello("short")
    desk.finish("short")
    desk.next_id = 0
    desk.submit(20)
    assert desk.counts.duplicates == 1, "answered: its id is free again"


def test_a_clients_batch_is_split_over_idle_instances_and_gathered(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 128), ("b", 1, 128))
    desk.hello("a")
    desk.hello("b")
    request = desk.submit(*[16] * 8)
    assert sorted(desk.dispatched()) == [("a", [16] * 4), ("b", [16] * 4)]
    desk.finish("b")
    desk.finish("a")
    positions = [position for _, part in desk.answered() for position in part]
    assert sorted(positions) == list(range(8))
    assert request.unsettled == 0


def test_a_long_running_batch_traps_no_work_and_a_short_one_is_followed_without_a_gap(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512))
    desk.hello("a")
    desk.submit(512)
    desk.submit(16)
    assert desk.lengths_at("a") == [[512]], "tens of milliseconds to go: the next one stays where others could take it"
    wake = desk.core.next_wake(desk.now)
    desk.after(wake - desk.now)
    assert desk.lengths_at("a") == [[512], [16]]


def test_an_idle_larger_instance_takes_short_work_that_would_wait(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short")
    desk.hello("long")
    desk.submit(*[32] * 64)
    assert {name for name, _ in desk.dispatched()} == {"short", "long"}
    desk.finish("long")
    assert desk.core.report(desk.now, "ready").instances[1].stolen > 0


def test_under_the_strict_policy_nobody_takes_over(make_desk: Any) -> None:
    desk = make_desk(*TWO, policy="by-seqlen-strict")
    desk.hello("short")
    desk.hello("long")
    desk.submit(*[32] * 64)
    assert {name for name, _ in desk.dispatched()} == {"short"}


def test_a_smaller_instance_leaves_larger_work_that_home_would_finish_earlier(make_desk: Any) -> None:
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    for _ in range(10):
        desk.submit(20)
        desk.finish("short", seconds=0.050)  # fifty times slower than predicted
        desk.submit(500)
        desk.finish("long", seconds=0.040)
    desk.submit(500)
    desk.submit(500)
    assert desk.lengths_at("short") == []


@pytest.mark.parametrize(("slower", "taken_by"), [(1.05, "short"), (3.0, "nobody")])
def test_a_smaller_instance_takes_larger_work_only_if_it_finishes_it_earlier(
    make_desk: Any, slower: float, taken_by: str
) -> None:
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    seconds = desk.core.roster.instances["long"].predictor.seconds
    for _ in range(10):
        desk.submit(20)
        desk.finish(
            "short",
            seconds=slower * desk.running("short").predicted / desk.core.roster.instances["short"].predictor.factor,
        )
    desk.submit(500)
    desk.after(0.027)
    desk.submit(500)
    # At home it would be done after 14 ms and one such time; here after `slower` of them.
    assert desk.running("long").predicted == seconds(500, 1)
    assert desk.lengths_at("short") == ([[500]] if taken_by == "short" else [])


def test_a_lane_without_a_connected_home_is_served_by_whoever_holds_its_lengths(make_desk: Any) -> None:
    desk = make_desk(*TWO, holds=512)
    desk.submit(500)
    desk.hello("short")
    assert desk.dispatched() == [("short", [500])]


def test_a_slow_instance_sheds_load_by_itself(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 256), ("b", 1, 512))
    desk.hello("a")
    desk.hello("b")
    for _ in range(30):
        desk.submit(200)
        desk.finish("a", seconds=0.2)
    desk.submit(200)
    desk.submit(200)
    assert desk.lengths_at("b") == [[200]]


def test_round_robin_gives_each_sequence_to_the_next_instance_and_moves_what_the_lost_one_had(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512), ("b", 1, 512), policy="round-robin", max_batch_tokens=1)
    desk.hello("a")
    desk.hello("b")
    for _ in range(6):
        desk.submit(400)
    assert [lane.queue.size for lane in desk.core.roster.lanes] == [2, 2]
    desk.lose("a")
    assert [lane.queue.size for lane in desk.core.roster.lanes] == [0, 5]
    desk.hello("a", 2)
    desk.submit(400)
    desk.submit(400)
    assert {name for name, _ in desk.dispatched()[-1:]} == {"a"}


def test_a_queue_delay_waits_for_a_fuller_batch_and_no_longer(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 32), max_queue_delay_ms=5.0, max_batch_tokens=64)
    desk.hello("a")
    desk.submit(16)
    assert desk.dispatched() == []
    assert desk.core.next_wake(desk.now) == desk.now + 0.005
    desk.after(0.004)
    desk.submit(16)
    assert desk.dispatched() == []
    desk.after(0.0011)
    assert desk.dispatched() == [("a", [16, 16])]
    desk.finish("a")
    for _ in range(4):
        desk.submit(16)
    assert desk.dispatched()[-1] == ("a", [16] * 4), "full: it need not wait"


def test_a_changed_plan_moves_what_waits_and_a_retired_instance_only_finishes_what_it_has(
    make_desk: Any, make_plan: Any
) -> None:
    desk = make_desk(("a", 1, 512))
    desk.hello("a")
    first, second = desk.submit(500), desk.submit(500)
    desk.give(PlanChanged(make_plan(("b", 1, 512))))
    desk.hello("b")
    assert desk.running("b").items[0].request is second
    desk.finish("a")
    assert desk.answered() == [(first.request_id, [0])]
    desk.submit(500)
    assert desk.lengths_at("a") == []
    desk.lose("a")
    assert [one.name for one in desk.core.report(desk.now, "ready").instances] == ["b"]


def test_a_plan_without_room_for_what_waits_refuses_it(make_desk: Any, make_plan: Any) -> None:
    desk = make_desk(("a", 1, 512))
    desk.submit(500)
    desk.submit(20)
    desk.give(PlanChanged(make_plan(("b", 1, 128))))
    assert desk.refused() == [(1, "too_long")]
    assert desk.counts.queued == 1


def test_the_story_is_bounded_and_keeps_no_tensor_alive(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short")
    for _ in range(STORY_LENGTH):
        desk.submit(20)
        desk.finish("short")
    story = desk.core.story
    assert len(story) == STORY_LENGTH
    assert [event.payload for _, event, _ in story if hasattr(event, "payload")] == [None] * (STORY_LENGTH // 2)
    assert not any(request.items for _, request, _ in story if hasattr(request, "items"))


def test_the_report_shares_out_what_waits_so_that_the_sum_is_right(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 32), ("b", 1, 32), ("long", 33, 512))
    for _ in range(5):
        desk.submit(20)
    desk.submit(100)
    desk.now += 2.0
    report = desk.core.report(desk.now, "ready")
    assert [one.queue_depth for one in report.instances] == [3, 2, 1]
    assert report.router.queued == 6
    assert report.instances[0].oldest_wait_ms == 2000.0


def test_the_report_counts_tokens_padding_latency_and_rates(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 512))
    desk.core.report(desk.now, "ready")
    desk.submit(16)
    desk.submit(12)
    desk.hello("a")
    desk.finish("a", seconds=0.010)
    desk.now += 0.99
    (one,) = desk.core.report(desk.now, "ready").instances
    assert (one.served, one.batches, one.batch_mean, one.tokens, one.padded_tokens) == (2, 1, 2.0, 28, 32)
    assert one.padding_ratio == 1 - 28 / 32
    assert abs(one.sequences_per_second - 2.0) < 1e-6
    assert abs(one.busy_ratio - 0.01) < 1e-6
    assert one.latency_ms.p50 is not None
    assert 8.0 < one.latency_ms.p50 <= 10.0
    assert one.latency_buckets[-1] == 2
    assert abs(one.latency_sum_seconds - 0.020) < 1e-9


def test_an_event_of_a_worker_does_not_need_the_worker_to_be_known(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    assert desk.lose("nobody") == []
    assert desk.give(WorkerLeft("nobody", 1)) == []
    assert desk.give(Undelivered("nobody", 1, 1)) == []
    assert desk.give(WorkerHello("nobody", 1, 1)) == []


def test_a_short_instance_takes_nothing_heavy_while_nobody_could_relieve_its_own(make_desk: Any) -> None:
    """512 tokens are expected to take 43 ms, the longest short sequence 1.7 ms."""
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    desk.submit(512)
    desk.submit(512)
    assert desk.lengths_at("long") == [[512]]
    assert desk.lengths_at("short") == []
    desk.after(0.019)  # 24 ms before long is through
    assert desk.lengths_at("short") == []
    desk.after(0.003)  # 21 ms: within thirteen times 1.7 ms
    assert desk.lengths_at("short") == [[512]]


def test_a_short_instance_takes_what_is_light_behind_something_heavy_that_it_leaves(make_desk: Any) -> None:
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    desk.submit(512)
    desk.submit(512)
    desk.submit(100)
    desk.after(0.001)  # it has just looked, and looks again when an idle one may have reason to
    assert desk.lengths_at("short") == [[100]]
    desk.finish("short", seconds=0.005)
    assert desk.lengths_at("short") == []


def test_short_work_stuck_behind_something_heavy_goes_before_the_own_work_of_a_larger_instance(make_desk: Any) -> None:
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    desk.submit(512)
    desk.after(0.027)
    desk.submit(512)
    assert desk.lengths_at("short") == [[512]]
    desk.submit(500)
    desk.submit(10)
    desk.submit(12)
    desk.finish("long", seconds=0.010)
    assert desk.lengths_at("long")[0] == [10, 12]
    desk.finish("long", seconds=0.002)
    assert desk.lengths_at("long")[0] == [500]


def test_what_is_too_heavy_to_pay_does_not_keep_a_short_instance_from_what_is_lighter(make_desk: Any) -> None:
    """12 ms before long is through, 512 tokens may be taken over, yet would be done sooner at home by an instance twice as slow."""
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    desk.submit(32)
    desk.finish("short", seconds=2 * desk.running("short").predicted)
    desk.submit(512)
    desk.now += 0.031
    desk.submit(512)
    desk.submit(100)
    desk.after(0.001)
    assert desk.lengths_at("short") == [[100]]


def test_a_long_instance_begins_what_is_light_while_the_short_one_is_in_something_heavy(make_desk: Any) -> None:
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    desk.submit(512)
    desk.after(0.027)
    desk.submit(512)
    assert desk.lengths_at("short") == [[512]]
    desk.submit(500)
    desk.submit(100)
    desk.finish("long", seconds=0.016)
    assert desk.lengths_at("long") == [[100]], "whoever is short and comes now waits for 5 ms, not for 43"
    desk.finish("long", seconds=0.005)
    assert desk.lengths_at("long") == [[500]], "nothing light is left: it does not idle"


def test_short_work_that_its_own_instance_will_soon_have_time_for_is_left_to_it(make_desk: Any) -> None:
    desk = make_desk(*TWO, holds=512)
    desk.hello("short")
    desk.hello("long")
    desk.submit(100)
    desk.submit(30)
    desk.submit(10)
    desk.submit(500)
    desk.finish("long", seconds=0.0001)
    assert desk.lengths_at("long") == [[500]]
