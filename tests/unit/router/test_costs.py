"""What does the router believe of an instance's speed: what was measured, what it sees, and what cannot be?"""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.router.cost import Shape, fitted
from orchestrator.router.events import Note, PlanChanged, WorkerHello
from workers.wire import Cost

# all-MiniLM-L6-v2 in int8 on one core, milliseconds.
MEASURED = [(16, 1, 1.00), (64, 1, 3.22), (128, 1, 6.34), (384, 1, 29.6), (512, 1, 43.6), (16, 8, 5.41), (128, 8, 53.6)]
POINTS = [Cost(length, n, ms * 1e-3) for length, n, ms in MEASURED]
SLOW = [Cost(length, n, ms * 5e-3) for length, n, ms in MEASURED]


@pytest.mark.parametrize(
    "shape", [Shape(1e-3, 4e-5, 1e-7), Shape(0.0, 4e-5, 1e-7), Shape(1e-3, 4e-5, 0.0), Shape(1e-3, 0.0, 0.0)]
)
def test_points_that_follow_a_shape_give_it_back(shape: Shape) -> None:
    points = [Cost(length, n, shape.seconds(length, n)) for length in (8, 64, 512) for n in (1, 8)]
    found = fitted(points)
    assert found is not None
    for point in points:
        assert found.seconds(point.length, point.n) == pytest.approx(point.seconds, rel=1e-6)


def test_a_fit_to_a_real_table_is_off_by_less_than_a_quarter_everywhere() -> None:
    shape = fitted(POINTS)
    assert shape is not None
    assert min(shape.call, shape.token, shape.square) >= 0.0
    for point in POINTS:
        assert shape.seconds(point.length, point.n) == pytest.approx(point.seconds, rel=0.25)


def test_one_point_is_enough_for_something_and_none_for_nothing() -> None:
    one = fitted([Cost(16, 1, 1e-3)])
    assert one is not None
    assert one.seconds(16, 1) == pytest.approx(1e-3)
    assert fitted([]) is None


@pytest.mark.parametrize(
    "bad", [Cost(16, 1, 0.0), Cost(16, 1, -1.0), Cost(16, 1, float("nan")), Cost(16, 1, float("inf")), Cost(0, 1, 1.0), Cost(1, 0, 1.0)]
)  # fmt: skip
def test_a_table_with_an_impossible_point_is_not_believed(make_desk: Any, bad: Cost) -> None:
    assert fitted([*POINTS, bad]) is None
    desk = make_desk(("a", 1, 512))
    before = desk.core.roster.instances["a"].predictor.shape
    actions = desk.give(WorkerHello("a", 1, 512, costs=(*POINTS, bad)))
    assert any(isinstance(action, Note) and "costs ignored" in action.text for action in actions)
    assert desk.core.roster.instances["a"].predictor.shape == before
    desk.submit(16)
    assert desk.lengths_at("a") == [[16]]


def test_what_a_worker_measured_decides_from_the_first_request_on_who_computes_it(make_desk: Any) -> None:
    for slow, fast in (("a", "b"), ("b", "a")):
        desk = make_desk(("a", 1, 512), ("b", 1, 512), policy="shortest-completion")
        desk.give(WorkerHello(slow, 1, 512, costs=tuple(SLOW)))
        desk.give(WorkerHello(fast, 1, 512, costs=tuple(POINTS)))
        desk.submit(128)
        assert desk.dispatched() == [(fast, [128])]


def test_a_plan_that_changes_keeps_what_was_measured_and_a_new_incarnation_measures_anew(
    make_desk: Any, make_plan: Any
) -> None:
    desk = make_desk(("a", 1, 512))
    desk.give(WorkerHello("a", 1, 512, costs=tuple(POINTS)))
    desk.give(PlanChanged(make_plan(("a", 1, 512), ("b", 1, 32))))
    assert desk.core.roster.instances["a"].predictor.shape == fitted(POINTS)
    desk.give(WorkerHello("a", 2, 512, costs=tuple(SLOW)))
    assert desk.core.roster.instances["a"].predictor.shape == fitted(SLOW)


def test_batches_are_as_large_as_the_measured_gain_makes_worth_it(make_desk: Any) -> None:
    """An engine whose calls are dear gets larger batches of the same waiting work than one whose calls are cheap."""
    sizes = []
    for call in (0.0, 5e-3):
        shape = Shape(call, 40e-6, 0.0)
        desk = make_desk(("a", 1, 512))
        desk.give(
            WorkerHello("a", 1, 512, costs=tuple(Cost(at, n, shape.seconds(at, n)) for at in (8, 64) for n in (1, 4)))
        )
        for _ in range(9):
            desk.submit(32)
        desk.finish("a", seconds=shape.seconds(32, 1))
        sizes.append(len(desk.running("a").items))
    assert sizes == [1, 8]


def test_a_slow_instance_sheds_load_by_itself_and_gets_it_back_when_it_is_well(make_desk: Any) -> None:
    """Two equal instances; one takes four times as long for a while (heat, a noisy neighbour). Nobody tells the router."""

    def share_of_a(slowdown: float, desk: Any) -> float:
        served = {"a": 0, "b": 0}
        ends: dict[str, float] = {}
        for _ in range(400):
            while desk.counts.queued < 4:
                desk.submit(128)
            for name in ("a", "b"):
                flight = desk.core.roster.instances[name].running
                if flight is not None and name not in ends:
                    n = len(flight.items)
                    ends[name] = desk.now + 6e-3 * n * (slowdown if name == "a" else 1.0)
            name = min(ends, key=lambda one: ends[one])
            served[name] += len(desk.running(name).items)
            desk.finish(name, seconds=max(0.0, ends.pop(name) - desk.now))
        return served["a"] / (served["a"] + served["b"])

    desk = make_desk(("a", 1, 512), ("b", 1, 512))
    for name in ("a", "b"):
        desk.give(WorkerHello(name, 1, 512, costs=tuple(POINTS)))
    assert share_of_a(1.0, desk) == pytest.approx(0.5, abs=0.03)
    assert share_of_a(4.0, desk) == pytest.approx(0.2, abs=0.03)
    ill, well = (desk.core.roster.instances[name].predictor.factor for name in ("a", "b"))
    assert ill / well == pytest.approx(4.0, rel=0.15)
    share_of_a(1.0, desk)
    assert share_of_a(1.0, desk) == pytest.approx(0.5, abs=0.03)
