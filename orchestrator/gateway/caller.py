"""Who asks, may he, and how urgent is it? Pure.

The router serves more urgent classes first and is fair between tenants. A tenant is whoever sends the same key
(`Authorization` or `x-api-key`), else the same address. Only a number that stands for it goes to the router: never the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple
from zlib import crc32

from aiohttp import web

from orchestrator.gateway.errors import Refusal
from orchestrator.keys import fingerprint
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


class Guard:
    """Lets in who sends one of the keys, as `Authorization: Bearer KEY` or `x-api-key: KEY`."""

    def __init__(self, fingerprints: Sequence[str]) -> None:
        # Looked up by fingerprint: how long that takes tells nothing of a key.
        self._known = frozenset(fingerprints)

    def admit(self, request: web.BaseRequest) -> None:
        """Refusal (401) without a key, or with one that is not known."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = request.headers.get("x-api-key", "")
        key = key.strip()
        if not key:
            raise Refusal("unauthorized", "no key: send Authorization: Bearer KEY, or x-api-key: KEY")
        if fingerprint(key) not in self._known:
            raise Refusal("unauthorized", "this key is not one of those that may ask")
