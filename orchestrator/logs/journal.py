"""Where does everything go that the supervisor and its children say?

Theory of operation. The supervisor's loop makes a record of each line and hands it to two threads: one shows it on standard error, one
appends it to the file of its instance. Neither can make the loop wait. Until `open_files` says where the files lie,
what was said is kept for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from orchestrator.logs.background import Background
from orchestrator.logs.files import Files
from orchestrator.logs.intake import said
from orchestrator.logs.record import SUPERVISOR, Part, Record, Style, printable
from orchestrator.logs.screen import Screen, goes_to_journal
from workers.said import Level

MOST_WAITING: Final = 20_000
MOST_EARLY: Final = 1000
CLOSE_SECONDS: Final = 2.0
STUCK_SECONDS: Final = 5.0
"""A disk that takes so long for some lines does not answer: a network file system whose server is gone, or a dying device."""


class Speaker(msgspec.Struct, frozen=True):
    """One incarnation of a child, as lines name it."""

    name: str
    part: Part
    incarnation: int
    pid: int | None


class Journal:
    """`style` of None: text, as fits where standard error goes. Called with a message, it says a line of the supervisor's own."""

    def __init__(
        self,
        style: Style | None = None,
        *,
        fd: int = 2,
        environment: Mapping[str, str] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._wall = wall
        self._pid = os.getpid()
        self._text: Style = "journal" if goes_to_journal(fd, environment or {}) else "terminal"
        self._screen = Screen(fd, style or self._text)
        self._files: Files | None = None
        self._writer: Background[Record] | None = None
        self._early: list[Record] | None = []

    # ---- what is said

    def __call__(self, message: str, *, level: Level = "info", event: str = "note", **more: Any) -> None:
        """A line of the supervisor about itself. `more` are other fields of `Record`."""
        self._put(self._record(message, level, event, more))

    def about(self, child: Speaker, message: str, *, level: Level = "info", event: str = "note", **more: Any) -> None:
        """A line of the supervisor about a child; it goes into the child's file."""
        more |= {"instance": child.name, "incarnation": child.incarnation, "pid": child.pid}
        self._put(self._record(message, level, event, more))

    def keep(self, message: str, *, level: Level = "info", event: str = "note", **more: Any) -> None:
        """As a call, but people are told it in another way: standard error shows it only as JSON."""
        self._put(self._record(message, level, event, more), shown=self._screen.style == "json")

    def heard(self, child: Speaker, line: bytes) -> None:
        """A line of a child's output, as its pipe gave it."""
        more: dict[str, Any] = {
            "instance": child.name, "part": child.part, "incarnation": child.incarnation, "pid": child.pid,
        }  # fmt: skip
        marked = said(line)
        if marked is None:
            message = line.decode("utf-8", "replace").rstrip()
            if printable(message).strip():
                self._put(self._record(message, "info", "output", more))
            return
        for name in _SAID:
            value = getattr(marked, name)
            if value is not None:
                more[name] = value
        self._put(self._record(marked.message, marked.level, marked.event, more))

    # ---- where it goes

    @property
    def trouble(self) -> str | None:
        """What keeps lines from being written to files just now; for the warnings of the status."""
        if self._files is None or self._writer is None:
            return None
        if not self._writer.alive:
            return (
                f"logs are not written to files in {self._files.folder} any more: their thread ended by a bug of ours"
            )
        if self._writer.stuck_seconds() > STUCK_SECONDS:
            return f"logs are not written to files in {self._files.folder}: the disk does not answer"
        return self._files.trouble

    @property
    def folder(self) -> Path | None:
        return self._files.folder if self._files is not None else None

    @property
    def style(self) -> Style:
        return self._screen.style

    def open_files(self, folder: Path | None, *, most_bytes: int, keep: int) -> None:
        """From now on lines go to files in `folder` as well, first those said so far. None: to no files."""
        self._close_files()
        early, self._early = self._early or [], None
        if folder is None:
            return
        self._files = files = Files(
            folder,
            most_bytes=most_bytes,
            keep=keep,
            clock=time.monotonic,
            compose=self._of_files,
            show=self._screen.show,
        )

        def perform(records: list[Record], dropped: int) -> None:
            if dropped:
                files.lose(dropped)
            files.write(records)

        self._writer = Background("log-files", perform, most=MOST_WAITING, idle_seconds=files.seconds_to_retry)
        for record in early:
            self._writer.put(record)

    def show_as(self, style: Style | None) -> None:
        """How standard error is written from now on; None: text."""
        self._screen.style = style or self._text

    def close(self) -> None:
        """Writes what is still queued, within CLOSE_SECONDS each."""
        self._close_files()
        self._screen.close(CLOSE_SECONDS)

    def _close_files(self) -> None:
        writer, files, self._writer, self._files = self._writer, self._files, None, None
        if writer is not None and files is not None and writer.close(CLOSE_SECONDS):
            files.close()

    def _put(self, record: Record, *, shown: bool = True) -> None:
        if shown:
            self._screen.show(record)
        if self._writer is not None:
            self._writer.put(record)
        elif self._early is not None and len(self._early) < MOST_EARLY:
            self._early.append(record)

    def _record(self, message: str, level: Level, event: str, more: Mapping[str, Any]) -> Record:
        fields: dict[str, Any] = {"part": "supervisor", "instance": SUPERVISOR, "pid": self._pid, **more}
        return Record(
            time=datetime.fromtimestamp(self._wall(), UTC),
            level=level,
            event=event,
            message=printable(message, newlines=True),
            **fields,
        )

    def _of_files(self, message: str, level: Level, dropped: int) -> Record:
        return self._record(message, level, "logs", {"dropped": dropped} if dropped else {})


_SAID: Final = ("request_id", "requests", "batch", "method", "route", "status", "error", "took_ms", "peer", "dropped")
