"""What does a cost table say, and which tables are refused?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.router.cost import Shape, fitted
from orchestrator.simulate import costs as module
from orchestrator.simulate.costs import (
    CostError,
    CostFile,
    Point,
    Scaling,
    TrueCosts,
    decode_costs,
    refuse_foreign,
)

TABLES = sorted((Path(module.__file__).parent / "tables").glob("*.json"))


def document(**changes: Any) -> dict[str, Any]:
    points = [{"threads": 1, "batch": 1, "length": length, "seconds": length * 1e-4} for length in (10, 100)]
    return {
        "version": 1, "model": "m", "engine": "onnxruntime", "engine_version": "1.2", "precision": "fp32", "cpu": "this CPU",
        "points": points, **changes,
    }  # fmt: skip


def file(points: list[Point], scaling: Scaling | None = None) -> CostFile:
    return CostFile(
        version=1, model="m", engine="e", engine_version="1", precision="fp32", cpu="c", points=points, scaling=scaling
    )


def test_between_measured_points_costs_lie_on_straight_lines() -> None:
    costs = TrueCosts(file([Point(1, n, length, 1e-3 * n * length) for n in (1, 4) for length in (10, 20)]))
    assert costs.seconds(1, False, 1, 15) == pytest.approx(15e-3)
    assert costs.seconds(1, False, 2, 15) == pytest.approx(30e-3)


def test_beyond_the_last_point_the_last_slope_goes_on_and_below_the_first_nothing_is_free() -> None:
    costs = TrueCosts(file([Point(1, 1, 100, 10e-3), Point(1, 1, 200, 30e-3)]))
    assert costs.seconds(1, False, 1, 300) == pytest.approx(50e-3)
    assert costs.seconds(1, False, 1, 50) == pytest.approx(5e-3)


def test_one_measured_batch_size_promises_no_gain_from_batching() -> None:
    costs = TrueCosts(file([Point(1, 1, 10, 1e-3), Point(1, 1, 20, 2e-3)]))
    assert costs.seconds(1, False, 8, 10) == pytest.approx(8e-3)


def test_the_law_of_scaling_is_found_in_the_points_it_made() -> None:
    law = Scaling(0.3, 2e-4)
    alone = {16: 1e-3, 128: 6e-3, 512: 40e-3}
    points = [Point(1, 1, length, seconds) for length, seconds in alone.items()]
    points += [Point(p, 1, length, law.seconds(seconds, p)) for p in (2, 4) for length, seconds in alone.items()]
    costs = TrueCosts(file(points))
    assert costs.scaling is not None
    assert costs.scaling.serial == pytest.approx(0.3, rel=1e-6)
    assert costs.scaling.sync_seconds == pytest.approx(2e-4, rel=1e-6)
    assert costs.seconds(16, False, 1, 128) == pytest.approx(law.seconds(6e-3, 16), rel=1e-6)


def test_what_was_measured_with_more_threads_goes_before_the_law() -> None:
    points = [Point(1, 1, 10, 1e-3), Point(1, 1, 100, 10e-3), Point(2, 1, 100, 9e-3)]
    costs = TrueCosts(file(points, Scaling(0.0, 0.0)))
    assert costs.seconds(2, False, 1, 100) == pytest.approx(9e-3)
    # Elsewhere the law holds, corrected by how far it was off where it was measured.
    assert costs.seconds(2, False, 1, 10) == pytest.approx(0.5e-3 * 9 / 5)


def test_cores_on_two_nodes_are_slower_by_the_remote_factor() -> None:
    costs = TrueCosts(file([Point(1, 1, 10, 1e-3), Point(1, 1, 100, 10e-3)], Scaling(0.0, 0.0, remote=1.5)))
    assert costs.seconds(2, True, 1, 10) == pytest.approx(1.5 * costs.seconds(2, False, 1, 10))


def test_the_router_fits_what_workers_measure_to_the_shape_that_made_the_points() -> None:
    shape = Shape(1e-3, 2e-5, 3e-8)
    lengths = (8, 16, 32, 64, 128, 256, 512)
    costs = TrueCosts(file([Point(1, n, length, shape.seconds(length, n)) for n in (1, 2, 8) for length in lengths]))
    points = costs.measured(1, False, 384)
    assert max(point.length for point in points) == 256
    assert max(point.length * point.n for point in points) <= 1024
    found = fitted(points)
    assert found is not None
    assert (found.call, found.token, found.square) == pytest.approx((1e-3, 2e-5, 3e-8), rel=1e-3)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_table_in_the_tree_is_whole_and_can_be_scaled_to_any_instance(path: Path) -> None:
    costs = TrueCosts(decode_costs(path.read_bytes(), path.name))
    for threads in (1, 2, 8, 48):
        shorter, longer = (costs.seconds(threads, False, 1, length) for length in (16, 512))
        assert 0 < shorter < longer < 10


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "x.json: not a cost table: Input data was truncated; make one with"),
        (b"[]", "x.json: not a cost table: Expected `object`, got `array`"),
        (json.dumps(document(version=9)).encode(), "x.json: format 9, this program reads 1"),
        (json.dumps(document(extra=1)).encode(), "unknown field `extra`"),
        (
            json.dumps(document(points=[{"threads": 1, "batch": 1, "length": 1, "seconds": 0.0}] * 2)).encode(),
            r"Expected `float` > 0.0 - at `\$.points\[0\].seconds`",
        ),
    ],
)
def test_what_is_no_cost_table_is_refused_with_the_place(raw: bytes, message: str) -> None:
    with pytest.raises(CostError, match=message):
        decode_costs(raw, "x.json")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([Point(2, 1, 10, 1.0), Point(2, 1, 20, 2.0)], "no points with one thread"),
        ([Point(1, 1, 10, 1.0), Point(1, 2, 10, 2.0)], "one length measured with one thread"),
        ([Point(1, 1, 10, 1.0), Point(1, 1, 10, 2.0)], "measured twice: 1 threads, batch 1, length 10"),
    ],
)
def test_a_table_that_says_too_little_is_refused(points: list[Point], message: str) -> None:
    with pytest.raises(CostError, match=message):
        TrueCosts(file(points), "x.json")


def test_an_instance_of_more_threads_than_were_measured_is_not_guessed() -> None:
    costs = TrueCosts(file([Point(1, 1, 10, 1.0), Point(1, 1, 20, 2.0)]), "x.json")
    with pytest.raises(CostError, match="measured with one thread only, and an instance has 8"):
        costs.seconds(8, False, 1, 10)


def test_a_table_of_another_machine_or_another_engine_version_is_refused_for_this_one() -> None:
    table = decode_costs(json.dumps(document()).encode(), "x.json")
    with pytest.raises(
        CostError, match=r"measured on this CPU, the machine is that CPU; measure anew .* or say --any-costs"
    ):
        refuse_foreign(table, "x.json", "that CPU", None)
    with pytest.raises(CostError, match=r"stale: measured with onnxruntime 1\.2, 1\.3 is installed; measure anew"):
        refuse_foreign(table, "x.json", "this CPU", "1.3")
    refuse_foreign(table, "x.json", "this CPU", "1.2")
