"""Does the planner place as it promises on machines whose right answer is known?"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import parse_layout
from orchestrator.plan.buckets import bounds
from orchestrator.plan.explain import table, why_not
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.solve import PlanRequest, decide, plan

machines: Any = runpy.run_path(str(Path(__file__).parents[2] / "support" / "machines.py"))
build: Any = machines["build"]


def placement(result: Plan) -> dict[str, list[int]]:
    return {instance.name: instance.cpus for instance in result.instances}


def buckets(result: Plan) -> dict[str, tuple[int, int] | None]:
    return {i.name: (i.bucket.min, i.bucket.max) if i.bucket is not None else None for i in result.instances}


def layout_plan(machine: Any, text: str, **more: Any) -> Plan:
    return plan(machine, PlanRequest(layout=parse_layout(text.encode(), "l.yaml"), **more))


def span(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def test_two_cores_get_one_instance_each_and_share_with_housekeeping() -> None:
    result = plan(build(cores_per_node=2), PlanRequest(max_seqlen=256))
    assert placement(result) == {"short-0": [0], "long-0": [1]}
    assert buckets(result) == {"short-0": (1, 32), "long-0": (33, 256)}
    assert [(i.node, i.membind, i.threads, i.max_seqlen) for i in result.instances] == [(0, [0], 1, 256)] * 2
    assert result.housekeeping.cpus == [0, 1]
    assert result.housekeeping.shared
    assert result.housekeeping.reason == (
        "shared with the instances: too few cores to keep one free, and no SMT siblings"
    )


def test_three_instances_on_the_machine_of_the_article_have_the_shape_of_the_article() -> None:
    """8, 16 and 24 cores there; here node 0 keeps two cores for housekeeping, and 22 are a third and two thirds of it."""
    result = plan(machines["article"](), PlanRequest(instances=3))
    assert placement(result) == {"short-0": span(2, 8), "medium-0": span(9, 23), "long-0": span(24, 47)}
    assert buckets(result) == {"short-0": (1, 32), "medium-0": (33, 384), "long-0": (385, 512)}
    assert [instance.membind for instance in result.instances] == [[0], [0], [1]]
    assert result.housekeeping.cpus == [0, 1, 48, 49]
    assert not result.housekeeping.shared
    assert result.unused_cpus == span(50, 95)


def test_auto_gives_instances_of_eight_cores_on_a_large_machine_and_keeps_the_order_of_lengths() -> None:
    result = plan(machines["article"](), PlanRequest())
    assert {name: len(cpus) for name, cpus in placement(result).items()} == {
        "short-0": 8,
        "medium-0": 7,
        "medium-1": 7,
        "long-0": 8,
        "long-1": 8,
        "long-2": 8,
    }
    assert [instance.node for instance in result.instances] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("cores", "sizes"),
    [(1, [1]), (2, [1, 1]), (4, [1, 1, 1, 1]), (8, [1, 2, 2, 2]), (16, [2, 5, 4, 4]), (24, [4, 4, 4, 4, 4, 3])],
)
def test_auto_on_one_node_grows_instances_with_the_machine(cores: int, sizes: list[int]) -> None:
    result = plan(build(cores_per_node=cores), PlanRequest())
    assert [len(instance.cpus) for instance in result.instances] == sizes


def test_one_instance_takes_every_length_and_is_called_all() -> None:
    result = plan(build(cores_per_node=4), PlanRequest(instances=1, max_seqlen=300))
    assert placement(result) == {"all-0": [0, 1, 2, 3]}
    assert buckets(result) == {"all-0": (1, 300)}


@pytest.mark.parametrize("policy", ["shortest-completion", "least-loaded", "round-robin"])
def test_a_policy_without_buckets_gets_equal_shares_and_neutral_names(policy: Any) -> None:
    result = plan(build(cores_per_node=6), PlanRequest(instances=3, policy=policy))
    assert placement(result) == {"instance-0": [0, 1], "instance-1": [2, 3], "instance-2": [4, 5]}
    assert buckets(result) == {"instance-0": None, "instance-1": None, "instance-2": None}


@pytest.mark.parametrize(
    ("count", "limit", "tops"),
    [
        (3, 512, [32, 384, 512]),
        (3, 8192, [32, 384, 8192]),
        (3, 256, [32, 192, 256]),
        (3, 40, [20, 30, 40]),
        (2, 256, [32, 256]),
        (2, 16, [8, 16]),
        (3, 2, [1, 2]),
        (2, 1, [1]),
        (1, 512, [512]),
    ],
)
def test_bucket_bounds_keep_their_proportions_under_a_smaller_limit(count: int, limit: int, tops: list[int]) -> None:
    assert bounds(count, limit) == tops


def test_ten_words_and_a_hundred_and_fifty_words_fall_into_different_buckets() -> None:
    result = plan(build(cores_per_node=2), PlanRequest(instances=2, max_seqlen=256))
    short, long = (instance.bucket for instance in result.instances)
    assert short is not None
    assert long is not None
    assert short.min <= 12 <= short.max
    assert long.min <= 170 <= long.max


def test_siblings_are_taken_from_the_machine_not_from_the_numbers() -> None:
    result = plan(build(cores_per_node=3, smt=2, numbering="adjacent"), PlanRequest(instances=3))
    assert placement(result) == {"short-0": [0], "medium-0": [2], "long-0": [4]}
    assert result.housekeeping.cpus == [1, 3, 5]
    assert not result.housekeeping.shared
    assert "on the SMT siblings" in result.housekeeping.reason


def test_interleaved_numbers_keep_an_instance_on_one_node() -> None:
    result = plan(build(packages=2, cores_per_node=4, numbering="interleaved"), PlanRequest(instances=2))
    assert placement(result) == {"short-0": [2, 4, 6], "long-0": [1, 3, 5, 7]}
    assert result.housekeeping.cpus == [0]


def test_an_instance_does_not_straddle_cache_domains_that_can_hold_it() -> None:
    result = plan(build(cores_per_node=32, cores_per_llc=8), PlanRequest(instances=4))
    domains = [{cpu // 8 for cpu in instance.cpus} for instance in result.instances]
    assert domains == [{0}, {1}, {2}, {3}]


def test_fewer_instances_than_cache_domains_get_whole_domains_each() -> None:
    result = plan(build(cores_per_node=32, cores_per_llc=4), PlanRequest(instances=2))
    short, long = (set(instance.cpus) for instance in result.instances)
    assert short == set(range(2, 8)), "two domains, without the two housekeeping cores"
    assert long == set(range(8, 32))


def test_a_sibling_that_is_not_ours_is_told() -> None:
    result = plan(build(cores_per_node=2, smt=2, disallowed={2}), PlanRequest(instances=2))
    assert placement(result) == {"short-0": [0], "long-0": [1]}
    assert "siblings of its cores that are not ours (others may run there): CPU 2" in result.instances[0].reasons
    assert result.housekeeping.cpus == [3]


def test_a_core_whose_first_thread_is_not_ours_is_used_by_its_second() -> None:
    result = plan(build(cores_per_node=2, smt=2, disallowed={0}), PlanRequest(instances=2))
    assert placement(result) == {"long-0": [2], "short-0": [1]}


def test_performance_cores_run_instances_and_efficiency_cores_keep_house() -> None:
    result = plan(build(cores_per_node=8, efficiency=range(4, 8)), PlanRequest(instances=2))
    assert placement(result) == {"short-0": [0], "long-0": [1, 2, 3]}
    assert result.housekeeping.cpus == [4]
    assert result.unused_cpus == [5, 6, 7]
    assert any("4 efficiency cores (CPUs 4-7) have no instance" in warning for warning in result.warnings)


def test_efficiency_cores_are_used_where_performance_cores_do_not_suffice() -> None:
    result = plan(build(cores_per_node=4, efficiency=range(2, 4)), PlanRequest(instances=4))
    assert placement(result) == {"short-0": [0], "medium-0": [1], "long-0": [2], "long-1": [3]}


def test_isolated_cores_are_for_instances_and_the_others_for_housekeeping() -> None:
    result = plan(build(cores_per_node=8, isolated=range(2, 8)), PlanRequest(instances=2))
    assert placement(result) == {"short-0": [2], "long-0": [3, 4, 5, 6, 7]}
    assert result.housekeeping.cpus == [0]
    assert "isolated from the scheduler: CPU 2" in result.instances[0].reasons


def test_housekeeping_never_runs_on_isolated_cores_unless_all_are() -> None:
    some = plan(build(cores_per_node=16, isolated=range(4)), PlanRequest(instances=2))
    assert some.housekeeping.cpus == [4]
    all_of_them = plan(build(cores_per_node=16, isolated=range(16)), PlanRequest(instances=2))
    assert all_of_them.housekeeping.cpus == [0]


def test_a_quota_caps_the_cores_at_its_floor() -> None:
    result = plan(build(cores_per_node=16, smt=2, quota=3.9), PlanRequest())
    assert placement(result) == {"short-0": [0], "medium-0": [1], "long-0": [2]}
    assert result.housekeeping.shared, "siblings would cost quota on top"
    assert result.housekeeping.cpus == [0, 1, 2]


def test_a_quota_below_one_still_gives_one_core() -> None:
    assert placement(plan(build(cores_per_node=4, quota=0.5), PlanRequest())) == {"all-0": [0]}


def test_a_quota_is_spent_on_one_node_where_it_fits() -> None:
    result = plan(build(packages=2, cores_per_node=8, quota=8), PlanRequest(instances=2))
    assert {instance.node for instance in result.instances} == {0}
    assert result.housekeeping.cpus == [0], "housekeeping is paid from the quota too"


def test_cores_of_a_node_without_memory_take_it_from_the_nearest_with_some() -> None:
    machine = build(
        packages=2,
        nodes_per_package=2,
        cores_per_node=2,
        memoryless={1},
        distances={(1, 0): 20, (1, 2): 15, (1, 3): 30},
    )
    result = plan(machine, PlanRequest(instances=4))
    memory = {instance.node: instance.membind for instance in result.instances}
    assert memory == {0: [0], 1: [2], 2: [2], 3: [3]}
    assert result.warnings == ["node 1 has no memory: instances there take it from node 2"]


def test_memory_that_the_cgroup_forbids_is_not_bound_to() -> None:
    result = plan(build(packages=2, cores_per_node=2, mems_disallowed={1}), PlanRequest(instances=2))
    assert [(instance.node, instance.membind) for instance in result.instances] == [(0, [0]), (1, [0])]
    assert result.warnings == ["node 1 has memory that may not be used here: instances there take it from node 0"]


def test_a_memory_only_node_is_bound_to_by_nobody() -> None:
    result = plan(build(packages=2, cores_per_node=2, memory_only=1), PlanRequest())
    assert {node for instance in result.instances for node in instance.membind} == {0, 1}


def test_a_kernel_that_names_no_nodes_gives_no_node_and_no_binding() -> None:
    result = plan(build(cores_per_node=2, nodes_named=False), PlanRequest())
    assert [(instance.node, instance.membind) for instance in result.instances] == [(None, []), (None, [])]


def test_fewer_instances_than_nodes_leave_a_node_idle_and_say_so() -> None:
    result = plan(build(packages=4, cores_per_node=2), PlanRequest(instances=2))
    assert {instance.node for instance in result.instances} == {1, 2}
    assert result.warnings == [
        "1 core of node 0 idle: 2 instances for 4 nodes, and none crosses nodes; ask for 4 instances or more",
        "2 cores of node 3 idle: 2 instances for 4 nodes, and none crosses nodes; ask for 4 instances or more",
    ]


@pytest.mark.parametrize(
    ("machine", "count", "message"),
    [
        (
            {"cores_per_node": 2, "smt": 2},
            3,
            (
                "place 3 instances, each on a core of its own: this process may use 2 physical cores "
                "(SMT siblings share a core and do not count); ask for at most 2"
            ),
        ),
        (
            {"cores_per_node": 4, "offline": {3}, "disallowed": {2: "not in the cgroup's cpuset"}},
            3,
            (
                "place 3 instances, each on a core of its own: this process may use 2 physical cores; "
                "left out: CPU 2: not in the cgroup's cpuset; CPU 3: offline; ask for at most 2"
            ),
        ),
        (
            {"cores_per_node": 8, "quota": 2.5},
            3,
            (
                "place 3 instances, each on a core of its own: the cgroup's CPU quota of 2.5 pays for 2 of the "
                "8 usable cores; ask for at most 2, or raise the quota (cpu.max)"
            ),
        ),
        ({"cores_per_node": 2}, 0, "plan 0 instances; ask for 1 or more, or auto"),
    ],
)
def test_more_instances_than_cores_are_refused_with_the_reason_and_the_way_out(
    machine: dict[str, Any], count: int, message: str
) -> None:
    with pytest.raises(PlanError) as caught:
        plan(build(**machine), PlanRequest(instances=count))
    assert str(caught.value) == f"cannot {message}"


def test_what_another_orchestrator_has_is_left_to_it_core_by_core() -> None:
    decision = decide(build(cores_per_node=3, smt=2), PlanRequest(taken={3: "the orchestrator of pid 7"}))
    assert placement(decision.plan) == {"short-0": [1], "long-0": [2]}
    assert decision.why[3] == "taken by the orchestrator of pid 7"
    assert decision.why[0] == "its core is shared with CPU 3, taken by the orchestrator of pid 7"


def test_a_layout_may_leave_the_choice_of_cores_to_the_planner() -> None:
    text = """
