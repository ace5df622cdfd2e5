"""Do the other forms of a plan say the same: layout file, numactl script, difference, JSON?"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.cli.main import main
from orchestrator.config.load import LayoutErrors, load_layout, parse_layout
from orchestrator.plan.diff import diff
from orchestrator.plan.model import Plan, PlannedInstance
from orchestrator.plan.numactl import numactl_script
from orchestrator.plan.pinned import to_yaml
from orchestrator.plan.solve import PlanRequest, plan
from topology.cpuset import parse_cpulist
from topology.model import TopologyError

ROOT = Path(__file__).parents[3]
machines: Any = runpy.run_path(str(ROOT / "tests" / "support" / "machines.py"))
build: Any = machines["build"]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the commands see this machine."""

    def see(machine: Any) -> None:
        monkeypatch.setattr("orchestrator.cli.plan.read_machine", lambda _: machine)
        monkeypatch.setattr("orchestrator.cli.plan.Claims.taken", lambda *_: {})

    return see


def without_reasons(of: Plan) -> list[PlannedInstance]:
    return [msgspec.structs.replace(instance, reasons=[]) for instance in of.instances]


@pytest.mark.parametrize(
    ("name", "machine", "instances"),
    [
        ("two-cores", build(cores_per_node=2), 2),
        ("single-socket-16c", build(cores_per_node=16, smt=2), 6),
        ("single-socket-16c", build(cores_per_node=16, cores_per_llc=4), 6),
        ("dual-socket-48c", machines["article"](), 5),
        ("container-4c", build(packages=2, cores_per_node=16, smt=2, quota=4), 4),
    ],
)
def test_a_shipped_layout_is_planned_without_a_warning_on_the_host_it_is_for(
    name: str, machine: Any, instances: int
) -> None:
    result = plan(machine, PlanRequest(layout=load_layout(ROOT / "configs" / f"{name}.yaml"), max_seqlen=512))
    assert len(result.instances) == instances
    assert result.warnings == []
    for instance in result.instances:
        assert len({machine.cpu(cpu).llc for cpu in instance.cpus}) == 1, "inside one cache domain"


def test_every_shipped_layout_is_planned_by_a_test() -> None:
    mark = test_a_shipped_layout_is_planned_without_a_warning_on_the_host_it_is_for.pytestmark[0]  # type: ignore[attr-defined]
    assert {case[0] for case in mark.args[1]} == {path.stem for path in (ROOT / "configs").glob("*.yaml")}


def test_the_pinned_layout_keeps_what_the_layout_said_beside_the_placement() -> None:
    text = """
version: 1
model: "yes"
precision: fp32
port: 0
instances: [{name: a, cores: 2, threads: 1}]
limits: {truncate: true, queue: 9}
batching: {max_batch_tokens: 77}
allow: [smt]
"""
    layout = parse_layout(text.encode(), "a.yaml")
    machine = build(cores_per_node=4)
    first = plan(machine, PlanRequest(layout=layout))
    again = parse_layout(to_yaml(first, layout).encode(), "b.yaml")
    assert (again.model, again.precision, again.port, again.allow) == ("yes", "fp32", 0, ("smt",))
    assert (again.limits, again.batching) == (layout.limits, layout.batching)
    assert without_reasons(plan(machine, PlanRequest(layout=again))) == without_reasons(first)


def test_the_numactl_script_says_what_the_plan_says() -> None:
    lines = numactl_script(plan(machines["article"](), PlanRequest(instances=3))).splitlines()
    assert lines == [
        "#!/bin/sh",
        "# Runs the command in the arguments once per instance.",
        "# short-0, 1 to 32 tokens",
        'OMP_NUM_THREADS=7 numactl --physcpubind=2-8 --membind=0 -- "$@" &',
        "# medium-0, 33 to 384 tokens",
        'OMP_NUM_THREADS=15 numactl --physcpubind=9-23 --membind=0 -- "$@" &',
        "# long-0, 385 to 512 tokens",
        'OMP_NUM_THREADS=24 numactl --physcpubind=24-47 --membind=1 -- "$@" &',
        "wait",
    ]


