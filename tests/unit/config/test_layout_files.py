"""Does every mistake in a layout file get its line, its reason and its way out?

`data/bad/NAME.yaml` gives the messages in `data/bad/NAME.txt`, one a line without the file's name; `data/good/NAME.yaml` is the
same file mended. `data/conflicts` holds files that are well-formed and cannot work on the machine of the article.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.config.check import check_layout
from orchestrator.config.declared import option, options
from orchestrator.config.load import LARGEST_FILE, LayoutErrors, load_layout, parse_layout
from orchestrator.config.schema import Batching, InstanceGroup, Layout, LimitsConfig, layout_max_seqlen
from orchestrator.config.suggest import nearest

DATA = Path(__file__).parent / "data"
machines: Any = runpy.run_path(str(Path(__file__).parents[2] / "support" / "machines.py"))


def names(folder: str) -> list[str]:
    return sorted(path.stem for path in (DATA / folder).glob("*.yaml"))


def messages(problems: Any, path: Path) -> list[str]:
    """As in the table: without the file, whose place differs from checkout to checkout."""
    return [str(problem).removeprefix(f"{path}:").strip() for problem in problems]


@pytest.mark.parametrize("name", names("bad"))
def test_a_bad_file_gives_exactly_these_messages(name: str) -> None:
    path = DATA / "bad" / f"{name}.yaml"
    with pytest.raises(LayoutErrors) as caught:
        load_layout(path)
    assert messages(caught.value.problems, path) == path.with_suffix(".txt").read_text().splitlines()


@pytest.mark.parametrize("name", names("bad"))
def test_the_same_file_mended_loads(name: str) -> None:
    assert load_layout(DATA / "good" / f"{name}.yaml").version == 1


def test_each_bad_file_has_a_good_twin_and_its_messages() -> None:
    assert names("bad") == names("good")
    assert names("bad") == sorted(path.stem for path in (DATA / "bad").glob("*.txt"))


@pytest.mark.parametrize("name", names("conflicts"))
def test_a_conflict_with_the_machine_gives_exactly_these_messages(name: str) -> None:
    path = DATA / "conflicts" / f"{name}.yaml"
    problems = check_layout(load_layout(path), machines["article"]())
    assert messages(problems, path) == path.with_suffix(".txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("name", "allowance"),
    [
        ("overlap", "overlap"),
        ("smt-siblings", "smt"),
        ("smt-siblings-of-replicas", "smt"),
        ("two-nodes", "remote-memory"),
        ("remote-memory", "remote-memory"),
        ("node-and-cpus-disagree", "remote-memory"),
        ("housekeeping-on-an-instance", "overlap"),
    ],
)
def test_allow_turns_that_kind_of_conflict_off_and_no_other(name: str, allowance: str) -> None:
    layout = load_layout(DATA / "conflicts" / f"{name}.yaml")
    machine = machines["article"]()
    assert check_layout(msgspec.structs.replace(layout, allow=(allowance,)), machine) == []
    others = tuple(each for each in ("overlap", "smt", "remote-memory") if each != allowance)
    assert check_layout(msgspec.structs.replace(layout, allow=others), machine) == check_layout(layout, machine)


def test_every_value_of_a_full_file_arrives() -> None:
    text = b"""
version: 1
model: sentence-transformers/all-MiniLM-L6-v2
policy: by-seqlen
housekeeping: {cpus: "0,48"}         # router and gateways; omitted: chosen
instances:
  - {name: short,  replicas: 1, max_seqlen: 32,  cores: 8,  node: 0}
  - {name: medium, replicas: 1, max_seqlen: 384, cores: 16, node: 0}
  - {name: long,   replicas: 1, max_seqlen: 512, cpus: "24-47", membind: [1]}
