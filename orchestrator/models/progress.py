"""How does a process that makes something say how far it is? One line each on its standard error. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

MARK = b"@step "
"""What such a line begins with; every other line is words for people."""


class Step(msgspec.Struct, frozen=True):
    what: str
    done: int = 0
    total: int = 0
    """0: nobody knows how much it is."""


Show = Callable[[Step], None]


def unseen(_: Step) -> None:
    """For callers with nobody to show it to."""


def encode(step: Step) -> bytes:
    """A line, without its end."""
    return MARK + msgspec.json.encode(step)


def decode(line: bytes) -> Step | None:
    """None where the line is no step, or none that can be read: a bar that stands still is better than an end."""
    if not line.startswith(MARK):
        return None
    try:
        return msgspec.json.decode(line[len(MARK) :], type=Step)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
