"""Which layout file says what was found, and why? Pure.

The file names every CPU: what was measured is what is served. Replicas that are alike and side by side are one entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import msgspec

from orchestrator.config.cores import share_cpus
from orchestrator.config.load import parse_layout
from orchestrator.config.schema import InstanceGroup, Layout
from orchestrator.plan.model import Bucket, Plan, PlannedInstance
from orchestrator.plan.pinned import Entry, layout_text, pinned_layout
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.tune.estimate import batched_seconds
from orchestrator.tune.proposal import Form
from topology.cpuset import format_cpulist, parse_cpulist
from topology.model import Machine


class DoesNotReadBack(Exception):
    """A bug: the file would not give the plan that was judged."""


def text_of(
    planned: Plan, layout: Layout, machine: Machine, head: Sequence[str], why: Mapping[str, Sequence[str]]
) -> str:
    """The file. `layout`: what it was planned from; `why`: lines by the name of the entry.

    DoesNotReadBack if it would not give the same plan on this machine.
    """
    pinned = pinned_layout(planned, layout)
    entries = list(_entries(pinned.instances, planned.instances, machine, why))
    text = layout_text(pinned, entries, planned.housekeeping.reason, head)
    again = plan(machine, PlanRequest(layout=parse_layout(text.encode(), "the layout that was found")))
    if _essence(again) != _essence(planned):
        raise DoesNotReadBack(f"the layout that was found is not the one that its file gives:\n{text}")
    return text


def reasons(
    planned: Plan, forms: Mapping[str, Form], form_of: Mapping[str, str], shares: Sequence[tuple[int, float]]
) -> dict[str, list[str]]:
    """By the name of each entry: what it serves, what share of the work that is, and what one of its instances does.

    `form_of`: by the name of the instance.
    """
    by_entry: dict[str, list[PlannedInstance]] = {}
    for instance in planned.instances:
        by_entry.setdefault(_stem(instance), []).append(instance)
    cost: dict[str, tuple[float, float, float]] = {}
    for name, instances in by_entry.items():
        first = instances[0]
        form, bucket = forms[form_of[first.name]], first.bucket
        mine = [(length, share) for length, share in shares if bucket is None or bucket.min <= length <= bucket.max]
        share = sum(each for _, each in mine)
        work = sum(
            each * batched_seconds(form, first.threads, length, planned.max_batch_tokens) for length, each in mine
        )
        cost[name] = share, work, work * first.threads
    whole = sum(work for *_, work in cost.values()) or 1.0
    cores = sum(instance.threads for instance in planned.instances)
    said = {}
    for name, instances in by_entry.items():
        share, work, core_seconds = cost[name]
        mine_cores = sum(instance.threads for instance in instances)
        of = form_of[instances[0].name]
        parts = f"{share:.0%} of the requests, {core_seconds / whole:.0%} of the work, {mine_cores} of {cores} cores"
        speed = (
            f"about {share / work:.0f} such sequences/s from each of {len(instances)}" if work else "none are expected"
        )
        said[name] = [f"{name}: {_lengths(instances[0].bucket)}: {parts}", f"  {of}: {speed}"]
    return said


def _entries(
    groups: Sequence[InstanceGroup],
    instances: Sequence[PlannedInstance],
    machine: Machine,
    why: Mapping[str, Sequence[str]],
) -> Iterator[Entry]:
    def alike(pair: tuple[InstanceGroup, PlannedInstance]) -> InstanceGroup:
        return msgspec.structs.replace(pair[0], cpus=None)

    said: set[str] = set()
    for _, run in groupby(zip(groups, instances, strict=True), key=alike):
        pairs = list(run)
        first = pairs[0][0]
        words = [] if first.name in said else why.get(first.name, [])
        said.add(first.name)
        together = msgspec.structs.replace(
            first,
            replicas=len(pairs),
            cpus=format_cpulist(cpu for group, _ in pairs for cpu in parse_cpulist(group.cpus or "")),
        )
        if share_cpus(together, machine) == [instance.cpus for _, instance in pairs]:
            yield words, together
            continue
        for at, (group, _) in enumerate(pairs):
            yield words if at == 0 else [], group


def _essence(planned: Plan) -> object:
    return (
        planned.policy,
        planned.max_batch_tokens,
        planned.max_queue_delay_ms,
        planned.housekeeping.cpus,
        [
            (one.name, one.cpus, one.membind, one.threads, one.bucket, one.max_seqlen, one.precision, one.engine)
            for one in planned.instances
        ],
    )


def _stem(instance: PlannedInstance) -> str:
    return instance.name.rsplit("-", 1)[0]


def _lengths(bucket: Bucket | None) -> str:
    return "all lengths" if bucket is None else f"{bucket.min} to {bucket.max} tokens"
