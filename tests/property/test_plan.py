"""Does every plan keep what placement promises, whatever the machine? Machines are generated."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from orchestrator.config.load import parse_layout
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.pinned import to_yaml
from orchestrator.plan.solve import PlanRequest, decide, plan
from topology.model import Machine

build: Any = runpy.run_path(str(Path(__file__).parents[1] / "support" / "machines.py"))["build"]
POLICIES = ("by-seqlen", "by-seqlen-strict", "shortest-completion", "least-loaded", "round-robin")


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    packages = draw(st.integers(1, 4))
    nodes_per_package = draw(st.integers(1, 4))
    cores_per_node = draw(st.integers(1, 12))
    smt = draw(st.sampled_from([1, 1, 2, 2, 4]))
    cores = packages * nodes_per_package * cores_per_node
    some_cpus = st.sets(st.integers(0, cores * smt - 1), max_size=cores * smt)
    few_cpus = st.sets(st.integers(0, cores * smt - 1), max_size=4)
    return build(
        packages=packages,
        nodes_per_package=nodes_per_package,
        cores_per_node=cores_per_node,
        smt=smt,
        cores_per_llc=draw(st.none() | st.integers(1, cores_per_node)),
        numbering=draw(st.sampled_from(["siblings-last", "adjacent", "interleaved"])),
        offline=draw(few_cpus),
        disallowed=draw(some_cpus | st.just(set())),
        isolated=draw(some_cpus | st.just(set())),
        efficiency=draw(st.just(set()) | st.sets(st.integers(0, cores - 1))),
        quota=draw(st.none() | st.floats(0.25, cores * smt + 1)),
        memoryless=draw(st.just(set()) | st.sets(st.integers(0, packages * nodes_per_package - 1), max_size=3)),
        memory_only=draw(st.integers(0, 2)),
        mems_disallowed=draw(st.just(set()) | st.sets(st.integers(0, packages * nodes_per_package), max_size=2)),
        nodes_named=draw(st.sampled_from([True, True, True, False])),
    )


requests = st.builds(
    PlanRequest,
    instances=st.none() | st.integers(1, 24),
    policy=st.none() | st.sampled_from(POLICIES),
    max_seqlen=st.integers(1, 40) | st.sampled_from([128, 256, 384, 512, 8192]),
)


def usable(machine: Machine) -> Counter[int]:
    """Usable cores → how many PUs of each may be used."""
    return Counter(cpu.core for cpu in machine.cpus if cpu.allowed and cpu.core is not None)


def core_budget(machine: Machine) -> int:
    cores = len(usable(machine))
    return cores if machine.quota_cpus is None else min(cores, max(1, int(machine.quota_cpus)))


def check_promises(machine: Machine, result: Plan) -> None:
    cpus = {cpu.cpu: cpu for cpu in machine.cpus}
    nodes = {node.node: node for node in machine.nodes}
    owner: dict[int, str] = {}
    for instance in result.instances:
        assert instance.cpus, "an instance has cores"
        assert instance.cpus == sorted(set(instance.cpus))
        assert instance.threads == len(instance.cpus), "one thread per core"
        assert {cpus[cpu].node for cpu in instance.cpus} == {instance.node}, "inside one node"
        assert len({cpus[cpu].kind for cpu in instance.cpus}) == 1, "one kind of core"
        for cpu in instance.cpus:
            assert cpus[cpu].online
            assert cpus[cpu].allowed
            core = cpus[cpu].core
            assert core is not None
            assert core not in owner, f"core {core} of {instance.name} is {owner.get(core)}'s as well"
            owner[core] = instance.name
        for node in instance.membind:
            assert nodes[node].has_memory
            assert nodes[node].allowed
        if instance.node is not None and nodes[instance.node].has_memory and nodes[instance.node].allowed:
            assert instance.membind == [instance.node]
        assert instance.reasons
    assert len(owner) <= core_budget(machine), "no more cores than the quota pays for"

    house = set(result.housekeeping.cpus)
    busy = {cpu for instance in result.instances for cpu in instance.cpus}
    assert house
    assert all(cpus[cpu].allowed for cpu in house)
    assert result.housekeeping.shared == bool(house & busy)
    whole = {cpus[cpu].core for cpu in house} - set(owner)
    assert len(owner) + len(whole) <= core_budget(machine), "cores kept for housekeeping count against the quota"
    allowed = {cpu.cpu for cpu in machine.cpus if cpu.allowed}
    assert set(result.unused_cpus) == allowed - house - busy


@given(machine=machines(), request=requests)
@settings(max_examples=300, deadline=None)
def test_every_plan_keeps_its_promises_or_is_refused_for_a_reason(machine: Machine, request: PlanRequest) -> None:
    budget = core_budget(machine)
    if budget < (request.instances or 1):
        event("refused")
        with pytest.raises(PlanError, match="cannot place"):
            plan(machine, request)
        return
    result = plan(machine, request)
    event(f"{min(len(result.instances), 5)} instances")
    check_promises(machine, result)
    assert len(result.instances) == request.instances or (request.instances is None and result.instances)
    assert len({instance.name for instance in result.instances}) == len(result.instances)


@given(machine=machines(), request=requests)
@settings(max_examples=200, deadline=None)
def test_every_length_has_a_bucket_and_every_instance_can_hold_the_longest(
    machine: Machine, request: PlanRequest
) -> None:
    assume(core_budget(machine) >= (request.instances or 1))
    assume(request.max_seqlen is not None and request.max_seqlen <= 512)
    limit = request.max_seqlen or 0
    result = plan(machine, request)
    assert all(instance.max_seqlen == limit for instance in result.instances)
    if result.policy not in ("by-seqlen", "by-seqlen-strict"):
        assert all(instance.bucket is None for instance in result.instances)
        return
    held: Counter[int] = Counter()
    for bucket in {instance.bucket for instance in result.instances}:
        assert bucket is not None
        held.update(range(bucket.min, bucket.max + 1))
    assert held == Counter(range(1, limit + 1)), "each length exactly one bucket"


@given(machine=machines(), request=requests)
@settings(max_examples=200, deadline=None)
def test_an_instance_that_fits_into_one_cache_domain_lies_in_one(machine: Machine, request: PlanRequest) -> None:
    assume(core_budget(machine) >= (request.instances or 1))
    decision = decide(machine, request)
    cpus = {cpu.cpu: cpu for cpu in machine.cpus}
    busy = {cpu for instance in decision.plan.instances for cpu in instance.cpus}
    # What could have been had: cores of instances, and those left over for no other reason than this rule.
    left_over = {cpu for cpu, reason in decision.why.items() if reason.startswith("left over")}
    sizes = Counter((cpus[cpu].node, cpus[cpu].kind, cpus[cpu].llc) for cpu in busy | left_over)
    for instance in decision.plan.instances:
        domains = {(cpus[cpu].node, cpus[cpu].kind, cpus[cpu].llc) for cpu in instance.cpus}
        if len(domains) > 1:
            (here,) = {domain[:2] for domain in domains}
            assert len(instance.cpus) > max(size for domain, size in sizes.items() if domain[:2] == here)


@given(machine=machines(), request=requests)
@settings(max_examples=200, deadline=None)
def test_a_pinned_plan_loads_back_to_the_same_plan(machine: Machine, request: PlanRequest) -> None:
    assume(core_budget(machine) >= (request.instances or 1))
    first = plan(machine, request)
    layout = parse_layout(to_yaml(first).encode(), "pinned.yaml")
    second = plan(machine, PlanRequest(layout=layout))

    def placement(of: Plan) -> list[tuple[object, ...]]:
        return [(i.name, i.cpus, i.node, i.membind, i.threads, i.bucket, i.max_seqlen) for i in of.instances]

    assert placement(second) == placement(first)
    assert second.policy == first.policy
    assert second.housekeeping.cpus == first.housekeeping.cpus
    assert second.housekeeping.shared == first.housekeeping.shared
    assert second.unused_cpus == first.unused_cpus


@given(machine=machines(), request=requests)
@settings(max_examples=100, deadline=None)
def test_every_cpu_without_an_instance_has_a_reason(machine: Machine, request: PlanRequest) -> None:
    assume(core_budget(machine) >= (request.instances or 1))
    decision = decide(machine, request)
    busy = {cpu for instance in decision.plan.instances for cpu in instance.cpus}
    assert set(decision.why) == {cpu.cpu for cpu in machine.cpus} - busy
    assert all(decision.why.values())


@given(machine=machines(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_what_another_orchestrator_has_is_never_taken(machine: Machine, data: st.DataObject) -> None:
    numbers = sorted(cpu.cpu for cpu in machine.cpus)
    taken = data.draw(st.sets(st.sampled_from(numbers), max_size=6))
    request = PlanRequest(taken=dict.fromkeys(taken, "the orchestrator with pid 7"))
    gone = {cpu.core for cpu in machine.cpus if cpu.cpu in taken and cpu.core is not None}
    if set(usable(machine)) <= gone:
        with pytest.raises(PlanError, match="no CPU may be used"):
            plan(machine, request)
        return
    decision = decide(machine, request)
    result = decision.plan
    busy = {cpu for instance in result.instances for cpu in instance.cpus}
    assert set(decision.why) == set(numbers) - busy
    cpus = {cpu.cpu: cpu for cpu in machine.cpus}
    used = {cpu for instance in result.instances for cpu in instance.cpus} | set(result.housekeeping.cpus)
    assert not {cpus[cpu].core for cpu in used} & gone


def test_a_machine_without_a_usable_cpu_is_refused_with_each_reason() -> None:
    machine = build(cores_per_node=2, offline={0}, disallowed={1: "not in sched_getaffinity"})
    with pytest.raises(PlanError, match=r"no CPU may be used.*CPU 0: offline; CPU 1: not in sched_getaffinity"):
        plan(machine, PlanRequest())