version: 1
instances:
  - {name: long, max_seqlen: 512, cores: 6}
  - {name: short, replicas: 2, max_seqlen: 32, cores: 1}
"""
    result = layout_plan(build(cores_per_node=16, cores_per_llc=8), text)
    assert placement(result) == {"long-0": span(1, 6), "short-0": [7], "short-1": [8]}
    assert result.housekeeping.cpus == [0]
    assert buckets(result) == {"long-0": (33, 512), "short-0": (1, 32), "short-1": (1, 32)}


def test_replicas_share_the_cpus_of_an_entry_by_node_not_by_number() -> None:
    machine = build(packages=2, cores_per_node=4, numbering="interleaved")
    result = layout_plan(machine, "version: 1\ninstances: [{name: a, replicas: 2, cpus: 0-7}]\n")
    assert placement(result) == {"a-0": [0, 2, 4, 6], "a-1": [1, 3, 5, 7]}
    assert [instance.node for instance in result.instances] == [0, 1]


def test_housekeeping_of_a_layout_is_avoided_where_there_is_room_and_shared_where_there_is_not() -> None:
    text = "version: 1\nhousekeeping: {{cpus: '0'}}\ninstances: [{{name: a, cores: {cores}}}]\n"
    roomy = layout_plan(build(cores_per_node=4), text.format(cores=3))
    assert placement(roomy) == {"a-0": [1, 2, 3]}
    assert (roomy.housekeeping.shared, roomy.warnings) == (False, [])
    full = layout_plan(build(cores_per_node=4), text.format(cores=4))
    assert placement(full) == {"a-0": [0, 1, 2, 3]}
    assert full.housekeeping.shared
    assert full.warnings == ["housekeeping shares CPU 0 with instances: 4 cores are wanted and 3 are free without them"]


def test_a_model_shorter_than_the_layout_cuts_the_buckets_and_idles_nobody() -> None:
    text = """
