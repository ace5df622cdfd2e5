"""Which lines tell of one request? Pure.

Theory of operation. The gateway knows a request by the client's `x-request-id` and by the router's name for it; the router's lines carry
the latter, and the batch where there is one; the worker's lines carry the batch. So three steps lead from the id that the client saw to
the batch that failed. Each is a pass over the lines, which are many, for names that are few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orchestrator.logs.record import Record

Lines = Callable[[], Iterable[Record]]


def trace(request: str, lines: Lines) -> list[Record]:
    """The lines about `request`, in the order of `lines`, which is called several times. It may be any of the three names."""
    names = {request}
    for record in lines():
        if record.request_id == request:
            names.update(record.requests)
    batches = {request}
    for record in lines():
        if record.batch is not None and not names.isdisjoint(record.requests):
            batches.add(record.batch)
    return [record for record in lines() if _about(record, request, names, batches)]


def _about(record: Record, request: str, names: set[str], batches: set[str]) -> bool:
    return record.request_id == request or record.batch in batches or not names.isdisjoint(record.requests)
