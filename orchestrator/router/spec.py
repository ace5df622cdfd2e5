"""What does the router need to know at start? Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.plan.model import Plan


class RouterSpec(msgspec.Struct, frozen=True):
    front: str
    """ZeroMQ endpoint for clients, bound by the router (`ipc:///run/…/front.sock`)."""
    back: str
    """ZeroMQ endpoint for workers, bound by the router."""
    plan: Plan
    description: dict[str, Any]
    """Answer to DESCRIBE: what a client must know of the model (a ModelStatus, and `tokenizer`, the path of tokenizer.json)."""
    cpus: list[int]
    """Its own CPUs (housekeeping)."""
    report_seconds: float = 1.0
    local: str = ""
    """Where gateways and workers of this machine connect without ZeroMQ (`unix:///run/…/local.sock`, `workers.lane`); empty = nowhere."""
    pixel_bytes: int = 0
    """Of one image, where the model reads images; 0: it reads token ids."""
