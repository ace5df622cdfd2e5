"""Is there anybody to send a request to? GET /health, GET /v2/health/live, GET /v2/health/ready. Pure."""

from __future__ import annotations

from typing import Literal, TypedDict

from orchestrator.gateway.apis.call import dumps


class Health(TypedDict):
    status: Literal["ready"]
    instances_ready: int


class Live(TypedDict):
    live: bool


class Ready(TypedDict):
    ready: bool


def trouble(*, draining: bool, router_answers: bool, known: bool, ready: int) -> str | None:
    """Why a request would not be served now, None if it would."""
    if draining:
        return "draining: this gateway takes nothing new"
    if not known:
        return "starting: the supervisor has not reported yet"
    if ready == 0:
        return "no instance is ready"
    if not router_answers:
        return "the router does not answer"
    return None


def health(ready: int) -> bytes:
    """The body of GET /health where requests are served."""
    said: Health = {"status": "ready", "instances_ready": ready}
    return dumps(said)


def v2_live() -> bytes:
    """KServe: the process answers, whatever it can serve."""
    said: Live = {"live": True}
    return dumps(said)


def v2_ready() -> bytes:
    said: Ready = {"ready": True}
    return dumps(said)
