"""What is a layout before it has cores: which buckets, how many instances of how many cores in each, computing with what? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from orchestrator.config.check import check_layout
from orchestrator.config.schema import Batching, Engine, InstanceGroup, Layout, Policy, Precision
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.simulate.costs import TrueCosts
from topology.model import Machine

_NAMES: Final = {1: ("all",), 2: ("short", "long"), 3: ("short", "medium", "long")}


@dataclass(frozen=True)
class Form:
    """What instances may compute with, and how long it takes."""

    precision: Precision
    engine: Engine
    costs: TrueCosts
    exactness: float = 1.0
    """Mean cosine to fp32: of two that are as fast the more exact one is taken."""

    @property
    def name(self) -> str:
        return f"{self.precision} on {self.engine}"


class Group(msgspec.Struct, frozen=True):
    """Instances that are alike."""

    top: int
    """The longest sequence of its bucket, in tokens."""
    replicas: int
    cores: int
    """Of each."""
    form: str


class Proposal(msgspec.Struct, frozen=True):
    groups: tuple[Group, ...]
    """From the shortest bucket to the longest."""
    policy: Policy = "by-seqlen"
    max_batch_tokens: int = 512

    @property
    def cores(self) -> int:
        return sum(group.cores * group.replicas for group in self.groups)

    @property
    def instances(self) -> int:
        return sum(group.replicas for group in self.groups)

    @property
    def plainness(self) -> tuple[int, int, int, int]:
        """The lower the simpler: buckets, forms, instances, and whether the batching is another than the default."""
        return (
            len(self.groups),
            len({group.form for group in self.groups}),
            self.instances,
            int(self.max_batch_tokens != Batching().max_batch_tokens),
        )

    @property
    def words(self) -> str:
        several = len(self.groups) > 1
        parts = [
            f"{group.replicas}×{group.cores}{f' to {group.top}' if several else ''}"
            + (f" ({group.form})" if len({each.form for each in self.groups}) > 1 else "")
            for group in self.groups
        ]
        if self.policy != "by-seqlen":
            parts.append(self.policy)
        if self.max_batch_tokens != Batching().max_batch_tokens:
            parts.append(f"batches of {self.max_batch_tokens}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Entrant:
    """A layout with its plan, and what each instance computes with: what can be simulated, and served."""

    name: str
    layout: Layout
    plan: Plan
    costs: TrueCosts
    """Of most instances."""
    of_instance: Mapping[str, TrueCosts]
    """Of the others."""
    form_of: Mapping[str, str]
    """By instance."""
    proposal: Proposal | None = None
    """None: it is what `plan` chooses."""

    @property
    def plainness(self) -> tuple[int, int, int, int]:
        return self.proposal.plainness if self.proposal is not None else (0, 0, 0, 0)


def names_of(count: int) -> Sequence[str]:
    """Of so many buckets, from the shortest to the longest."""
    return _NAMES.get(count) or tuple(f"bucket{at}" for at in range(count))


def layout_of(proposal: Proposal, base: Layout, forms: Mapping[str, Form]) -> Layout:
    """As a layout file would say it; the planner chooses the cores."""
    used = {group.form for group in proposal.groups}
    same = forms[next(iter(used))] if len(used) == 1 else None
    several = len(proposal.groups) > 1
    groups = tuple(
        InstanceGroup(
            name=name,
            replicas=group.replicas,
            max_seqlen=group.top if several else None,
            cores=group.cores,
            precision=None if same else forms[group.form].precision,
            engine=None if same else forms[group.form].engine,
        )
        for name, group in zip(names_of(len(proposal.groups)), proposal.groups, strict=True)
    )
    return msgspec.structs.replace(
        base,
        policy=proposal.policy,
        precision=same.precision if same else "auto",
        engine=same.engine if same else "auto",
        instances=groups,
        batching=msgspec.structs.replace(base.batching, max_batch_tokens=proposal.max_batch_tokens),
    )


def entrant(proposal: Proposal, base: Layout, forms: Mapping[str, Form], machine: Machine) -> Entrant:
    """PlanError if the planner cannot place it here."""
    layout = layout_of(proposal, base, forms)
    problems = check_layout(layout, machine)
    if problems:
        raise PlanError("; ".join(map(str, problems)))
    planned = plan(machine, PlanRequest(layout=layout))
    by_entry = [group for group in proposal.groups for _ in range(group.replicas)]
    first = forms[proposal.groups[0].form].costs
    others = {
        str(instance.name): forms[group.form].costs
        for instance, group in zip(planned.instances, by_entry, strict=True)
        if forms[group.form].costs is not first
    }
    form_of = {str(instance.name): group.form for instance, group in zip(planned.instances, by_entry, strict=True)}
    return Entrant(proposal.words, layout, planned, first, others, form_of, proposal)


def as_planned(planned: Plan, layout: Layout, form_of: Mapping[str, str], forms: Mapping[str, Form]) -> Entrant:
    """What the planner chose by itself; `form_of`: what each of its instances would compute with."""
    instances = [
        msgspec.structs.replace(
            each, precision=forms[form_of[each.name]].precision, engine=forms[form_of[each.name]].engine
        )
        for each in planned.instances
    ]
    first = forms[form_of[instances[0].name]].costs
    others = {name: forms[form].costs for name, form in form_of.items() if forms[form].costs is not first}
    named = msgspec.structs.replace(planned, instances=instances)
    return Entrant("as `plan` chooses", layout, named, first, others, dict(form_of))