def test_the_numactl_script_binds_no_memory_where_the_kernel_names_no_nodes() -> None:
    script = numactl_script(plan(build(cores_per_node=1, nodes_named=False), PlanRequest(policy="round-robin")))
    assert 'OMP_NUM_THREADS=1 numactl --physcpubind=0 -- "$@" &' in script
    assert "--membind" not in script


def test_a_plan_does_not_differ_from_itself() -> None:
    result = plan(build(cores_per_node=4), PlanRequest())
    assert diff(result, result).is_empty


def test_a_changed_bucket_is_for_the_router_and_a_changed_core_for_the_process() -> None:
    old = plan(build(cores_per_node=4), PlanRequest(instances=3, max_seqlen=512))
    short, medium, long = old.instances
    rerouted = msgspec.structs.replace(short, bucket=msgspec.structs.replace(short.bucket, max=48))
    moved = msgspec.structs.replace(medium, cpus=[3], threads=1)
    fresh = msgspec.structs.replace(long, name="long-1")
    new = msgspec.structs.replace(old, instances=[rerouted, moved, fresh], max_batch_tokens=64)
    found = diff(old, new)
    assert found.rerouted == ["short-0"]
    assert found.restarted == {"medium-0": ["cpus: [1] -> [3]"]}
    assert (found.added, found.removed, found.unchanged) == (["long-1"], ["long-0"], [])
    assert found.routing == ["max_batch_tokens: 512 -> 64"]
    assert not found.is_empty