batching: {max_batch_tokens: 2048, max_queue_delay_ms: 0}
limits: {queue: 1024, body_mb: 8, batch: 256}
"""
    layout = parse_layout(text, "layout.yaml")
    assert layout.model == "sentence-transformers/all-MiniLM-L6-v2"
    assert layout.housekeeping is not None
    assert layout.housekeeping.cpus == "0,48"
    assert layout.instances[1] == InstanceGroup(name="medium", max_seqlen=384, cores=16, node=0)
    assert layout.instances[2] == InstanceGroup(name="long", max_seqlen=512, cpus="24-47", membind=(1,))
    assert layout.batching == Batching(max_batch_tokens=2048, max_queue_delay_ms=0.0)
    assert layout.limits == LimitsConfig(queue=1024, body_mb=8.0, batch=256)
    assert layout.allow == ()
    assert layout_max_seqlen(layout) == 512


def test_an_omitted_value_has_the_default_of_the_schema() -> None:
    assert parse_layout(b"version: 1\n", "x") == Layout(version=1)


def test_the_limit_is_left_to_the_model_if_one_entry_leaves_it_open() -> None:
    text = b"version: 1\ninstances: [{name: a, cores: 1, max_seqlen: 32}, {name: b, cores: 1}]\n"
    assert layout_max_seqlen(parse_layout(text, "x")) is None


def test_places_lead_to_the_nearest_thing_that_the_file_has() -> None:
    text = b"version: 1\ninstances:\n  - name: a\n    cores: 4\n"
    places = parse_layout(text, "x").places
    cores, whole_entry, nothing = (
        places.of("instances[0].cores"),
        places.of("instances[0].node"),
        places.of("limits.queue"),
    )
    assert cores is not None
    assert (cores.line, cores.column) == (4, 12)
    assert whole_entry is not None
    assert (whole_entry.line, whole_entry.column) == (3, 5)
    assert nothing is not None
    assert (nothing.line, nothing.column) == (1, 1)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(LayoutErrors, match=r"absent\.yaml: cannot be read: No such file or directory; check the path"):
        load_layout(tmp_path / "absent.yaml")
    with pytest.raises(LayoutErrors, match="cannot be read: Is a directory"):
        load_layout(tmp_path)


def test_a_file_of_another_kind_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(LayoutErrors, match="more than 1 MiB; no layout is that long"):
        load_layout(path)


def test_a_chain_of_merges_is_read_once_each() -> None:
    """Each line merges the one before twice: 2**60 ways to the first, one mapping each."""
    lines = ["version: 1", "x-0: &a0 {cores: 1}"]
    lines += [f"x-{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 61)]
    lines += ["instances: [{<<: *a60, name: a}]"]
    layout = parse_layout("\n".join(lines).encode(), "x")
    assert layout.instances[0].cores == 1


def test_every_option_is_declared_once_and_with_help() -> None:
    for each in options():
        assert each.help, each.name
        assert each.help.endswith("."), each.name
    names_of = [each.name for each in options()]
    assert len(set(names_of)) == len(names_of)
    assert {"limits.body_mb", "instances[].cores", "housekeeping.cpus", "port"} <= set(names_of)
    assert option("port").default == 8080
    with pytest.raises(KeyError):
        option("prot")


@pytest.mark.parametrize(
    ("word", "meant"),
    [("cores_per_instance", "cores"), ("max-seqlen", "max_seqlen"), ("Node", "node"), ("colour", None)],
)
def test_a_misspelt_word_leads_to_the_nearest_known_one(word: str, meant: str | None) -> None:
    assert nearest(word, ["name", "cores", "cpus", "node", "max_seqlen"]) == meant


def test_a_quota_smaller_than_the_layout_is_a_problem() -> None:
    layout = parse_layout(b"version: 1\ninstances: [{name: a, cores: 3}, {name: b, cpus: 4-7}]\n", "l.yaml")
    (problem,) = check_layout(layout, machines["build"](cores_per_node=8, quota=3.5))
    assert str(problem) == (
        "l.yaml:2:12: instances: 7 cores wanted in all, the cgroup's CPU quota is 3.5; "
        "beyond it the kernel stops every thread until the next period; "
        "lower cores to 3 in all, or raise the quota (cpu.max)"
    )


def test_cpus_that_are_offline_or_refused_are_told_apart_and_each_with_its_reason() -> None:
    machine = machines["build"](cores_per_node=8, offline={2, 3}, disallowed={5: "not in sched_getaffinity"})
    layout = parse_layout(b"version: 1\ninstances: [{name: a, cpus: 1-6}]\n", "l.yaml")
    assert [(problem.what, problem.why) for problem in check_layout(layout, machine)] == [
        ("CPUs 2-3 are offline", ""),
        ("CPU 5 may not be used by this process", "not in sched_getaffinity"),
    ]


def test_cores_of_a_node_without_memory_may_take_it_from_anywhere() -> None:
    machine = machines["build"](packages=2, cores_per_node=4, memoryless={1})
    layout = parse_layout(b"version: 1\ninstances: [{name: a, cpus: 4-7, membind: [0]}]\n", "l.yaml")
    assert check_layout(layout, machine) == []


def test_memory_that_is_not_there_or_not_allowed_is_a_problem() -> None:
    machine = machines["build"](packages=2, cores_per_node=4, memoryless={1}, memory_only=1, mems_disallowed={2})
    layout = parse_layout(
        b"version: 1\nallow: [remote-memory]\ninstances: [{name: a, cores: 2, membind: [1, 2]}]\n", "l"
    )
    said = [problem.what for problem in check_layout(layout, machine)]
    assert said == ["node 1 has no memory", "memory of node 2 may not be used by this process"]


def test_cores_on_a_node_that_has_no_cpus_is_a_problem() -> None:
    machine = machines["build"](cores_per_node=4, memory_only=1)
    layout = parse_layout(b"version: 1\ninstances: [{name: a, cores: 2, node: 1}]\n", "l")
    (problem,) = check_layout(layout, machine)
    assert (problem.what, problem.why) == ("node 1 has no CPUs", "it holds memory only")


def test_cores_on_a_node_of_which_nothing_may_be_used_is_a_problem_with_the_reason() -> None:
    machine = machines["build"](packages=2, cores_per_node=2, disallowed=dict.fromkeys([2, 3], "not in cpuset.cpus"))
    layout = parse_layout(b"version: 1\ninstances: [{name: a, cores: 1, node: 1}]\n", "l")
    (problem,) = check_layout(layout, machine)
    assert (problem.what, problem.why) == ("this process may use no CPU of node 1", "not in cpuset.cpus")
