"""Is the best layout found where reason knows it, the same for the same seed, and never one that is worse than the default?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.config.check import check_layout
from orchestrator.simulate.mixes import LengthClass, Mix
from orchestrator.tune.estimate import bound, pressure, queues, reach
from orchestrator.tune.goal import Load
from orchestrator.tune.lengths import kinds, shares
from orchestrator.tune.proposal import Form, Group, Proposal
from orchestrator.tune.search import Found, Problem, clients, search, served
from orchestrator.tune.space import proposals

Make = Callable[..., Problem]
FormOf = Callable[..., Form]
ONE_LENGTH = Mix([LengthClass("medium", 100, 100, 1)])


def told(found: Found) -> list[Any]:
    return [(each.entrant.name, each.figures) for each in found.finalists]


def groups(found: Found) -> list[Group]:
    assert found.best.entrant.proposal is not None, f"the default won: {told(found)}"
    return list(found.best.entrant.proposal.groups)


def test_threads_that_gain_nothing_are_given_to_instances_of_one_core(
    build: Any, problem: Make, form: FormOf, two_kinds: Mix
) -> None:
    found = search(problem(build(cores_per_node=7), [form(serial=1.0)], two_kinds))
    assert {group.cores for group in groups(found)} == {1}
    assert sum(group.replicas for group in groups(found)) == 7


def test_threads_that_gain_all_are_one_instance_where_latency_counts_and_little_is_asked(
    build: Any, problem: Make, form: FormOf
) -> None:
    found = search(problem(build(cores_per_node=4), [form(serial=0.0)], ONE_LENGTH, goal="latency", load=Load(2.0)))
    assert [(group.cores, group.replicas) for group in groups(found)] == [(4, 1)]
    assert found.best.figures.p99_ms["medium"] < 0.5 * found.default.figures.p99_ms["medium"]


def test_each_bucket_computes_with_what_is_fastest_at_its_lengths(
    build: Any, problem: Make, form: FormOf, two_kinds: Mix
) -> None:
    for_short = form(precision="int8", call=0.0, per_token=2e-4)
    for_long = form(precision="bf16", engine="openvino", call=10e-3, per_token=0.5e-4)
    found = search(problem(build(cores_per_node=6), [for_short, for_long], two_kinds))
    first, *_, last = groups(found)
    assert (first.form, last.form) == ("int8 on onnxruntime", "bf16 on openvino")
    assert found.best.score > 1.2 * found.default.score


def test_of_forms_that_are_as_fast_the_more_exact_one_is_proposed(form: FormOf, two_kinds: Mix) -> None:
    forms = {"rough": form(exactness=0.991), "exact": form(per_token=1.02e-4)}
    every = list(proposals(7, [1, 2, 4], shares(two_kinds), forms, 512))
    assert {group.form for each in every for group in each.groups} == {"exact"}
    forms["exact"] = form(per_token=1.2e-4)
    every = list(proposals(7, [1, 2, 4], shares(two_kinds), forms, 512))
    assert {group.form for each in every for group in each.groups} == {"rough"}


def test_every_proposal_has_an_instance_for_each_bucket_and_fits(form: FormOf, two_kinds: Mix) -> None:
    forms = {"f": form()}
    for cores in (1, 2, 3, 8):
        every = list(proposals(cores, [1, 2, 4], shares(two_kinds), forms, 512))
        assert len(every) == len(set(every)) > 0
        for each in every:
            assert each.cores <= cores
            assert all(group.replicas >= 1 for group in each.groups)
            assert [group.top for group in each.groups] == sorted({group.top for group in each.groups})
            assert each.groups[-1].top == 512


def test_one_core_has_one_instance_and_the_default_stays(
    build: Any, problem: Make, form: FormOf, two_kinds: Mix
) -> None:
    found = search(problem(build(cores_per_node=1), [form()], two_kinds))
    assert found.best is found.default


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_never_worse_than_the_default_and_the_same_for_the_same_seed(
    build: Any, problem: Make, form: FormOf, two_kinds: Mix, seed: int
) -> None:
    asked = problem(build(packages=2, cores_per_node=4), [form(serial=0.3)], two_kinds, seed=seed)
    found = search(asked)
    assert found.best.score >= found.default.score
    assert told(search(asked)) == told(found)
    assert any(each.entrant is asked.default for each in found.finalists)


def test_a_closed_load_is_judged_by_its_answers(build: Any, problem: Make, form: FormOf, two_kinds: Mix) -> None:
    found = search(problem(build(cores_per_node=6), [form()], two_kinds, load=Load(in_flight=12), p99_ms=500.0))
    assert found.best.figures.load == Load(in_flight=12)
    assert found.best.score >= found.default.score


def test_a_machine_of_several_nodes_is_searched_in_slices_and_judged_as_a_whole(
    build: Any, problem: Make, form: FormOf, two_kinds: Mix
) -> None:
    asked = problem(build(packages=2, cores_per_node=12), [form()], two_kinds)
    found = search(asked)
    assert found.slices == 2
    given = sum(len(each.cpus) for each in found.best.entrant.plan.instances)
    assert given == sum(len(each.cpus) for each in asked.default.plan.instances), "no core is left idle"


def test_what_comes_to_the_end_passes_the_check_of_layouts(
    build: Any, problem: Make, form: FormOf, two_kinds: Mix
) -> None:
    machine = build(packages=2, cores_per_node=6, cores_per_llc=3, smt=2)
    found = search(problem(machine, [form()], two_kinds))
    for each in found.finalists:
        assert check_layout(each.entrant.layout, machine) == []
        cpus = [cpu for instance in each.entrant.plan.instances for cpu in instance.cpus]
        assert len(cpus) == len(set(cpus))


def test_limits_that_nobody_can_hold_still_have_a_best(build: Any, problem: Make, form: FormOf, two_kinds: Mix) -> None:
    found = search(problem(build(cores_per_node=4), [form()], two_kinds, p99_ms=0.01))
    assert not found.best.figures.holds
    assert found.best.score >= found.default.score


def test_clients_are_as_many_as_the_limits_bear(build: Any, problem: Make, form: FormOf) -> None:
    asked = problem(build(cores_per_node=2), [form()], ONE_LENGTH, p99_ms=55.0)
    count = clients(asked, asked.default)
    (fine,) = served(asked, [asked.default], Load(in_flight=count))
    (over,) = served(asked, [asked.default], Load(in_flight=2 * count))
    assert fine.holds
    assert not over.holds
    assert clients(problem(build(cores_per_node=2), [form()], ONE_LENGTH, p99_ms=0.01), asked.default) == 1


def test_no_layout_is_said_to_bear_more_than_the_bound(build: Any, problem: Make, form: FormOf, two_kinds: Mix) -> None:
    asked = problem(build(cores_per_node=7), [form()], two_kinds, p99_ms=800.0)
    found = search(asked)
    for each in found.finalists:
        if (proposal := each.entrant.proposal) is not None:
            assert each.figures.per_second <= 1.05 * bound(proposal, shares(two_kinds), asked.forms)


def test_the_estimate_grows_with_the_rate_and_reaches_less_than_the_bound(form: FormOf, two_kinds: Mix) -> None:
    forms = {"f": form()}
    proposal = Proposal((Group(32, 2, 1, "f"), Group(512, 4, 1, "f")))
    waiting = queues(proposal, shares(two_kinds), forms, kinds(two_kinds), {"short": 20.0, "long": 500.0})
    most = bound(proposal, shares(two_kinds), forms)
    reached = reach(waiting, most)
    assert 0.2 * most < reached < most
    assert [pressure(waiting, rate) for rate in (0.1 * most, 0.5 * most)] == sorted(
        pressure(waiting, rate) for rate in (0.1 * most, 0.5 * most)
    )
    assert pressure(waiting, reached) <= 1.0 < pressure(waiting, 1.05 * reached)
