"""How do lines get to standard error, whoever reads it there?"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Mapping

from orchestrator.logs.background import Background
from orchestrator.logs.record import Record, Style, on_screen

MOST_WAITING = 10_000


def goes_to_journal(fd: int, environment: Mapping[str, str]) -> bool:
    """Whether this descriptor is systemd's journal, which stamps lines itself. Source: systemd.exec(5), JOURNAL_STREAM."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


class Screen:
    """Standard error, as text or JSON. A reader that stops costs lines, never the supervisor's time."""

    def __init__(self, fd: int, style: Style) -> None:
        self.style = style
        self._fd = fd
        self._gone = False
        self._thread: Background[Record] = Background("log-screen", self._perform, most=MOST_WAITING)

    def show(self, record: Record) -> None:
        if not self._gone:
            self._thread.put(record)

    def close(self, seconds: float) -> None:
        self._thread.close(seconds)

    def _perform(self, records: list[Record], dropped: int) -> None:
        text = "".join([on_screen(record, self.style) for record in records])
        if dropped and records:
            last = records[-1]
            message = f"{dropped} lines were not shown here: standard error was not read"
            text += on_screen(
                Record(
                    time=last.time, level="warning", part="supervisor", instance="supervisor",
                    event="dropped", message=message, dropped=dropped,
                ),
                self.style,
            )  # fmt: skip
        left = memoryview(text.encode("utf-8", "backslashreplace"))
        while left and not self._gone:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # somebody has made our standard error non-blocking
                select.select([], [self._fd], [], 1.0)
            except OSError as error:
                # The reader or the terminal is gone for good; a full disk under a redirected file may have room later.
                self._gone = error.errno in (errno.EPIPE, errno.EIO, errno.EBADF)
                return
