"""Whose turn is it: between classes of priority, between tenants, and when the queue is full?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from orchestrator.router.admission import whom_to_displace
from orchestrator.router.buckets import LengthClasses
from orchestrator.router.cost import Shape
from orchestrator.router.events import SETTLED, Client, Item, Request
from orchestrator.router.flows import HEAD_START_SECONDS, FlowQueue, Tenants

INTERACTIVE, NORMAL, BULK = 0, 1, 2
ALL = -1
FLAT = Shape(1e-3, 0.0, 0.0)
"""Every call costs the same: batches are as large as they may be."""
LINEAR = Shape(0.0, 1e-6, 0.0)
"""Nothing is gained by batching: sequences go one by one."""
ONE = ("a", 1, 512)


class Waiting:
    """A queue, and who put what into it."""

    def __init__(self) -> None:
        self.queue = FlowQueue(LengthClasses.over([512]))
        self.tenants = Tenants()
        self.rank = 0

    def put(self, tenant: int, *lengths: int, priority: int = NORMAL, at: float = 0.0) -> list[Item]:
        items = []
        for length in lengths:
            request = Request(Client(b"c"), self.rank, [length], priority=priority, tenant=tenant, arrived=at)
            self.tenants.enter(request)
            request.turn = at + HEAD_START_SECONDS[priority]
            items.append(Item(request, 0, length, self.rank))
            self.queue.push(items[-1])
            self.rank += 1
        self.queue.validate()
        return items

    def take(self, shape: Shape = LINEAR, **limits: Any) -> list[tuple[int, int]]:
        """(tenant, length) of the next batch."""
        batch = self.queue.take(ALL, shape, max_tokens=512, **limits)
        self.queue.validate()
        return [(item.request.tenant, item.length) for item in batch]


def next_priorities(desk: Any, turns: int) -> list[int]:
    """Priorities of what an instance computes next, batch by batch."""
    found = []
    for _ in range(turns):
        desk.finish("a")
        found.append(desk.running("a").items[0].request.priority)
    return found


def test_the_more_urgent_class_goes_first_and_within_a_class_who_came_first(make_desk: Any) -> None:
    desk = make_desk(ONE)
    desk.hello("a")
    for priority in (NORMAL, BULK, NORMAL, INTERACTIVE, BULK, INTERACTIVE):
        desk.submit(500, priority=priority)
    assert next_priorities(desk, 5) == [INTERACTIVE, INTERACTIVE, NORMAL, BULK, BULK]


@pytest.mark.parametrize(("priority", "behind"), [(NORMAL, 3.0), (BULK, 30.0)])
def test_who_has_waited_longer_than_the_head_start_goes_before_an_interactive_newcomer(
    make_desk: Any, priority: int, behind: float
) -> None:
    for late, first in ((-0.5, INTERACTIVE), (0.5, priority)):
        desk = make_desk(ONE)
        desk.hello("a")
        desk.submit(500)
        desk.submit(500, priority=priority)
        desk.now += behind + late
        desk.submit(500, priority=INTERACTIVE)
        assert next_priorities(desk, 1) == [first]


def test_bulk_is_served_within_its_head_start_under_endless_interactive_load(make_desk: Any) -> None:
    desk = make_desk(ONE)
    desk.hello("a")
    desk.submit(500, priority=INTERACTIVE)
    bulk = desk.submit(500, priority=BULK)
    began = desk.now
    while desk.running("a").items[0].request is not bulk:
        desk.submit(500, priority=INTERACTIVE)
        desk.finish("a", seconds=0.2)
        assert desk.now - began < 32.0, "bulk starves"
    assert desk.now - began >= 30.0, "and not before its time"


def test_a_long_queue_of_one_tenant_does_not_delay_another() -> None:
    waiting = Waiting()
    waiting.put(1, *[100] * 50)
    waiting.put(2, *[100] * 3)
    assert [tenant for _ in range(6) for tenant, _ in waiting.take()] == [1, 2, 1, 2, 1, 2]


def test_tenants_share_the_work_and_not_the_number_of_requests() -> None:
    waiting = Waiting()
    waiting.put(1, *[400] * 40)
    waiting.put(2, *[100] * 160)
    served = Counter[int]()
    for _ in range(100):
        for tenant, length in waiting.take():
            served[tenant] += length
    assert served[1] == pytest.approx(served[2], abs=400)


def test_who_was_away_neither_saves_turns_up_nor_loses_any() -> None:
    waiting = Waiting()
    waiting.put(1, *[100] * 60)
    waiting.put(2, 100)
    for _ in range(20):
        waiting.take()
    waiting.put(2, *[100] * 10)
    assert Counter(tenant for _ in range(10) for tenant, _ in waiting.take()) == {1: 5, 2: 5}


def test_a_batch_is_filled_across_tenants_but_not_with_what_is_less_urgent() -> None:
    waiting = Waiting()
    waiting.put(1, 16, 16)
    waiting.put(2, 16)
    waiting.put(3, 16, priority=BULK)
    waiting.put(4, 300, priority=BULK)
    assert waiting.take(FLAT) == [(1, 16), (1, 16), (2, 16)]
    assert waiting.take(FLAT) == [(3, 16)]
    assert waiting.take(FLAT) == [(4, 300)]
    assert waiting.take(FLAT) == []


def test_a_bulk_batch_whose_turn_has_come_takes_the_more_urgent_along() -> None:
    waiting = Waiting()
    waiting.put(1, 16, priority=BULK)
    waiting.put(1, 16, priority=INTERACTIVE, at=31.0)
    assert waiting.take(FLAT) == [(1, 16), (1, 16)]


def test_limits_of_a_batch_hold_across_tenants() -> None:
    waiting = Waiting()
    for tenant in range(1, 6):
        waiting.put(tenant, *[64] * 4)
    assert len(waiting.take(FLAT)) == 8, "512 tokens"
    assert len(waiting.take(FLAT, max_n=5)) == 5
    assert len(waiting.take(FLAT, max_seconds=0.5e-3)) == 1


def test_what_returns_and_what_is_forgotten_keeps_the_counts_of_all_flows() -> None:
    waiting = Waiting()
    first = waiting.put(1, 16, 15)
    waiting.put(2, 14)
    batch = waiting.queue.take(ALL, FLAT, max_tokens=512)
    assert [item.length for item in batch] == [16, 15, 14]
    waiting.queue.push_front(batch)
    waiting.queue.validate()
    for item in first:
        item.state = SETTLED
        waiting.queue.forget(item)
    waiting.queue.sweep()
    waiting.queue.validate()
    assert waiting.queue.tokens == 14
    assert waiting.queue.newest(first[0].request.flow) is None
    assert waiting.queue.drain() == batch[2:]
    waiting.queue.validate()


def test_a_thousand_tenants_are_all_served_and_their_numbers_come_back() -> None:
    waiting = Waiting()
    items = [waiting.put(tenant, 100)[0] for tenant in range(1, 1001)]
    assert sorted(tenant for _ in range(1000) for tenant, _ in waiting.take()) == list(range(1, 1001))
    assert len({item.request.flow for item in items}) == 64 + 16
    for item in items:
        waiting.tenants.leave(item.request)
    assert len(waiting.tenants) == 0
    assert len({waiting.put(tenant, 100)[0].request.flow for tenant in range(2001, 2065)}) == 64


def test_the_check_of_the_flows_notices_what_is_lost() -> None:
    waiting = Waiting()
    waiting.put(1, 16)
    waiting.queue.size = 2
    with pytest.raises(AssertionError, match="are counted"):
        waiting.queue.validate()


# ---- deadlines


def test_a_deadline_is_judged_by_what_goes_before_the_request_and_not_by_what_it_overtakes(make_desk: Any) -> None:
    desk = make_desk(ONE)
    desk.hello("a")
    for _ in range(10):  # until predictions are trusted
        desk.submit(500)
        desk.finish("a", seconds=0.1)
    for _ in range(50):
        desk.submit(500, priority=BULK, tenant=1)
    in_time = [desk.submit(500, timeout_ms=1000, priority=priority, tenant=2) for priority in (INTERACTIVE, NORMAL)]
    light = desk.submit(500, timeout_ms=1000, priority=BULK, tenant=3)
    assert desk.refused() == []
    heavy = desk.submit(500, timeout_ms=1000, priority=BULK, tenant=1)
    assert desk.refused() == [(heavy.request_id, "deadline")]
    assert {one.request_id for one in (*in_time, light)} <= {request for _, request in desk.core.ledger.requests}
    for _ in range(4):
        desk.finish("a", seconds=0.1)
    answered = {request for request, _ in desk.answered()}
    assert {one.request_id for one in in_time} <= answered, "and they were in time indeed"


def test_what_goes_before_a_newcomer_is_the_more_urgent_and_a_fair_share_of_its_class() -> None:
    waiting = Waiting()
    waiting.put(1, *[100] * 9, priority=INTERACTIVE)
    waiting.put(2, *[100] * 5)
    mine = waiting.put(3, *[100] * 2)[0].request.flow
    waiting.put(4, *[100] * 7, priority=BULK)
    sequences = {
        "normal, with two waiting": waiting.queue.ahead_of(mine, NORMAL, LINEAR) / 1e-4,
        "normal, new": waiting.queue.ahead_of(None, NORMAL, LINEAR) / 1e-4,
        "interactive, new": waiting.queue.ahead_of(None, INTERACTIVE, LINEAR) / 1e-4,
        "bulk, new": waiting.queue.ahead_of(None, BULK, LINEAR) / 1e-4,
    }
    assert {what: round(number) for what, number in sequences.items()} == {
        "normal, with two waiting": 9 + 2 + 2,
        "normal, new": 9,
        "interactive, new": 0,
        "bulk, new": 9 + 5 + 2,
    }


# ---- a full queue


def test_a_full_queue_gives_its_newest_bulk_request_up_for_a_normal_one(make_desk: Any) -> None:
    desk = make_desk(ONE, queue_limit=4)
    desk.hello("a")
    desk.submit(500)
    older, newer = desk.submit(500, priority=BULK), desk.submit(500, priority=BULK)
    desk.submit(500)
    desk.submit(500)
    came = desk.submit(500)
    assert desk.refused() == [(newer.request_id, "queue_full")]
    assert desk.refusals()[0].retry_after_ms >= 1
    assert desk.counts.displaced == 1
    assert {older.request_id, came.request_id} <= {request for _, request in desk.core.ledger.requests}


def test_among_equals_the_tenant_with_most_waiting_makes_room_for_one_with_less(make_desk: Any) -> None:
    desk = make_desk(ONE, queue_limit=6)
    desk.hello("a")
    desk.submit(500, tenant=1)
    heavy = [desk.submit(500, tenant=1) for _ in range(6)]
    light = [desk.submit(500, tenant=2) for _ in range(4)]
    assert desk.refused() == [(one.request_id, "queue_full") for one in (*reversed(heavy[3:]), light[3])]


def test_nobody_is_displaced_for_what_does_not_fit_anyway(make_desk: Any) -> None:
    desk = make_desk(ONE, queue_limit=6)
    desk.hello("a")
    desk.submit(500)
    for _ in range(4):
        desk.submit(500)
    for _ in range(2):
        desk.submit(500, priority=BULK)
    many = desk.submit(*[500] * 3, priority=INTERACTIVE, tenant=9)
    assert desk.refused()[-1] != (many.request_id, "queue_full"), "normal ones make room as well"
    more = desk.submit(*[500] * 7, priority=INTERACTIVE)
    assert desk.refused()[-1] == (more.request_id, "too_long")
    bulk = desk.submit(500, priority=BULK)
    assert desk.refused()[-1] == (bulk.request_id, "queue_full")


@pytest.mark.parametrize(
    ("held", "mine", "priority", "n", "need", "expected"),
    [
        ({}, None, NORMAL, 1, 1, None),
        ({1: 5, 2: 1, 5: 9}, 1, NORMAL, 1, 1, 5),
        ({1: 5, 2: 9, 0: 9}, 1, NORMAL, 1, 1, 2),
        ({1: 5, 4: 6}, 1, NORMAL, 1, 1, None),
        ({1: 5, 4: 7}, 1, NORMAL, 1, 1, 4),
        ({4: 7}, None, NORMAL, 4, 4, None),
        ({0: 7, 3: 9}, None, NORMAL, 1, 1, None),
    ],
)
def test_whom_a_newcomer_displaces(
    held: dict[int, int], mine: int | None, priority: int, n: int, need: int, expected: int | None
) -> None:
    assert whom_to_displace(held, mine, priority, n, need) == expected


# ---- what is told of it


def test_the_report_tells_per_bucket_what_waits_what_left_and_what_spilled(make_desk: Any) -> None:
    desk = make_desk(("short", 1, 32), ("long", 33, 512))
    desk.hello("short")
    desk.hello("long")
    for _ in range(2):  # costs are learnt: a sequence takes what it takes
        desk.submit(20)
        desk.finish("short", seconds=10.0)
        desk.submit(400)
        desk.finish("long", seconds=1.0)
    desk.submit(20)
    desk.submit(20, 20, priority=INTERACTIVE)
    desk.submit(20, priority=BULK)
    desk.now += 0.5
    short, long = desk.core.report(desk.now, "ready").router.buckets
    assert (short.bucket.min, short.bucket.max, short.instances) == (1, 32, ["short"])
    assert sum(short.queued.values()) == desk.counts.queued
    assert set(short.queued) == {"interactive", "normal", "bulk"}
    assert short.spilled >= 1, "the long one was idle, and is faster by now"
    assert short.dispatched + long.dispatched == desk.counts.submitted - desk.counts.queued
    assert short.oldest_wait_ms == (pytest.approx(500.0) if desk.counts.queued else 0.0)
    assert long.queued == {"interactive": 0, "normal": 0, "bulk": 0}


def test_predicted_and_observed_service_time_and_waits_are_added_up(make_desk: Any) -> None:
    desk = make_desk(ONE)
    desk.hello("a")
    predicted = 0.0
    for _ in range(3):
        desk.submit(100)
        predicted += desk.running("a").predicted
        desk.finish("a", seconds=0.25)
    desk.submit(100)
    desk.submit(100)
    desk.finish("a", seconds=0.25)
    desk.finish("a", seconds=0.25)
    (one,) = desk.core.report(desk.now, "ready").instances
    assert one.service_seconds == pytest.approx(5 * 0.25)
    assert one.wait_seconds == pytest.approx(0.25), "only the last one waited, for the one before it"
    assert one.predicted_seconds > predicted > 0.0
    assert one.cost_factor > 1.0
    assert one.sequences == 5
    desk.submit(100)
    desk.lose("a")
    assert desk.core.report(desk.now, "ready").instances[0].retried == 1


def test_buckets_of_one_name_are_one_where_each_instance_has_a_lane_of_its_own(make_desk: Any) -> None:
    desk = make_desk(("a", 1, 32), ("b", 1, 32), ("c", 33, 512), policy="round-robin")
    for _ in range(4):
        desk.submit(20)
    short, long = desk.core.report(desk.now, "ready").router.buckets
    assert (short.instances, long.instances) == (["a", "b"], ["c"])
    assert short.queued["normal"] + long.queued["normal"] == 4
