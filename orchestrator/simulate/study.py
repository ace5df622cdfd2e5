"""How do policies compare on one machine under one load? The same requests at the same times for each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from orchestrator.bench.rows import LoadRow
from orchestrator.plan.model import Plan, Policy
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.router.core import RouterCore
from orchestrator.simulate.costs import TrueCosts
from orchestrator.simulate.traffic import Traffic
from orchestrator.simulate.world import Settings, World, crossing_instances
from topology.model import Machine


class Study(msgspec.Struct, frozen=True):
    machine: Machine
    request: PlanRequest
    """Its policy is replaced by each that is compared."""
    costs: TrueCosts
    believes_measured: bool = True
    """Whether workers measure before they are ready; else the router starts with its defaults. It corrects either."""

    def plan_for(self, policy: Policy) -> Plan:
        """PlanError if what is asked cannot be placed."""
        return plan(self.machine, msgspec.structs.replace(self.request, policy=policy))

    def crossing(self, planned: Plan) -> frozenset[str]:
        return crossing_instances(planned, {cpu.cpu: cpu.node for cpu in self.machine.cpus})

    def world(
        self, policy: Policy, traffic: Traffic, settings: Settings, check: Callable[[RouterCore], None] | None = None
    ) -> World:
        planned = self.plan_for(policy)
        crossing = self.crossing(planned)
        return World(
            planned, self.costs, traffic, settings, measured=self.believes_measured, crossing=crossing, check=check
        )

    def compare(self, policies: Sequence[Policy], traffic: Traffic, settings: Settings) -> list[LoadRow]:
        """One row per policy."""
        rows = []
        for policy in policies:
            world = self.world(policy, traffic, settings)
            world.run()
            rows.append(world.row(policy))
        return rows
