"""Does the cpuset of a unit hold its plan, and is the plan inside it the plan outside? Machines are generated."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hypothesis import assume, event, given

from orchestrator.cli.errors import CommandError
from orchestrator.cli.systemd import confined, inside
from orchestrator.config.schema import Layout
from orchestrator.plan.solve import PlanRequest, plan
from topology.model import Machine

machines: Any = runpy.run_path(str(Path(__file__).parent / "test_plan.py"))["machines"]


@given(machines())
def test_inside_its_cpuset_the_planner_makes_the_same_plan(machine: Machine) -> None:
    try:
        place = confined(Layout(version=1), machine)
    except CommandError:
        assume(False)
    event("confined" if place.cpus is not None else place.unconfined)
    outside, within = plan(machine, PlanRequest()), plan(inside(machine, place), PlanRequest())
    used = {cpu for each in outside.instances for cpu in each.cpus} | set(outside.housekeeping.cpus)
    assert place.cpus is None or used <= place.cpus
    assert place.nodes is None or {node for each in outside.instances for node in each.membind} <= place.nodes
    seats = [[(each.name, each.cpus, each.membind) for each in one.instances] for one in (outside, within)]
    assert seats[0] == seats[1]
    assert outside.housekeeping.cpus == within.housekeeping.cpus


@given(machines())
def test_a_core_is_in_the_cpuset_with_all_its_siblings_that_may_be_used_or_not_at_all(machine: Machine) -> None:
    try:
        place = confined(Layout(version=1), machine)
    except CommandError:
        assume(False)
    assume(place.cpus is not None)
    for cpu in machine.cpus:
        if cpu.online and cpu.allowed:
            siblings = {
                other.cpu for other in machine.cpus if other.core == cpu.core and other.online and other.allowed
            }
            assert (cpu.cpu in place.cpus) == bool(siblings <= place.cpus)
        else:
            assert cpu.cpu not in place.cpus
