"""Which lines of a child's output are kept, and how fast may they come? Pure.

Theory of operation. Bytes go in as the pipe gives them, lines come out. Each child has an allowance of lines (one per KiB of a long
line); what is over it is counted and dropped, and one line tells how much. Dropping is nearly free: lines are counted in the chunk, not cut
out of it. The last lines are kept whatever was dropped, since a failure quotes them. `pause` says how long to leave the pipe alone: a
child that writes faster than any log can be worth waits in its own write, and the supervisor has its time for others.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from orchestrator.logs.record import printable
from workers.said import MARK, Said

Seconds = float

LINES_PER_SECOND: Final = 5000.0
MOST_AT_ONCE: Final = 10_000.0
"""Lines: what a start, a traceback of every thread or a busy second may bring."""
BYTES_PER_SECOND: Final = 16 << 20
"""What is read of one child's pipe at most: about a hundredth of a core goes into dropping it."""
BYTES_AT_ONCE: Final = 1 << 20
LONGEST_LINE: Final = 32 << 10
"""Bytes; what is longer is cut into several."""
TAIL_LINES: Final = 20
TAIL_LINE: Final = 400
"""Characters of a line in the tail."""

_decoder: Final = msgspec.json.Decoder(Said)


class Allowance:
    """So much per second, and so much at once (a token bucket)."""

    def __init__(self, per_second: float, at_once: float) -> None:
        self._rate = per_second
        self._most = at_once
        self._left = at_once
        self._at: Seconds = 0.0

    def left(self, now: Seconds) -> float:
        """What may be spent now; negative where more was spent than there was."""
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._left

    def spend(self, amount: float) -> None:
        self._left -= amount


class Intake:
    """One child's output. Times are monotonic seconds."""

    def __init__(
        self,
        lines_per_second: float = LINES_PER_SECOND,
        lines_at_once: float = MOST_AT_ONCE,
        bytes_per_second: float = BYTES_PER_SECOND,
    ) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        """The last lines, kept or not."""
        self.dropped = 0
        """Lines since the last `take_dropped`."""
        self._lines = Allowance(lines_per_second, lines_at_once)
        self._bytes = Allowance(bytes_per_second, BYTES_AT_ONCE)
        self._bytes_per_second = bytes_per_second
        self._rest = b""

    def feed(self, data: bytes, now: Seconds) -> list[bytes]:
        """The lines that are whole now and within the allowance, without their ends; empty ones are left out."""
        self._bytes.left(now)
        self._bytes.spend(len(data))
        chunk = self._rest + data
        end = chunk.rfind(b"\n") + 1
        if len(chunk) - end > LONGEST_LINE:
            end = len(chunk)
        self._rest = chunk[end:]
        return self._cut(chunk[:end], now)

    def finish(self, now: Seconds) -> list[bytes]:
        """The last line, which nothing ended."""
        rest, self._rest = self._rest, b""
        return self._cut(rest, now)

    def pause(self, now: Seconds) -> Seconds:
        """How long not to read: 0 unless the child writes faster than it may."""
        return max(0.0, -self._bytes.left(now) / self._bytes_per_second)

    def take_dropped(self) -> int:
        count, self.dropped = self.dropped, 0
        return count

    def _cut(self, chunk: bytes, now: Seconds) -> list[bytes]:
        kept: list[bytes] = []
        left = self._lines.left(now)
        at = 0
        while at < len(chunk) and left >= 1.0:
            end = chunk.find(b"\n", at)
            if end < 0:
                end = len(chunk)
            line = chunk[at : min(end, at + LONGEST_LINE)]
            at = end + 1 if end - at <= LONGEST_LINE else at + LONGEST_LINE
            if line.strip():
                cost = 1.0 + len(line) // 1024
                self._lines.spend(cost)
                left -= cost
                kept.append(line)
        for line in kept[-TAIL_LINES:]:
            self._remember(line)
        if at < len(chunk):
            over = chunk[at:]
            self.dropped += over.count(b"\n") + (not over.endswith(b"\n"))
            for line in over[-TAIL_LINES * TAIL_LINE :].rstrip(b"\n").split(b"\n")[-TAIL_LINES:]:
                self._remember(line)
        return kept

    def _remember(self, line: bytes) -> None:
        if line.strip():
            self.tail.append(text_of(line)[:TAIL_LINE])


def said(line: bytes) -> Said | None:
    """What a marked line says; None for one that is just text."""
    if not line.startswith(MARK):
        return None
    try:
        return _decoder.decode(line[1:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def text_of(line: bytes) -> str:
    """What the child said, in one line that does nothing to a terminal."""
    marked = said(line)
    text = marked.message if marked is not None else line.decode("utf-8", "replace")
    return printable(text.strip().replace("\n", " | "))
