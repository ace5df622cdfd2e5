"""What do the router's notes call requests and batches? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.router.events import Item
from workers.said import MOST_REQUESTS, request_name

LONGEST_REASON = 300
"""Characters of an engine's error in a note; the worker's own line has more."""


def names_of(items: Iterable[Item]) -> tuple[str, ...]:
    """The requests that still wait for one of these sequences, each once, and no more than a line can name."""
    names: dict[str, None] = {}
    for item in items:
        if item.request.unsettled:
            names[request_name(item.request.client, item.request.request_id)] = None
            if len(names) == MOST_REQUESTS:
                break
    return tuple(names)


def in_short(names: tuple[str, ...]) -> str:
    """`requests=a,b,c,…12`: enough to go on with; the line's own field has them all."""
    if not names:
        return ""
    more = f",…{len(names)}" if len(names) > 3 else ""
    return f" requests={','.join(names[:3])}{more}"


def short_reason(message: str) -> str:
    return message if len(message) <= LONGEST_REASON else f"{message[:LONGEST_REASON]}…"