version: 1
instances:
  - {name: short, max_seqlen: 32, cores: 1}
  - {name: medium, max_seqlen: 384, cores: 1}
  - {name: long, max_seqlen: 512, cores: 1}
"""
    result = layout_plan(build(cores_per_node=3), text, max_seqlen=256)
    assert buckets(result) == {"short-0": (1, 32), "medium-0": (33, 256), "long-0": (33, 256)}
    assert result.warnings == [
        '"long" is for 385 to 512 tokens, the longest sequence served is 256: it takes 33 to 256 as well'
    ]
    longer = layout_plan(build(cores_per_node=3), text, max_seqlen=1024)
    assert buckets(longer)["long-0"] == (385, 1024)
    assert longer.warnings == ['"long" ends at 512 tokens, sequences of up to 1024 are served: it takes those too']


def test_a_layout_and_a_count_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(PlanError, match="the layout lists 1 itself; leave --instances out"):
        layout_plan(build(cores_per_node=3), "version: 1\ninstances: [{name: a, cores: 1}]\n", instances=2)


def test_conflicts_of_a_layout_are_all_in_the_refusal() -> None:
    text = "version: 1\ninstances:\n  - {name: a, cpus: 0-1}\n  - {name: b, cpus: 1-9}\n"
    with pytest.raises(PlanError) as caught:
        layout_plan(build(cores_per_node=4), text)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["l.yaml:4:21", "l.yaml:4:21"]


def test_a_layout_that_cannot_be_packed_is_refused_with_what_was_free() -> None:
    text = "version: 1\ninstances: [{name: a, cores: 2, replicas: 3}]\n"
    with pytest.raises(PlanError, match=r'"a-2" \(instances\[0\]\): 2 cores wanted inside one NUMA node, free are'):
        layout_plan(build(packages=2, cores_per_node=3), text)


def test_two_threads_on_one_core_are_planned_as_asked_with_one_thread_run() -> None:
    result = layout_plan(build(cores_per_node=2, smt=2), "version: 1\ninstances: [{name: a, cpus: '0,2'}]\n")
    assert (result.instances[0].cpus, result.instances[0].threads) == ([0, 2], 1)
    assert result.warnings == ["a-0: CPU 2 on cores that it has already; one thread per core is run"]


def test_batching_and_limits_come_from_the_layout_else_from_the_schema() -> None:
    machine = build(cores_per_node=2)
    plain = plan(machine, PlanRequest())
    assert (plain.max_batch_tokens, plain.max_queue_delay_ms, plain.queue_limit) == (512, 0.0, 1024)
    text = "version: 1\nbatching: {max_batch_tokens: 64, max_queue_delay_ms: 1.5}\nlimits: {queue: 7}\n"
    given = layout_plan(machine, text)
    assert (given.max_batch_tokens, given.max_queue_delay_ms, given.queue_limit) == (64, 1.5, 7)


def test_why_not_answers_for_cpus_and_nodes() -> None:
    machine = build(
        packages=2, cores_per_node=4, smt=2, offline={15}, disallowed={2: "not in cpuset.cpus"}, memory_only=1
    )
    decision = decide(machine, PlanRequest(instances=1))

    def answer(target: str) -> str:
        return why_not(decision, machine, target)

    assert answer("4").startswith("CPU 4 runs all-0: ")
    assert answer("cpu15") == "CPU 15 has no instance: offline"
    assert answer("2") == "CPU 2 has no instance: not in cpuset.cpus"
    assert (
        answer("12")
        == "CPU 12 has no instance: SMT sibling on a core of all-0: idle, so that its thread has the core to itself"
    )
    assert answer("0").startswith("CPU 0 has no instance: housekeeping: ")
    assert answer("1") == "CPU 1 has no instance: 1 instance for 2 nodes, and none crosses nodes"
    assert answer("node2") == "node 2 has no instance: it has no CPUs, only memory"
    assert answer("node1").startswith("node 1 runs all-0\nbesides, CPUs 12-14: SMT sibling")
    assert "CPU 2: not in cpuset.cpus" in answer("node0")


@pytest.mark.parametrize("target", ["16", "node7", "n1", "", "-1", "cpu", "９"])
def test_why_not_of_what_the_machine_has_not_is_a_value_error(target: str) -> None:
    machine = build(cores_per_node=4)
    with pytest.raises(ValueError, match=r"neither a CPU nor a node|there is no"):
        why_not(decide(machine, PlanRequest()), machine, target)


def test_the_table_shows_instances_reasons_and_warnings() -> None:
    text = table(plan(build(packages=2, cores_per_node=2, memoryless={1}), PlanRequest()))
    assert "short-0   1-32     0     1        0     node 0" in text
    assert "warning: node 1 has no memory: instances there take it from node 0" in text
    assert "  short-0: sequences of 1 to 32 tokens" in text


def test_a_layout_that_gives_every_core_away_still_runs_with_its_housekeeping_shared_aloud() -> None:
    """8 + 16 cores on a node of 24, one of which housekeeping has: said, not refused, and never in silence."""
    text = """
