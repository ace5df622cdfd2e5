"""Is there anybody to send a request to? GET /health, GET /v2/health/live, GET /v2/health/ready. Pure."""

from __future__ import annotations

from orchestrator.gateway.apis.call import dumps


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
    return dumps({"status": "ready", "instances_ready": ready})


def v2_live() -> bytes:
    """KServe: the process answers, whatever it can serve."""
    return dumps({"live": True})


def v2_ready() -> bytes:
    return dumps({"ready": True})
