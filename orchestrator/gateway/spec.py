"""What does a gateway need to know at start? Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from orchestrator.status import ModelStatus


class Limits(msgspec.Struct, frozen=True):
    body_bytes: int = 8 << 20
    batch: int = 256
    """Texts in one request."""
    in_flight: int = 4096
    """Requests at once in one gateway; beyond it 429."""
    truncate: bool = False
    """Whether a text that is too long is cut even where the request does not ask for it."""
    default_timeout_ms: int = 60_000
    """Deadline of a request that names none."""


class Caches(msgspec.Struct, frozen=True):
    """Of each gateway; 0 bytes: no such cache."""

    token_bytes: int = 0
    answer_bytes: int = 0
    join: bool = False
    """Whether requests that are alike and under way at the same time are computed once."""


class GatewaySpec(msgspec.Struct, frozen=True):
    name: str
    listen_fds: list[int]
    """The listening sockets, held by the supervisor and inherited."""
    router: str
    """Where the router takes lanes: `unix:///…`."""
    model: ModelStatus
    tokenizer: str
    """Path of tokenizer.json; empty where the model reads images."""
    limits: Limits
    cpus: list[int]
    report_seconds: float = 1.0
    caches: Caches = Caches()
    keys: tuple[str, ...] = ()
    """Fingerprints of the keys that may ask (`orchestrator.keys`); none: everybody may."""
    access: Literal["off", "errors", "all"] = "errors"
    """Which requests are written down."""
