"""Does a layout file either work as it says, or get refused for a reason, on any machine?"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from orchestrator.config.check import check_layout
from orchestrator.config.load import LayoutErrors, parse_layout
from orchestrator.config.schema import Layout
from orchestrator.plan.diff import diff
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.pinned import to_yaml
from orchestrator.plan.solve import PlanRequest, plan
from topology.cpuset import format_cpulist
from topology.model import Machine

build: Any = runpy.run_path(str(Path(__file__).parents[1] / "support" / "machines.py"))["build"]


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    nodes, cores, smt = draw(st.integers(1, 3)), draw(st.integers(1, 8)), draw(st.integers(1, 2))
    cpus = st.sets(st.integers(0, nodes * cores * smt - 1), max_size=3)
    return build(
        packages=nodes,
        cores_per_node=cores,
        smt=smt,
        cores_per_llc=draw(st.none() | st.integers(1, cores)),
        offline=draw(cpus | st.just(set())),
        disallowed=draw(cpus | st.just(set())),
        quota=draw(st.none() | st.floats(0.5, 30)),
        memoryless=draw(st.just(set()) | st.sets(st.integers(0, nodes - 1), max_size=1)),
        memory_only=draw(st.integers(0, 1)),
    )


anything = {
    "replicas": st.integers(1, 3),
    "min_seqlen": st.integers(1, 600),
    "max_seqlen": st.integers(1, 600),
    "node": st.integers(0, 3),
    "membind": st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True),
    "threads": st.integers(1, 4),
}
names = st.sampled_from(["a", "b", "c", "d", "e"])
cpu_lists = st.sets(st.integers(0, 30), min_size=1, max_size=6).map(format_cpulist)
entries = st.fixed_dictionaries({"name": names, "cores": st.integers(1, 9)}, optional=anything) | st.fixed_dictionaries(
    {"name": names, "cpus": cpu_lists}, optional=anything
)
documents = st.fixed_dictionaries(
    {"version": st.just(1), "instances": st.lists(entries, min_size=1, max_size=4)},
    optional={
        "policy": st.sampled_from(["by-seqlen", "round-robin"]),
        "max_seqlen": st.integers(1, 600),
        "allow": st.lists(st.sampled_from(["overlap", "smt", "remote-memory"]), unique=True),
        "housekeeping": st.fixed_dictionaries(
            {"cpus": st.sets(st.integers(0, 20), min_size=1, max_size=3).map(format_cpulist)},
            optional={"shared": st.booleans()},
        ),
    },
)


@st.composite
def likely_layouts(draw: st.DrawFn, machine: Machine) -> Layout:
    """Layouts that the schema takes and that are near to what the machine can do."""
    allowed = [cpu.cpu for cpu in machine.cpus if cpu.allowed] or [0]
    instances = []
    for index in range(draw(st.integers(1, 4))):
        entry: dict[str, Any] = {"name": f"g{index}", "max_seqlen": 512}
        if draw(st.booleans()):
            entry["cores"] = draw(st.integers(1, 4))
            entry["replicas"] = draw(st.integers(1, 2))
        else:
            entry["cpus"] = format_cpulist(draw(st.sets(st.sampled_from(allowed), min_size=1, max_size=3)))
        instances.append(entry)
    document: dict[str, Any] = {"version": 1, "instances": instances}
    document["allow"] = draw(st.lists(st.sampled_from(["overlap", "smt", "remote-memory"]), unique=True))
    if draw(st.booleans()):
        document["housekeeping"] = {"cpus": str(draw(st.sampled_from(allowed)))}
    return parse_layout(json.dumps(document).encode(), "layout.json")


def loaded(text: str) -> Layout | LayoutErrors:
    try:
        return parse_layout(text.encode("utf-8", "surrogatepass"), "layout.yaml")
    except LayoutErrors as error:
        return error


def planned(machine: Machine, layout: Layout) -> Plan | PlanError:
    try:
        return plan(machine, PlanRequest(layout=layout))
    except PlanError as error:
        return error


@given(document=documents, machine=machines())
@settings(max_examples=300, deadline=None)
def test_any_document_of_the_right_shape_is_planned_or_refused_with_line_and_column(
    document: dict[str, Any], machine: Machine
) -> None:
    layout = loaded(json.dumps(document, indent=1))
    if isinstance(layout, LayoutErrors):
        event("refused by the schema")
        assert layout.problems
        assert all(problem.line is not None for problem in layout.problems)
        return
    problems = check_layout(layout, machine)
    if problems or not any(cpu.allowed for cpu in machine.cpus):
        event("refused by the machine")
        assert all(problem.line is not None and problem.where and problem.what for problem in problems)
        with pytest.raises(PlanError):
            plan(machine, PlanRequest(layout=layout))
        return
    result = planned(machine, layout)
    if isinstance(result, PlanError):
        event("no place found")
        assert str(result).startswith("cannot place")
        return
    event("planned")
    assert len(result.instances) == sum(group.replicas for group in layout.instances)


@given(machine=machines(), data=st.data())
@settings(max_examples=300, deadline=None)
def test_what_passes_the_check_is_placed_as_the_layout_says(machine: Machine, data: st.DataObject) -> None:
    layout = data.draw(likely_layouts(machine))
    if check_layout(layout, machine) or not any(cpu.allowed for cpu in machine.cpus):
        event("conflicts")
        return
    result = planned(machine, layout)
    if isinstance(result, PlanError):
        event("no place found")
        assert str(result).startswith("cannot place")
        assert any(group.cores for group in layout.instances), "explicit cpus need no search"
        return
    event("placed")
    cpus = {cpu.cpu: cpu for cpu in machine.cpus}
    wanted = [group for group in layout.instances for _ in range(group.replicas)]
    owner: dict[int, str] = {}
    for group, instance in zip(wanted, result.instances, strict=True):
        assert instance.name.rsplit("-", 1)[0] == group.name
        nodes = {cpus[cpu].node for cpu in instance.cpus}
        assert instance.node in nodes
        if group.cores is not None:
            assert (
                len({cpus[cpu].core for cpu in instance.cpus}) == len(instance.cpus) == group.cores == instance.threads
            )
            assert len(nodes) == 1
        assert len(nodes) == 1 or "remote-memory" in layout.allow
        for cpu in instance.cpus:
            assert cpus[cpu].allowed
            core = cpus[cpu].core
            assert core is not None
            if group.cores is not None:
                assert core not in owner, "a core that the planner chose is nobody else's"
            assert owner.setdefault(core, instance.name) == instance.name or {"overlap", "smt"} & set(layout.allow)


@given(machine=machines(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_pinned_layout_gives_the_plan_of_the_layout_it_came_from(machine: Machine, data: st.DataObject) -> None:
    layout = data.draw(likely_layouts(machine))
    first = planned(machine, layout)
    if isinstance(first, PlanError):
        event("refused")
        return
    event("planned")
    again = parse_layout(to_yaml(first, layout).encode(), "pinned.yaml")
    second = plan(machine, PlanRequest(layout=again))
    assert diff(first, second).is_empty
    assert [i.node for i in second.instances] == [i.node for i in first.instances]
    assert second.housekeeping.cpus == first.housekeeping.cpus
    assert second.housekeeping.shared == first.housekeeping.shared


@given(text=st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_the_loader_do_anything_but_load_or_refuse(text: str) -> None:
    outcome = loaded(text)
    assert outcome.problems if isinstance(outcome, LayoutErrors) else outcome.version == 1
