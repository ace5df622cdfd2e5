"""What is one line of the log, as JSON and for people? Pure.

The same record goes to the files (always JSON), to standard error (`logs.format`) and, read back, to `orchestrator logs`.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final, Literal

import msgspec

from workers.said import Level

Part = Literal["supervisor", "router", "gateway", "worker"]
Style = Literal["terminal", "journal", "json"]

SUPERVISOR: Final = "supervisor"
"""The instance that the supervisor's own lines are about, where they are about no other."""

_PRIORITIES: Final[dict[Level, int]] = {"error": 3, "warning": 4, "info": 6, "debug": 7}
"""Of syslog; journald reads them from the beginning of a line (sd-daemon(3))."""
_ESCAPE_SEQUENCE: Final = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?")


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line. These keys are a contract (docs/operations.md); those that do not apply are left out."""

    time: datetime
    """UTC, when the supervisor got to know of it."""
    level: Level
    part: Part
    """Who said it."""
    instance: str
    """Whom it is about: short-0, router, gateway-0, supervisor."""
    incarnation: int | None = None
    pid: int | None = None
    event: str
    """state | output | note | request | batch_failed | dropped | … ."""
    message: str
    request_id: str | None = None
    requests: list[str] = []
    batch: str | None = None
    method: str | None = None
    route: str | None = None
    status: int | None = None
    error: str | None = None
    took_ms: float | None = None
    peer: str | None = None
    before: str | None = None
    after: str | None = None
    """States, where event is `state`."""
    why: str | None = None
    dropped: int | None = None
    """Lines that are missing, where event is `dropped`."""


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """One line of a file, its end included. A lone surrogate, as in the name of a file, is spelled out."""
    try:
        return _encoder.encode(record) + b"\n"
    except UnicodeEncodeError:
        plain = {
            key: value.encode("utf-8", "backslashreplace").decode()
            for key, value in msgspec.structs.asdict(record).items()
            if isinstance(value, str)
        }
        return _encoder.encode(msgspec.structs.replace(record, **plain)) + b"\n"


def decode(line: bytes) -> Record | None:
    """None for what is no record: the torn last line of a machine that lost its power."""
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def printable(text: str, *, newlines: bool = False) -> str:
    """Text that does nothing to a terminal: colours go, other control characters are spelled out (`\\x07`).

    Of a progress bar the last state stays. With `newlines` lines may follow one another.
    """
    if text.isprintable():
        return text
    text = _ESCAPE_SEQUENCE.sub("", text)
    if newlines:
        return "\n".join(printable(line) for line in text.split("\n"))
    text = text.rstrip("\r\n").rpartition("\r")[2]
    return "".join(
        one if one.isprintable() else "    " if one == "\t" else one.encode("unicode_escape").decode() for one in text
    )


def on_screen(record: Record, style: Style) -> str:
    """As standard error shows it, its end included."""
    if style == "json":
        return encode(record).decode()
    who = "" if record.part == "supervisor" else f"[{record.instance}] "
    if style == "journal":  # which adds the time itself
        priority = f"<{_PRIORITIES[record.level]}>"
        return "".join(f"{priority}{who}{line}\n" for line in record.message.split("\n"))
    message = record.message.replace("\n", "\n    ")
    return f"{record.time.astimezone():%H:%M:%S} {who}{_weight(record)}{message}\n"


def for_people(record: Record, width: int = 0) -> str:
    """As `orchestrator logs` shows it, in local time; `width` aligns the names."""
    incarnation = "" if record.incarnation is None else f"#{record.incarnation}"
    name = f"{record.instance}{incarnation}"
    time = f"{record.time.astimezone():%Y-%m-%d %H:%M:%S}.{record.time.microsecond // 1000:03}"
    message = record.message.replace("\n", "\n    ")
    return f"{time} {name:<{width}} {_weight(record)}{message}\n"


def _weight(record: Record) -> str:
    return "" if record.level == "info" else f"{record.level}: "
