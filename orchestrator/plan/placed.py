"""What is known of an instance once it has its cores? Pure."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config.cores import Core
from orchestrator.plan.model import Bucket


@dataclass(frozen=True, slots=True)
class Placed:
    """An instance with its cores. `membind` is None where it follows from the cores."""

    name: str
    bucket: Bucket | None
    cpus: tuple[int, ...]
    """The PUs its threads run on."""
    cores: tuple[Core, ...]
    node: int | None
    membind: tuple[int, ...] | None
    threads: int
    reasons: tuple[str, ...]
