"""Which sequences make the next batch?"""

from __future__ import annotations

import pytest

from orchestrator.router.buckets import LengthClasses
from orchestrator.router.cost import Shape
from orchestrator.router.events import QUEUED, SETTLED, Client, Item, Request
from orchestrator.router.queue import LengthQueue

INT8 = Shape(0.4e-3, 38e-6, 0.09e-6)
ALL = -1


def queue_of(*lengths: int, classes: LengthClasses | None = None) -> tuple[LengthQueue, list[Item]]:
    queue = LengthQueue(classes or LengthClasses.over([512]))
    request = Request(Client(b"c"), 1, list(lengths))
    items = [Item(request, rank, length, rank) for rank, length in enumerate(lengths)]
    for item in items:
        queue.push(item)
    return queue, items


def take(
    queue: LengthQueue, *, classes: int = ALL, shape: Shape = INT8, max_tokens: int = 512, **limits: int
) -> list[int]:
    batch = queue.take(classes, shape, max_tokens=max_tokens, **limits)
    queue.validate()
    return [item.length for item in batch]


def test_the_oldest_head_of_all_bins_goes_first() -> None:
    queue, _ = queue_of(300, 16, 100)
    assert [take(queue), take(queue), take(queue), take(queue)] == [[300], [16], [100], []]


def test_similar_lengths_are_batched_together_and_others_wait() -> None:
    queue, _ = queue_of(16, 300, 15, 100, 14)
    assert take(queue) == [16, 15, 14]


def test_a_batch_is_filled_from_the_next_shorter_bins_but_not_from_longer_ones() -> None:
    queue, _ = queue_of(16, 8, 24)
    assert take(queue, shape=Shape(5e-3, 38e-6, 0.0)) == [16, 8]
    assert take(queue) == [24]


def test_padded_tokens_stay_within_the_budget() -> None:
    queue, _ = queue_of(*[16] * 40)
    assert take(queue, max_tokens=128) == [16] * 8
    assert take(queue, max_tokens=1) == [16], "one sequence always goes"


def test_long_sequences_are_not_batched_since_it_gains_nothing() -> None:
    queue, _ = queue_of(128, 128)
    assert take(queue, max_tokens=4096) == [128]


def test_where_a_call_costs_nothing_padding_is_never_worth_it() -> None:
    queue, _ = queue_of(16, 15)
    assert take(queue, shape=Shape(0.0, 1e-3, 0.0)) == [16]


def test_no_more_joins_than_was_asked_for_or_fits_the_time() -> None:
    queue, _ = queue_of(*[16] * 10)
    assert take(queue, max_n=3) == [16] * 3
    batch = queue.take(ALL, INT8, max_tokens=512, max_seconds=INT8.seconds(16, 2) + 1e-9)
    assert len(batch) == 2


def test_an_instance_is_given_only_the_classes_that_it_holds() -> None:
    classes = LengthClasses.over([32, 512])
    queue, _ = queue_of(400, 20, classes=classes)
    assert take(queue, classes=classes.held_by(32)) == [20]
    assert take(queue, classes=classes.held_by(32)) == []
    assert take(queue, classes=classes.held_by(512)) == [400]


def test_what_comes_back_goes_before_all_that_arrived_later_whatever_the_order_of_coming_back() -> None:
    queue, items = queue_of(16, 16, 16, 16, 16)
    first, second = queue.take(ALL, INT8, max_tokens=512, max_n=2), queue.take(ALL, INT8, max_tokens=512, max_n=2)
    queue.push_front(first)
    queue.push_front(second)
    queue.validate()
    assert queue.take(ALL, INT8, max_tokens=512) == items


def test_what_must_compute_alone_joins_nobody_and_is_joined_by_nobody() -> None:
    queue, items = queue_of(16, 16, 16)
    items[1].alone = True
    assert [take(queue), take(queue), take(queue)] == [[16], [16], [16]]


def test_the_cancelled_are_passed_over_and_swept_when_they_outnumber_the_living() -> None:
    queue, items = queue_of(*[16] * 200)
    for item in items[:190]:
        item.state = SETTLED
        queue.forget(item)
    queue.validate()
    queue.sweep()
    queue.validate()
    assert queue.waiting() == items[190:]
    assert len(queue.take(ALL, INT8, max_tokens=512)) == 10


def test_a_cancelled_head_does_not_hide_who_is_oldest() -> None:
    queue, items = queue_of(16, 300, 16)
    items[0].state = SETTLED
    queue.forget(items[0])
    assert queue.oldest(ALL) is items[1]
    queue.validate()


def test_draining_returns_the_living_in_order_of_arrival() -> None:
    queue, items = queue_of(300, 16, 100)
    items[1].state = SETTLED
    queue.forget(items[1])
    assert queue.drain() == [items[0], items[2]]
    queue.validate()
    assert queue.size == 0


def test_the_backlog_is_the_sum_of_what_each_would_take_alone() -> None:
    queue, _ = queue_of(16, 300, 100)
    assert queue.backlog(INT8) == pytest.approx(sum(INT8.seconds(length, 1) for length in (16, 300, 100)))


def test_the_check_notices_wrong_counts() -> None:
    queue, items = queue_of(16, 16)
    items[0].state = SETTLED
    with pytest.raises(AssertionError, match="counts"):
        queue.validate()
    items[0].state = QUEUED
    items[0].rank = 9
    with pytest.raises(AssertionError, match="out of order"):
        queue.validate()
