"""With which command line and environment does a child start? Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.supervisor.core import Kind
from workers.engines.private import SILENCE

_MODULES: dict[Kind, str] = {"router": "orchestrator.router", "worker": "workers", "gateway": "orchestrator.gateway"}


def command(kind: Kind, name: str, channel_fd: int, python: str) -> list[str]:
    """`ps` shows which child it is by its name."""
    return [python, "-m", _MODULES[kind], "--channel", str(channel_fd), "--name", name]


def environment(kind: Kind, threads: int, base: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The supervisor's own environment, with every thread pool told its size before any library reads it.

    Only a worker's pools may be larger than one: a pool of the machine's size in every process is what makes several instances
    slower than one. Model code never reaches for the network in a child, and engines do not report to their makers. `own` is what
    this child alone is given: its allocator.
    """
    pool = str(threads if kind == "worker" else 1)
    return {
        **base,
        "OMP_NUM_THREADS": pool,
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": pool,
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **SILENCE,
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": base.get("PYTHONDONTWRITEBYTECODE", ""),
        **own,
    }
