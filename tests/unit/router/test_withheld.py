"""Does a withheld instance get nothing new, answer what it holds, and does the router say when it holds nothing?"""

from __future__ import annotations

from typing import Any

from orchestrator.router.events import Action, Drain, Drained, Held, Hold, Release

TWO = (("short-0", 1, 32), ("long-0", 33, 512))
ONE = (("all-0", 1, 512),)


def held(actions: list[Action]) -> list[str]:
    return [action.name for action in actions if isinstance(action, Held)]


def test_an_idle_instance_holds_nothing_at_once_and_again_if_asked_again(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short-0")
    assert held(desk.give(Hold("short-0"))) == ["short-0"]
    assert held(desk.give(Hold("short-0"))) == ["short-0"]


def test_an_instance_that_is_away_or_unknown_holds_nothing(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    assert held(desk.give(Hold("short-0"))) == ["short-0"]
    assert held(desk.give(Hold("nobody"))) == ["nobody"]


def test_what_runs_and_what_is_prefetched_is_answered_before_it_is_said_to_hold_nothing(make_desk: Any) -> None:
    desk = make_desk(*ONE)
    desk.hello("all-0")
    for _ in range(3):
        desk.submit(500)
    desk.after(10.0)  # the running batch is overdue: the next one was given in advance
    assert desk.lengths_at("all-0") == [[500], [500]]
    assert held(desk.give(Hold("all-0"))) == []
    assert held(desk.finish("all-0")) == []
    assert held(desk.finish("all-0")) == ["all-0"]
    assert desk.answered() == [(1, [0]), (2, [0])]
    assert desk.counts.queued == 1


def test_the_only_instance_withheld_leaves_requests_waiting_until_it_is_released(make_desk: Any) -> None:
    desk = make_desk(*ONE)
    desk.hello("all-0")
    desk.give(Hold("all-0"))
    desk.submit(20)
    assert desk.dispatched() == []
    desk.give(Release("all-0"))
    assert desk.dispatched() == [("all-0", [20])]
    desk.finish("all-0")
    assert desk.answered() == [(1, [0])]


def test_what_waits_for_a_withheld_instance_keeps_its_deadline(make_desk: Any) -> None:
    desk = make_desk(*ONE)
    desk.hello("all-0")
    desk.give(Hold("all-0"))
    desk.submit(20, timeout_ms=50)
    desk.after(0.051)
    assert desk.refused() == [(1, "deadline")]


def test_another_instance_serves_its_bucket_meanwhile(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short-0")
    desk.hello("long-0")
    desk.give(Hold("short-0"))
    desk.submit(20)
    assert desk.dispatched() == [("long-0", [20])]


def test_a_rotation_passes_over_it_and_gives_on_what_waited_there(make_desk: Any) -> None:
    desk = make_desk(("all-0", 1, 512), ("all-1", 1, 512), policy="round-robin")
    desk.hello("all-0")
    desk.hello("all-1")
    for _ in range(4):
        desk.submit(500)
    desk.give(Hold("all-0"))
    for _ in range(3):
        desk.finish("all-1")
    assert [name for name, _ in desk.dispatched()] == ["all-0", "all-1", "all-1", "all-1"]


def test_it_stays_withheld_over_incarnations_until_it_is_released(make_desk: Any) -> None:
    desk = make_desk(*ONE)
    desk.hello("all-0")
    desk.give(Hold("all-0"))
    desk.lose("all-0")
    desk.submit(20)
    desk.hello("all-0", 2)
    assert desk.dispatched() == []
    desk.give(Release("all-0"))
    assert desk.dispatched() == [("all-0", [20])]


def test_a_death_while_it_is_withheld_loses_nothing_and_ends_the_waiting(make_desk: Any) -> None:
    desk = make_desk(*TWO)
    desk.hello("short-0")
    desk.hello("long-0")
    desk.submit(20)
    assert held(desk.give(Hold("short-0"))) == []
    assert held(desk.lose("short-0")) == ["short-0"]
    assert desk.dispatched() == [("short-0", [20]), ("long-0", [20])]
    desk.finish("long-0")
    assert desk.answered() == [(1, [0])]


def test_a_release_while_it_still_computes_lets_it_prefetch_again(make_desk: Any) -> None:
    desk = make_desk(*ONE)
    desk.hello("all-0")
    desk.submit(500)
    desk.submit(500)
    desk.give(Hold("all-0"))
    desk.after(10.0)
    assert desk.lengths_at("all-0") == [[500]]
    desk.give(Release("all-0"))
    assert desk.lengths_at("all-0") == [[500], [500]]


def test_a_drain_ends_once_a_released_instance_has_answered_what_waited(make_desk: Any) -> None:
    desk = make_desk(*ONE)
    desk.hello("all-0")
    desk.give(Hold("all-0"))
    desk.submit(20)
    assert not any(isinstance(action, Drained) for action in desk.give(Drain()))
    desk.give(Release("all-0"))
    assert any(isinstance(action, Drained) for action in desk.finish("all-0"))
