"""Who asks, and how urgent is it? Pure.

The router serves more urgent classes first and is fair between tenants. A tenant is whoever sends the same key
(`Authorization` or `x-api-key`), else the same address. Only a number that stands for it goes to the router: never the key.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from zlib import crc32

from aiohttp import web

from orchestrator.gateway.errors import Refusal
from workers import wire

_PRIORITIES: Final = {name: number for number, name in enumerate(wire.PRIORITIES)}


class Caller(NamedTuple):
    priority: int = wire.NORMAL
    """Index into `wire.PRIORITIES`."""
    tenant: int = 0
    """A u32; 0 = nothing is known, the gateway itself counts as the tenant."""


ANYBODY: Final = Caller()


def caller_of(request: web.BaseRequest) -> Caller:
    """From `x-priority`, and the key or the address; Refusal (400) for a priority that does not exist."""
    headers = request.headers
    sent = headers.get("x-priority")
    priority = wire.NORMAL if sent is None else _PRIORITIES.get(sent)
    if priority is None:
        raise Refusal("malformed", f"x-priority: {sent!r:.60} is unknown; known are {', '.join(_PRIORITIES)}")
    who = headers.get("Authorization") or headers.get("x-api-key") or request.remote
    return Caller(priority, crc32(who.encode("utf-8", "surrogateescape")) if who else 0)
