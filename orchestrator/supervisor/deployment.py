"""What is the supervisor to run? Everything that is decided before a process starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.listening import Listening
from orchestrator.plan.model import Plan, PlannedInstance
from orchestrator.status import ModelStatus
from orchestrator.supervisor.backoff import Flapping
from orchestrator.supervisor.core import Kind, Timing
from orchestrator.supervisor.recycle import Ceiling
from topology.model import Machine


@dataclass(frozen=True)
class ChildPlan:
    """How one child is to be started, again and again."""

    name: str
    kind: Kind
    make_spec: Callable[[int], object]
    """From the incarnation (1, 2, …) to its specification."""
    threads: int = 1
    pass_fds: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its environment says otherwise than the supervisor's own."""
    role: str = ""
    """What the router and the log call it, where that is not its name; two children may have one role while one takes the other's place."""
    router: str = "router"
    """Of a worker: the child that gives it work."""

    @property
    def called(self) -> str:
        """By the router and in the log."""
        return self.role or self.name


@dataclass(frozen=True)
class LeftOut:
    """An instance that has failed for good, and that the plan now does without."""

    instance: PlannedInstance
    why: str


@dataclass(frozen=True)
class Deployment:
    """Everything that the supervisor runs at first; `Operations` changes it while it runs."""

    plan: Plan
    machine: Machine
    model: ModelStatus
    children: list[ChildPlan]
    listening: Listening
    endpoint: str
    control_socket: Path
    timing: Timing = field(default_factory=Timing)
    flapping: Flapping = field(default_factory=Flapping)
    parallel_starts: int = 8
    """Processes that may be starting at the same time, so that a big machine does not load 192 models at once."""
    ceiling: Ceiling = field(default_factory=Ceiling)
    """Beyond it a worker is replaced."""
    limits: Mapping[int, int] = field(default_factory=dict)
    """Resource limits of every child: RLIMIT_… → value."""
    warnings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    description: dict[str, Any] = field(default_factory=dict)
    """What the router tells clients of the model."""
    chore: Callable[[], None] = lambda: None
    """Something small that is due about once a second."""
    on_failed: Callable[[str, str], None] = lambda name, why: None  # noqa: ARG005
    """An instance has failed for good (name, why): nobody starts it again by himself. Called from the event loop; must not wait."""
