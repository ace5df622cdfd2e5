"""How does a child say more than a line of text, and never wait for whoever reads it?

A line that begins with 0x1E is JSON of `Said` (the mark is that of RFC 7464); every other line of a child's output is just text.
The supervisor reads both from the same pipe and adds who said it and when.
"""

from __future__ import annotations

import os
import select
from typing import Any, Final, Literal

import msgspec

Level = Literal["debug", "info", "warning", "error"]

MARK: Final = b"\x1e"
LONGEST_MESSAGE: Final = 4000
"""Characters; escaped as JSON they stay below what the supervisor reads as one line (`orchestrator.logs.intake`)."""
MOST_REQUESTS: Final = 64
"""Requests that one line names."""


class Said(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a child says of itself. The keys are those of the log, see docs/operations.md."""

    message: str
    level: Level = "info"
    event: str = "note"
    request_id: str | None = None
    """As the client knows it, `x-request-id`."""
    requests: list[str] = []
    """As the router knows them, see `request_name`."""
    batch: str | None = None
    method: str | None = None
    route: str | None = None
    status: int | None = None
    error: str | None = None
    """The kind of an error, `error_type` of the answer."""
    took_ms: float | None = None
    peer: str | None = None
    dropped: int | None = None
    """Lines that are missing."""


_encode = msgspec.json.Encoder().encode
_unsaid = 0


def request_name(client: bytes, request_id: int) -> str:
    """What logs call a request on the wire: a short name of its client, and the client's number for it.

    A gateway's name is what it introduced itself with (`orchestrator.router.ports`), any other client's the beginning of its identity.
    """
    name = client.partition(b" ")[2][:64].decode("ascii", "replace") if client[:1] == b"\x01" else client[:6].hex()
    return f"{name}:{request_id:x}"


def batch_name(batch_id: int) -> str:
    """What logs call a batch: 63 bits are no number that every reader of JSON can hold."""
    return f"{batch_id:x}"


def line_of(message: str, **more: Any) -> bytes:
    """The line for one message. Lone surrogates and too much text do not stand in its way."""
    if len(message) > LONGEST_MESSAGE:
        # The end of a traceback says what went wrong, its beginning where.
        message = (
            f"{message[:1000]}\n[… {len(message) - LONGEST_MESSAGE} characters …]\n{message[1000 - LONGEST_MESSAGE :]}"
        )
    message = message.encode("utf-8", "backslashreplace").decode()
    if len(more.get("requests", ())) > MOST_REQUESTS:
        more["requests"] = more["requests"][:MOST_REQUESTS]
    return MARK + _encode(Said(message=message, **more)) + b"\n"


def say(message: str, *, fd: int = 2, **more: Any) -> None:
    """Writes one message to standard error, or drops it where the supervisor does not read: it is counted, and said later.

    `more` are the other fields of `Said`. A pipe that poll calls writable takes 4 KiB without waiting (pipe(7)).
    """
    global _unsaid
    try:
        ready = select.poll()
        ready.register(fd, select.POLLOUT)
        if not ready.poll(0):
            _unsaid += 1
            return
        line = line_of(message, **more)
        if _unsaid:
            count, _unsaid = _unsaid, 0
            line = (
                line_of(
                    f"{count} lines were dropped: nobody read them", level="warning", event="dropped", dropped=count
                )
                + line
            )
        os.write(fd, line)
    except OSError:
        return  # nobody is there any more to be told
