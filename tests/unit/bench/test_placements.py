"""Are the cores that are measured those that an instance would get?"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bench.cells import Placement
from orchestrator.bench.placements import DoesNotFit, largest, placements

machines: Any = runpy.run_path(str(Path(__file__).parents[2] / "support" / "machines.py"))
build: Any = machines["build"]
article: Any = machines["article"]


def cpus(placement: Placement) -> list[tuple[int, ...]]:
    return [place.cpus for place in placement.places]


def test_two_cores_give_one_instance_two_of_one_and_one_of_two() -> None:
    found = placements(build(cores_per_node=2), (1, 2), (1, "fill"))
    assert [cpus(each) for each in found] == [[(0,)], [(0,), (1,)], [(0, 1)]]
    assert [(each.cores, each.instances) for each in found] == [(1, 1), (1, 2), (2, 1)]


def test_instances_go_to_the_nodes_in_turn_and_never_across_them() -> None:
    (two,) = placements(article(), (8,), (2,))
    assert cpus(two) == [tuple(range(8)), tuple(range(24, 32))]
    assert [place.membind for place in two.places] == [(0,), (1,)]
    assert two.nodes_on_machine == 2
    (full,) = placements(article(), (24,), ("fill",))
    assert cpus(full) == [tuple(range(24)), tuple(range(24, 48))]


def test_siblings_are_no_cores() -> None:
    (full,) = placements(article(), (1,), ("fill",))
    assert sorted(cpu for each in cpus(full) for cpu in each) == list(range(48))


def test_an_instance_stays_inside_a_cache_domain_where_one_is_large_enough() -> None:
    machine = build(cores_per_node=12, cores_per_llc=4)
    (threes,) = placements(machine, (3,), ("fill",))
    assert cpus(threes) == [(0, 1, 2), (4, 5, 6), (8, 9, 10)]
    (sixes,) = placements(machine, (6,), ("fill",))
    assert cpus(sixes) == [tuple(range(6)), tuple(range(6, 12))]


def test_a_quota_and_other_orchestrators_leave_less() -> None:
    assert [cpus(each) for each in placements(build(cores_per_node=8, quota=2.5), (1,), ("fill",))] == [[(0,), (1,)]]
    assert [cpus(each) for each in placements(build(cores_per_node=4), (1,), ("fill",), taken=(0, 2))] == [[(1,), (3,)]]
    assert largest(build(cores_per_node=8, quota=2.5)) == 2
    assert largest(article()) == 24
    assert largest(build(cores_per_node=2), taken=(0, 1)) == 0


def test_kinds_of_cores_are_not_mixed() -> None:
    hybrid = build(cores_per_node=8, efficiency=(4, 5, 6, 7))
    assert cpus(placements(hybrid, (2,), (2,))[0]) == [(0, 1), (2, 3)]
    assert largest(hybrid) == 4


def test_memory_comes_from_the_nearest_node_that_has_some() -> None:
    machine = build(packages=2, cores_per_node=1, memoryless=(1,))
    (both,) = placements(machine, (1,), (2,))
    assert [place.membind for place in both.places] == [(0,), (0,)]
    (unnamed,) = placements(build(cores_per_node=1, nodes_named=False), (1,), (1,))
    assert unnamed.places[0].membind == ()


@pytest.mark.parametrize(
    ("cores", "instances", "said"),
    [
        (3, 1, "an instance of 3 cores does not fit: no node has more than 2 cores that this process may use"),
        (3, "fill", "an instance of 3 cores does not fit: no node has more than 2 cores"),
        (1, 3, "3 instances of 1 core do not fit: there is room for 2"),
    ],
)
def test_what_does_not_fit_is_named(cores: int, instances: Any, said: str) -> None:
    with pytest.raises(DoesNotFit, match=said):
        placements(build(cores_per_node=2), (cores,), (instances,))


def test_cores_of_others_are_said_to_be_left_out() -> None:
    with pytest.raises(DoesNotFit, match=r"there is room for 1; .*other orchestrators are left out: 1"):
        placements(build(cores_per_node=2), (1,), (2,), taken=(1,))