version: 1
housekeeping: {cpus: "0,48"}
instances:
  - {name: short,  replicas: 1, max_seqlen: 32,  cores: 8,  node: 0}
  - {name: medium, replicas: 1, max_seqlen: 384, cores: 16, node: 0}
  - {name: long,   replicas: 1, max_seqlen: 512, cpus: "24-47", membind: [1]}
"""
    result = layout_plan(machines["article"](), text)
    assert placement(result) == {"short-0": span(0, 7), "medium-0": span(8, 23), "long-0": span(24, 47)}
    assert result.housekeeping.shared
    assert result.warnings == [
        "housekeeping shares CPU 0 with instances: 24 cores are wanted and 23 are free without them"
    ]


def test_housekeeping_of_a_layout_without_instances_is_paid_from_the_quota_as_well() -> None:
    text = "version: 1\nhousekeeping: {cpus: '9'}\n"
    result = layout_plan(build(cores_per_node=16, quota=4), text, instances=3)
    assert placement(result) == {"short-0": [0], "medium-0": [1], "long-0": [2]}
    assert result.housekeeping.cpus == [9]
    crowded = layout_plan(build(cores_per_node=2), "version: 1\nhousekeeping: {cpus: '0'}\n", instances=2)
    assert crowded.housekeeping.shared
    assert crowded.warnings == ["housekeeping shares CPU 0 with instances: without that 1 core would be left for 2"]
