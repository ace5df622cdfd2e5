"""Does every layout that the search may propose, on whatever machine, either pass planner, check and file, or is refused in words?"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config.check import check_layout
from orchestrator.config.load import parse_layout
from orchestrator.config.schema import Layout
from orchestrator.plan.model import PlanError
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.simulate.costs import CostFile, Point, Scaling, TrueCosts
from orchestrator.tune.lengths import of_recorded, shares
from orchestrator.tune.proposal import Form, entrant
from orchestrator.tune.space import filled, neighbours, proposals, sizes_within
from orchestrator.tune.write import reasons, text_of

build: Any = runpy.run_path(str(Path(__file__).parents[1] / "support" / "machines.py"))["build"]


def form(precision: Any, engine: Any, call: float, token: float, serial: float) -> Form:
    points = [Point(1, n, length, call + n * length * token) for n in (1, 8) for length in (10, 500)]
    file = CostFile(
        version=1, model="m", engine=engine, engine_version="1", precision=precision, cpu="c", scaling=Scaling(serial, 1e-5), points=points
    )  # fmt: skip
    return Form(precision, engine, TrueCosts(file))


forms = st.builds(
    lambda call, token, serial: {
        each.name: each
        for each in (form("int8", "onnxruntime", 1e-4, 1e-4, 0.3), form("bf16", "openvino", call, token, serial))
    },
    st.floats(1e-5, 1e-2),
    st.floats(1e-5, 1e-3),
    st.floats(0, 1),
)
machines = st.builds(
    lambda packages, cores, smt, llc, numbering: build(
        packages=packages, cores_per_node=cores, smt=smt, cores_per_llc=min(llc, cores), numbering=numbering
    ),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from([1, 2]),
    st.integers(1, 9),
    st.sampled_from(["siblings-last", "adjacent", "interleaved"]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(machines, forms, st.lists(st.integers(1, 512), min_size=1, max_size=30), st.data())
def test_what_is_proposed_can_be_served_or_is_refused_in_words(
    machine: Any, forms: dict[str, Form], lengths: list[int], data: st.DataObject
) -> None:
    default = plan(machine, PlanRequest(max_seqlen=512))
    cores = sum(len(each.cpus) for each in default.instances)
    sizes = sizes_within(max(1, min(cores, len(machine.nodes[0].cpus) // machine.smt)))
    weights = shares(of_recorded(lengths))
    every = list(proposals(cores, sizes, weights, forms, 512))
    assert every, "one instance at least can always be proposed"
    one = data.draw(st.sampled_from(every))
    near = list(neighbours(one, cores, sizes, weights, forms))
    chosen = data.draw(st.sampled_from([one, *near, filled(one, cores, 1)]))
    assert chosen.cores <= cores
    tops = [group.top for group in chosen.groups]
    assert tops == sorted(set(tops))
    assert tops[-1] == 512
    base = Layout(version=1, max_seqlen=512)
    try:
        found = entrant(chosen, base, forms, machine)
    except PlanError:
        assert len(machine.nodes) > 1, "on one node everything fits that has no more cores than there are"
        return
    cpus = [cpu for instance in found.plan.instances for cpu in instance.cpus]
    assert len(cpus) == len(set(cpus)) == chosen.cores
    text = text_of(found.plan, found.layout, machine, ["x"], reasons(found.plan, forms, found.form_of, weights))
    assert check_layout(parse_layout(text.encode(), "x"), machine) == []
