"""Does the file give the plan that was judged, in few lines, and does it say what was found and why?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from orchestrator.config.check import check_layout
from orchestrator.config.load import parse_layout
from orchestrator.config.schema import Layout
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.simulate.mixes import Mix
from orchestrator.tune.goal import Figures, Load, Verified
from orchestrator.tune.lengths import shares
from orchestrator.tune.proposal import Entrant, Form, Group, Proposal, as_planned, entrant, names_of
from orchestrator.tune.report import Candidate, Outcome, chosen, document, head, printed, table, unrest
from orchestrator.tune.write import DoesNotReadBack, reasons, text_of

FormOf = Callable[..., Form]
BASE = Layout(version=1, max_seqlen=512)
THREE = Proposal(
    (
        Group(32, 3, 1, "int8 on onnxruntime"),
        Group(128, 2, 2, "int8 on onnxruntime"),
        Group(512, 2, 4, "bf16 on openvino"),
    )
)


@pytest.fixture
def forms(form: FormOf) -> dict[str, Form]:
    both = [form(precision="int8", exactness=0.9966), form(precision="bf16", engine="openvino")]
    return {each.name: each for each in both}


@pytest.mark.parametrize(
    "shape",
    [
        {"cores_per_node": 16},
        {"cores_per_node": 16, "smt": 2},
        {"packages": 2, "cores_per_node": 9, "smt": 2, "numbering": "interleaved"},
        {"packages": 2, "cores_per_node": 8, "numbering": "adjacent", "smt": 2, "cores_per_llc": 4},
        {"packages": 2, "cores_per_node": 10, "isolated": range(4, 20)},
        {"packages": 4, "cores_per_node": 5},
    ],
)
def test_the_file_gives_the_same_plan_and_passes_the_check(
    build: Any, forms: dict[str, Form], shape: dict[str, Any]
) -> None:
    machine = build(**shape)
    found = entrant(THREE, BASE, forms, machine)
    text = text_of(found.plan, found.layout, machine, ["found", "", "here"], {})
    assert text.startswith("# found\n#\n# here\nversion: 1\n")
    layout = parse_layout(text.encode(), "x")
    assert check_layout(layout, machine) == []
    again = plan(machine, PlanRequest(layout=layout))
    assert [(one.name, one.cpus, one.bucket, one.precision, one.engine) for one in again.instances] == [
        (one.name, one.cpus, one.bucket, one.precision, one.engine) for one in found.plan.instances
    ]
    assert again.housekeeping.cpus == found.plan.housekeeping.cpus


def test_replicas_side_by_side_are_one_entry_with_the_reason_above_it(
    build: Any, forms: dict[str, Form], two_kinds: Mix
) -> None:
    machine = build(cores_per_node=16)
    found = entrant(THREE, BASE, forms, machine)
    why = reasons(found.plan, forms, found.form_of, shares(two_kinds))
    lines = text_of(found.plan, found.layout, machine, [], why).splitlines()
    entries = [line for line in lines if line.startswith("  - ")]
    assert len(entries) == 3
    assert '{name: "short", replicas: 3, min_seqlen: 1, max_seqlen: 32, ' in entries[0]
    assert 'precision: "bf16", engine: "openvino"' in entries[2]
    above = lines[lines.index(entries[0]) - 2]
    assert above.startswith("  # short: 1 to 32 tokens: 80% of the requests, ")
    assert above.endswith("% of the work, 3 of 15 cores")
    assert any("medium: 33 to 128 tokens: 0% of the requests" in line for line in lines)
    assert any("none are expected" in line for line in lines)


def test_replicas_on_two_nodes_keep_their_nodes(build: Any, forms: dict[str, Form]) -> None:
    machine = build(packages=2, cores_per_node=4)
    found = entrant(Proposal((Group(512, 3, 2, "int8 on onnxruntime"),)), BASE, forms, machine)
    layout = parse_layout(text_of(found.plan, found.layout, machine, [], {}).encode(), "x")
    assert {group.node for group in layout.instances} == {0, 1}
    assert sum(group.replicas for group in layout.instances) == 3
    assert layout.precision == "int8"


def test_a_file_that_would_give_another_plan_is_refused(build: Any, forms: dict[str, Form]) -> None:
    machine = build(cores_per_node=16)
    found = entrant(THREE, BASE, forms, machine)
    other = msgspec.structs.replace(found.plan.instances[0], max_seqlen=4)
    changed = msgspec.structs.replace(found.plan, instances=[other, *found.plan.instances[1:]])
    with pytest.raises(DoesNotReadBack):
        text_of(changed, found.layout, machine, [], {})


def test_buckets_are_called_what_people_call_them() -> None:
    assert [list(names_of(count)) for count in (1, 2, 3)] == [["all"], ["short", "long"], ["short", "medium", "long"]]
    assert len(set(names_of(5))) == 5


# ---- the choice, and what is said of it


@pytest.fixture
def three(build: Any, forms: dict[str, Form]) -> Callable[..., list[Candidate]]:
    def make(*measured: tuple[float, float] | None) -> list[Candidate]:
        """The best by simulation, another, the default; each with (ratio, pressure) when it was served."""
        machine = build(cores_per_node=16)
        planned = plan(machine, PlanRequest(max_seqlen=512))
        default = as_planned(planned, BASE, {str(one.name): "int8 on onnxruntime" for one in planned.instances}, forms)
        one = Proposal((Group(512, 15, 1, "int8 on onnxruntime"),))
        entrants: list[Entrant] = [entrant(THREE, BASE, forms, machine), entrant(one, BASE, forms, machine), default]
        found = []
        for at, (each, served) in enumerate(zip(entrants, measured, strict=True)):
            simulated = Figures(Load(100.0 - at), 99.0, {"short": 5.0}, {"short": 2.0}, 0.9)
            verified = None
            if served is not None:
                ratio, pressure = served
                figures = Figures(Load(in_flight=4), 90.0, {"short": 6.0}, {"short": 3.0}, pressure)
                verified = Verified(figures, ratio, [90.0])
            found.append(Candidate(each, simulated, None, verified))
        return found

    return make


def test_what_was_not_served_is_chosen_by_simulation(three: Any) -> None:
    candidates = three(None, None, None)
    assert chosen("throughput", candidates) == (candidates[0], [])


def test_what_was_served_is_chosen_by_what_was_measured_and_another_order_is_said(three: Any) -> None:
    candidates = three((1.1, 0.9), (1.4, 0.9), (1.0, 0.9))
    best, notes = chosen("throughput", candidates)
    assert best is candidates[1]
    assert "the simulation had another order" in notes[0]
    assert "1.10 ×" in notes[0]
    assert "1.40 ×" in notes[0]
    assert chosen("throughput", three((1.4, 0.9), (1.1, 0.9), (1.0, 0.9)))[1] == []


def test_a_faster_one_that_breaks_its_limits_is_no_better(three: Any) -> None:
    candidates = three((1.3, 2.0), (1.1, 0.9), (1.0, 0.9))
    assert chosen("throughput", candidates)[0] is candidates[1]


def test_of_equals_the_simpler_one_is_chosen_and_the_default_is_the_simplest(three: Any) -> None:
    candidates = three((1.02, 0.9), (1.01, 0.9), (1.0, 0.9))
    best, notes = chosen("throughput", candidates)
    assert best is candidates[2]
    assert "is simpler" in notes[0]


def test_latency_is_chosen_by_pressure_alone(three: Any) -> None:
    candidates = three((1.3, 0.8), (0.9, 0.5), (1.0, 0.9))
    assert chosen("latency", candidates)[0] is candidates[1]


def test_one_that_could_not_be_served_is_not_chosen_while_others_were(three: Any) -> None:
    candidates = three(None, (1.2, 0.9), (1.0, 0.9))
    best, notes = chosen("throughput", candidates)
    assert best is candidates[1]
    assert "was not served" in notes[0]


def test_rounds_that_differ_more_than_layouts_do_are_said(three: Any) -> None:
    quiet = three((1.2, 0.9), (1.1, 0.9), (1.0, 0.9))
    assert unrest(quiet) is None
    measured = msgspec.structs.replace(quiet[2].measured, rounds=[80.0, 3.5, 70.0])
    said = unrest([*quiet[:2], replace(quiet[2], measured=measured)])
    assert said is not None
    assert "differ by 22.9 ×" in said
    assert unrest(three(None, None, None)) is None
    at_a_rate = msgspec.structs.replace(measured, figures=msgspec.structs.replace(measured.figures, load=Load(20.0)))
    assert unrest([replace(quiet[2], measured=at_a_rate)]) is None


def test_head_table_and_document_tell_the_same_figures(three: Any) -> None:
    candidates = three((1.25, 0.9), (1.1, 0.9), (1.0, 0.9))
    found = Outcome(
        when="2026-01-02 03:04 UTC", machine="a CPU", cores=15, model="a model", forms=["int8 on onnxruntime"], mix="mixed",
        goal="throughput", load=Load(), limits={"long": 400.0, "short": 15.0}, chosen=candidates[0], default=candidates[2],
        candidates=candidates, looked_at=7, simulated=9, seconds={"searching": 3.2}, notes=["something odd"],
    )  # fmt: skip
    said = "\n".join(head(found))
    for part in (
        "2026-01-02 03:04 UTC",
        "a CPU, 15 cores",
        "a model",
        "short 15, long 400 ms",
        "1.25 × default",
        "note: something odd",
    ):
        assert part in said
    assert "1.25 × default" in printed(found)

    def with_alike(alike: Figures) -> list[str]:
        first = replace(candidates[0], simulated_alike=alike)
        return table(replace(found, chosen=first, candidates=[first, *candidates[1:]]))

    assert with_alike(candidates[0].simulated) == table(found), "no row says again what another says"
    another = msgspec.structs.replace(candidates[0].simulated, load=Load(in_flight=4))
    assert any(line.startswith("this layout, simulated, 4 in flight") for line in with_alike(another))
    body = msgspec.json.decode(msgspec.json.encode(document(found, "version: 1\n", None)))
    assert [one["chosen"] for one in body["candidates"]] == [True, False, False]
    assert [one["served"]["ratio_to_default"] for one in body["candidates"]] == [1.25, 1.1, 1.0]
    elsewhere = "\n".join(head(replace(found, not_here="worked out from tables")))
    assert "a CPU, 15 cores; worked out from tables" in elsewhere
    assert "figures are those of a simulation" in elsewhere
