"""What is a plan? The layout of instances over the machine, before anything starts. Pure."""

from __future__ import annotations

from typing import NewType

import msgspec

from orchestrator.config.schema import Allocator, HugePages
from orchestrator.config.schema import Policy as Policy  # declared once, where the layout file declares it

InstanceName = NewType("InstanceName", str)


class Bucket(msgspec.Struct, frozen=True):
    """Sequence lengths in tokens, both ends inclusive."""

    min: int
    max: int


class PlannedInstance(msgspec.Struct, frozen=True, omit_defaults=True):
    name: InstanceName
    cpus: list[int]
    """The PUs its threads run on: one per physical core, ascending."""
    node: int | None
    """The NUMA node of its cores; None on a machine whose kernel names no nodes."""
    membind: list[int]
    """The nodes its memory comes from."""
    threads: int
    bucket: Bucket | None
    max_seqlen: int
    """The longest sequence its engine is asked to hold (≥ bucket.max)."""
    reasons: list[str]
    precision: str | None = None
    engine: str | None = None
    """What it computes with; until a model is chosen what its entry of the layout asks for, None if that asks for nothing of its own."""
    allocator: Allocator = "system"
    huge_pages: HugePages = "system"


class Housekeeping(msgspec.Struct, frozen=True):
    cpus: list[int]
    """Where supervisor, router and gateways run."""
    shared: bool
    """True where these are also some instance's CPUs (tiny machines)."""
    reason: str


class Plan(msgspec.Struct, frozen=True):
    policy: Policy
    instances: list[PlannedInstance]
    housekeeping: Housekeeping
    unused_cpus: list[int]
    warnings: list[str]
    max_batch_tokens: int = 512
    max_queue_delay_ms: float = 0.0
    queue_limit: int = 1024


class PlanError(Exception):
    """What was asked cannot be placed: says what, where, why and what to do next."""