def test_plan_json_has_the_documented_fields(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on(build(cores_per_node=2))
    assert main(["plan", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["policy"] == "by-seqlen"
    first = document["instances"][0]
    assert {key: first[key] for key in ("name", "cpus", "node", "membind", "threads", "bucket")} == {
        "name": "short-0",
        "cpus": [0],
        "node": 0,
        "membind": [0],
        "threads": 1,
        "bucket": {"min": 1, "max": 32},
    }
    assert first["reasons"]
    assert document["housekeeping"]["cpus"] == [0, 1]
    assert (document["unused_cpus"], document["warnings"]) == ([], [])


def test_plan_yaml_is_a_layout_file_that_check_accepts(
    on: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    on(machines["article"]())
    assert main(["plan", "--instances", "5", "--yaml"]) == 0
    path = tmp_path / "pinned.yaml"
    path.write_text(capsys.readouterr().out)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: OK, 5 instances, policy by-seqlen\n"


def test_plan_for_people_says_that_it_asked_no_model(on: Any, capsys: pytest.CaptureFixture[str]) -> None:
    on(build(cores_per_node=2))
    assert main(["plan"]) == 0
    assert "no model asked: up to 512 tokens" in capsys.readouterr().out
    assert main(["plan", "--max-seqlen", "256"]) == 0
    assert "no model asked" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["plan", "--instances", "3"], 78, "cannot place 3 instances"),
        (["plan", "--why-not", "9"], 2, "--why-not: there is no CPU 9; this machine has 0-1"),
        (["plan", "--sysroot", "/nonexistent/tree"], 2, "--sysroot /nonexistent/tree: no such file or directory"),
        (["plan", "--layout", "/nonexistent.yaml"], 78, "/nonexistent.yaml: cannot be read: No such file or directory"),
    ],
)
def test_a_failure_ends_with_its_exit_code_and_one_message(
    on: Any, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    on(build(cores_per_node=2))
    assert main(words) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize(
    "words", [["--instances", "0"], ["--instances", "two"], ["--max-seqlen", "0"], ["--json", "--yaml"]]
)
def test_wrong_usage_of_plan_is_told_by_the_parser(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", *words])
    assert caught.value.code == 2
    assert "usage: orchestrator plan" in capsys.readouterr().err


def test_a_tree_that_cannot_be_read_ends_with_its_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Path) -> None:
        raise TopologyError("sys/devices/system/cpu/online: not a CPU list")

    monkeypatch.setattr("orchestrator.cli.plan.read_machine", refuse)
    assert main(["plan"]) == 1
    assert "sys/devices/system/cpu/online: not a CPU list" in capsys.readouterr().err


def test_check_prints_every_problem_with_its_place_and_exits_78(
    on: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    on(build(cores_per_node=2))
    path = tmp_path / "l.yaml"
    path.write_text("version: 1\ninstances:\n  - {name: a, cpus: 1-2}\n  - {name: b, cpus: 1}\n")
    assert main(["check", str(path)]) == 78
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:3:21", f"{path}:4:21"]
    path.write_text("version: 1\nport: many\n")
    assert main(["check", str(path)]) == 78
    assert capsys.readouterr().out.startswith(f"{path}:2:7: port: a whole number is wanted, this is many")


def test_check_reports_a_layout_that_fits_in_number_and_not_in_place(
    on: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    on(build(packages=2, cores_per_node=3))
    path = tmp_path / "l.yaml"
    path.write_text("version: 1\ninstances: [{name: a, cores: 2, replicas: 3}]\n")
    assert main(["check", str(path)]) == 78
    assert capsys.readouterr().out.startswith(
        f'{path}:2:12: instances: cannot place "a-2" (instances[0]): 2 cores wanted'
    )


def test_check_json_is_one_document(on: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    on(build(cores_per_node=2))
    path = tmp_path / "l.yaml"
    path.write_text("version: 1\ninstances: [{name: a, cpus: 7}]\n")
    assert main(["check", str(path), "--json"]) == 78
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    (problem,) = document["problems"]
    assert (problem["line"], problem["column"], problem["where"]) == (2, 29, "instances[0].cpus")
    path.write_text("version: 1\n")
    assert main(["check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"layout": str(path), "ok": True, "problems": [], "warnings": []}


def test_everything_else_that_a_layout_says_is_in_the_one_that_pins_its_plan() -> None:
    text = b"""
version: 1
caches: {tokens_mb: 0}
logs: {keep: 7}
supervision: {flap_failures: 5, limits: {nofile: 512}}
instances: [{name: a, cores: 1}]
"""
    machine = build(cores_per_node=4)
    layout = parse_layout(text, "x")
    again = parse_layout(to_yaml(plan(machine, PlanRequest(layout=layout)), layout).encode(), "x")
    assert (again.caches, again.logs, again.supervision) == (layout.caches, layout.logs, layout.supervision)


def test_what_an_entry_computes_with_is_in_its_plan_and_in_the_layout_that_pins_it() -> None:
    text = b"""
version: 1
precision: int8
instances:
  - {name: short, cores: 1, max_seqlen: 32}
  - {name: long, replicas: 2, cores: 1, precision: bf16, engine: openvino}
"""
    machine = build(cores_per_node=4)
    layout = parse_layout(text, "x")
    result = plan(machine, PlanRequest(layout=layout))
    assert [(one.precision, one.engine) for one in result.instances] == [(None, None), *[("bf16", "openvino")] * 2]
    again = parse_layout(to_yaml(result, layout).encode(), "x")
    assert [(one.precision, one.engine) for one in plan(machine, PlanRequest(layout=again)).instances] == [
        (one.precision, one.engine) for one in result.instances
    ]


def test_an_entry_on_openvino_and_an_allocator_that_it_aborts_with_are_a_problem_of_the_layout() -> None:
    text = b"version: 1\nallocator: jemalloc\ninstances:\n  - {name: a, cores: 1}\n  - {name: b, cores: 1, engine: openvino}\n"
    with pytest.raises(LayoutErrors, match="x:2:12: allocator: jemalloc does not go with engine openvino"):
        parse_layout(text, "x")


def test_cpulists_in_a_pinned_layout_are_those_of_the_plan() -> None:
    result = plan(build(packages=2, cores_per_node=4, numbering="interleaved"), PlanRequest())
    layout = parse_layout(to_yaml(result).encode(), "x")
    assert [sorted(parse_cpulist(group.cpus or "")) for group in layout.instances] == [i.cpus for i in result.instances]
