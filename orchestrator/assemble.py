"""From what the user asked for to what is to run: layout, machine, model, plan and artefacts. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.allocators import preloaded_allocators
from orchestrator.claims import ClaimError, Claims
from orchestrator.config.allocation import allocation_problems, openvino_may_serve
from orchestrator.config.check import check_layout
from orchestrator.config.load import LayoutErrors, load_layout
from orchestrator.config.schema import Layout, layout_max_seqlen
from orchestrator.plan.model import InstanceName, Plan, PlanError
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.preload import libraries
from topology.model import Machine, TopologyError
from topology.sysfs import read_machine
from workers.bind import BindError, PolicyForbiddenError, libnuma
from workers.spec import Artefact

if TYPE_CHECKING:
    from orchestrator.models import Prepared
    from orchestrator.models.optimize import Tuned


class AppError(Exception):
    """It cannot start: what, where, why, what to do. `unworkable`: nor can it at the next try (exit code 78)."""

    def __init__(self, message: str, unworkable: bool = False) -> None:
        super().__init__(message)
        self.unworkable = unworkable


@dataclass(frozen=True)
class Options:
    """What the command line says; None leaves it to the layout, then to the default of the schema."""

    layout: Path | None
    model: str | None
    task: str | None
    precision: str | None
    engine: str | None
    instances: int | None
    policy: str | None
    max_seqlen: int | None
    host: str | None
    port: int | None
    runtime: Path
    cache: Path
    claim_scope: str = "host"
    start_timeout_s: float | None = None
    min_cosine: float | None = None
    answer_cache_mb: float | None = None
    join_requests: bool | None = None
    keys_file: str | None = None
    cpu_latency_us: int | None = None
    logs: Path | None = None
    """Where log files lie unless the layout or `log_dir` says it."""
    log_dir: str | None = None
    log_format: str | None = None
    access_log: str | None = None


@dataclass(frozen=True)
class Prelude:
    """What is known before the first process starts; `up` shows it."""

    machine: Machine
    prepared: Prepared
    plan: Plan
    artefacts: dict[InstanceName, Artefact]
    """What each instance loads."""
    libraries: dict[str, str]
    """Allocator → the library that is preloaded."""


def settled_layout(options: Options) -> Layout:
    """The layout file, or the defaults, with what the command line says over it. AppError lists every problem."""
    try:
        layout = load_layout(options.layout) if options.layout is not None else Layout(version=1)
    except LayoutErrors as error:
        raise AppError(str(error), unworkable=True) from None
    said: dict[str, Any] = {
        name: value
        for name in (
            "model",
            "task",
            "precision",
            "engine",
            "min_cosine",
            "policy",
            "max_seqlen",
            "host",
            "port",
            "keys_file",
            "cpu_latency_us",
        )
        if (value := getattr(options, name)) is not None
    }
    if options.start_timeout_s is not None:
        said["supervision"] = msgspec.structs.replace(layout.supervision, start_timeout_s=options.start_timeout_s)
    kept = {"answers_mb": options.answer_cache_mb, "join": options.join_requests}
    caches = {name: value for name, value in kept.items() if value is not None}
    if caches:
        said["caches"] = msgspec.structs.replace(layout.caches, **caches)
    logged = {"dir": options.log_dir, "format": options.log_format, "access": options.access_log}
    if logs := {name: value for name, value in logged.items() if value is not None}:
        said["logs"] = msgspec.structs.replace(layout.logs, **logs)
    if layout.instances and options.instances is not None:
        raise AppError(
            f"--instances {options.instances} and the instances of {options.layout} say different things; leave one of them out",
            unworkable=True,
        )
    # What the command line says goes before all of the file, so before its entries as well.
    of_entries = {name: None for name in ("precision", "engine") if name in said}
    said["instances"] = tuple(msgspec.structs.replace(group, **of_entries) for group in layout.instances)
    settled = msgspec.structs.replace(layout, **said)
    if problems := list(allocation_problems(settled)):  # an engine on the command line, an allocator in the file
        raise AppError("\n".join(map(str, problems)), unworkable=True)
    return settled


def prelude(options: Options, layout: Layout, say: Callable[[str], None], claims: Claims) -> Prelude:
    """Reads the machine, prepares the model, makes the plan and claims its CPUs. AppError says which of them cannot be."""
    shared = "overlap" in layout.allow
    return assembled(options, layout, say, lambda machine, request: _claimed_plan(machine, request, claims, shared))


def assembled(
    options: Options, layout: Layout, say: Callable[[str], None], solve: Callable[[Machine, PlanRequest], Plan]
) -> Prelude:
    """Machine, model and plan, where `solve` makes the plan. AppError says which of them cannot be."""
    from orchestrator.models import ModelError, prepare
    from orchestrator.models.choose import Wish
    from orchestrator.models.optimize import tune

    try:
        machine = read_machine()
    except TopologyError as error:
        raise AppError(str(error)) from None
    if layout.instances or layout.housekeeping:
        problems = check_layout(layout, machine)
        if problems:
            raise AppError("\n".join(map(str, problems)), unworkable=True)
    _several_nodes_need_libnuma(machine)
    allocators = libraries(layout, os.environ)
    if allocators.problems:
        raise AppError("\n".join(map(str, allocators.problems)), unworkable=True)
    try:
        prepared = prepare(
            layout.model,
            task=layout.task,
            max_seqlen=layout_max_seqlen(layout),
            cache=options.cache,
        )
        how = "built" if prepared.built else "from the cache"
        say(f"model {prepared.status.id}: fp32 graph {how} in {prepared.seconds:.1f} s")
        if layout.precision == "fp32" and layout.engine == "auto" and not any(g.precision for g in layout.instances):
            say(
                "fp32 gives the model's own answers; --precision auto measures what bf16 and int8 gain on this CPU, and what they cost"
            )
        engine = layout.engine if layout.engine != "auto" or openvino_may_serve(layout) else "onnxruntime"
        wish = Wish(layout.precision, engine, layout.min_cosine)
        others = [
            Wish(group.precision or wish.precision, group.engine or wish.engine, layout.min_cosine)
            for group in layout.instances
            if group.precision is not None or group.engine is not None
        ]
        tuned = tune(prepared, options.cache, wish, None, say, others=list(dict.fromkeys(others)))
    except ModelError as error:
        raise AppError(str(error), unworkable=error.unworkable) from None
    policy = layout.policy
    if prepared.artefact.pixels is not None and policy == "by-seqlen":
        policy = "shortest-completion"
        say(
            f"model {prepared.status.id}: all images count as {prepared.status.max_seqlen} tokens; no buckets by length"
        )
    request = PlanRequest(
        instances=options.instances,
        policy=policy,
        max_seqlen=prepared.status.max_seqlen,
        layout=layout,
        batching=layout.batching,
        limits=layout.limits,
    )
    planned = solve(machine, request)
    try:
        return with_variants(Prelude(machine, prepared, planned, {}, allocators.paths), tuned)
    except ModelError as error:
        raise AppError(str(error), unworkable=error.unworkable) from None


def with_variants(before: Prelude, tuned: Tuned) -> Prelude:
    """Each instance gets the form of the model that is best for its bucket. ModelError if none can be used."""
    from orchestrator.models.loadable import Loadable, loadable

    instances, artefacts, warnings = [], {}, [*before.plan.warnings, *tuned.notes]
    chosen: dict[str, Loadable] = {}
    nodes = sorted({one.membind[0] if one.membind else 0 for one in before.plan.instances})
    for instance in before.plan.instances:
        low, high = (instance.bucket.min, instance.bucket.max) if instance.bucket else (1, instance.max_seqlen)
        choice = tuned.choose(
            low,
            min(high, instance.max_seqlen),
            openvino=instance.allocator == "system",
            precision=instance.precision,
            engine=instance.engine,
        )
        variant = choice.variant
        warnings += [warning for warning in choice.warnings if warning not in warnings]
        if variant.name not in chosen:
            chosen[variant.name] = loadable(tuned, variant, nodes)
            if (warning := chosen[variant.name].warning) is not None:
                warnings.append(warning)
        artefacts[instance.name] = chosen[variant.name].artefacts[instance.membind[0] if instance.membind else 0]
        instances.append(
            msgspec.structs.replace(
                instance,
                precision=variant.precision,
                engine=variant.engine,
                reasons=[*instance.reasons, f"{variant.name}: {choice.reason}"],
            )
        )
    brought = preloaded_allocators(os.environ)
    if brought and any(one.engine == "openvino" for one in artefacts.values()):
        warnings.append(
            f"LD_PRELOAD brings {' and '.join(brought)}, with which openvino aborts: its workers start without; "
            "`allocator` in the layout says it per instance"
        )
    if len(chosen) > 1:
        warnings.append(
            f"instances compute in {' and '.join(chosen)}: one text gives slightly different answers by the instance that takes it; "
            "--precision names one for all"
        )
    status = msgspec.structs.replace(
        before.prepared.status,
        precision="+".join(dict.fromkeys(one.precision for one in artefacts.values())),
        engine="+".join(dict.fromkeys(one.engine for one in artefacts.values())),
    )
    return Prelude(
        machine=before.machine,
        prepared=msgspec.structs.replace(before.prepared, status=status),
        plan=msgspec.structs.replace(before.plan, instances=instances, warnings=warnings),
        artefacts=artefacts,
        libraries=before.libraries,
    )


def _claimed_plan(machine: Machine, request: PlanRequest, claims: Claims, shared: bool) -> Plan:
    """A plan around what other orchestrators hold, with its own CPUs claimed, unless the layout allows overlap."""
    while True:
        taken = {} if shared else claims.taken(cpu.cpu for cpu in machine.cpus if cpu.allowed)
        try:
            made = plan(machine, msgspec.structs.replace(request, taken=taken))
        except PlanError as error:
            raise AppError(str(error), unworkable=not taken) from None
        if shared:
            return made
        try:
            claims.claim(cpu for instance in made.instances for cpu in instance.cpus)
        except ClaimError:
            continue  # somebody was faster; plan again around them
        return made


def _several_nodes_need_libnuma(machine: Machine) -> None:
    nodes = [node.node for node in machine.nodes if node.has_memory]
    if len(nodes) < 2:
        return
    try:
        libnuma()
    except PolicyForbiddenError:
        return  # each worker notes it, and status shows it
    except BindError as error:
        raise AppError(f"memory must be bound to one of the nodes {nodes}, but {error}", unworkable=True) from None
