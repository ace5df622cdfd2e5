"""What do the log files say, backwards from their end, forwards, and as they grow?

Theory of operation. Files are known by their inode, since names move: whoever reads NAME.log while it becomes NAME.log.1 goes on
reading the same file, then the next newer one, until it is at NAME.log again. The writer closes a file before it renames it, so a file
that has another name by now gets no more lines. Works whether anybody writes or not.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Final

from orchestrator.logs.record import Record, decode, printable
from orchestrator.logs.rotation import ages, file_name, instances

_BLOCK: Final = 64 << 10
_EPOCH: Final = datetime.fromtimestamp(0, UTC)

Inode = tuple[int, int]


def known(folder: Path) -> list[str]:
    """The instances that have log files there. OSError if the folder cannot be read."""
    return instances(path.name for path in folder.iterdir())


class Reader:
    """The lines of one instance. First `back` or `forward`, once; then `more` gives what has been added since."""

    def __init__(self, folder: Path, instance: str) -> None:
        self._folder = folder
        self._instance = instance
        self._file: BufferedReader | None = None
        self._inode: Inode = (0, 0)
        self._partial = b""
        self._latest = _EPOCH

    def back(self, count: int) -> list[Record]:
        """The last `count` lines."""
        found: list[bytes] = []
        for inode, age in self._files():  # newest first
            file = self._find(inode, age)
            if file is None:
                continue
            end = _end_of_lines(file)
            if self._file is None:
                self._file, self._inode = file, inode
            if len(found) < count:
                found = _last_lines(file, end, count - len(found)) + found
            file.seek(end)
            if file is not self._file:
                file.close()
            if len(found) >= count:
                break
        return self._records(found)

    def forward(self) -> Iterator[Record]:
        """Every line, the oldest first."""
        for inode, age in reversed(self._files()):
            file = self._find(inode, age)
            if file is None:
                continue
            self.close()
            self._file, self._inode = file, inode
            while True:
                line = file.readline()
                if not line.endswith(b"\n"):
                    self._partial = line
                    break
                yield from self._records([line])

    def more(self) -> list[Record]:
        """What has been added; an empty list if nothing was."""
        lines: list[bytes] = []
        while True:
            lines += self._read()
            newer = self._newer()
            if newer is None:
                return self._records(lines)
            lines += self._read()  # what came between the two looks
            if self._partial:
                lines.append(self._partial)
                self._partial = b""
            self.close()
            self._file, self._inode = newer

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> list[bytes]:
        if self._file is None:
            return []
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # somebody has emptied it
            self._file.seek(0)
            self._partial = b""
        *lines, self._partial = (self._partial + self._file.read()).split(b"\n")
        return lines

    def _newer(self) -> tuple[BufferedReader, Inode] | None:
        """The file after the present one; None if the present one is still being written, or there is none."""
        files = self._files()
        if not files:
            return None
        known = [inode for inode, _ in files]
        at = known.index(self._inode) if self._file is not None and self._inode in known else len(known)
        for inode, age in reversed(files[:at]):
            file = self._find(inode, age)
            if file is not None:
                return file, inode
        return None

    def _files(self) -> list[tuple[Inode, int]]:
        """(inode, age) of what there is, newest first: a rotation meanwhile shows a file twice, and hides none."""
        found: dict[Inode, int] = {}
        for age in reversed(ages(self._instance, (path.name for path in self._folder.iterdir()))):
            for candidate in (age, age + 1):
                try:
                    status = (self._folder / file_name(self._instance, candidate)).stat()
                except FileNotFoundError:
                    continue
                found.setdefault((status.st_dev, status.st_ino), candidate)
                break
        return list(found.items())

    def _find(self, inode: Inode, age: int) -> BufferedReader | None:
        """Opens the file that had this age a moment ago; None if it is gone."""
        for candidate in range(age, age + 8):
            try:
                file = (self._folder / file_name(self._instance, candidate)).open("rb")
            except FileNotFoundError:
                continue
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) == inode:
                return file
            file.close()
        return None

    def _records(self, lines: Sequence[bytes]) -> list[Record]:
        """Lines that are no records are shown as they are, at the time of the one before them."""
        records = []
        for line in lines:
            if not line.strip():
                continue
            record = decode(line)
            if record is None:
                text = printable(line.decode("utf-8", "replace").strip())
                record = Record(
                    time=self._latest, level="warning", part="supervisor", instance=self._instance,
                    event="unreadable", message=f"not a line of this log: {text}",
                )  # fmt: skip
            self._latest = max(self._latest, record.time)
            records.append(record)
        return records


def every_line(folder: Path, instance: str) -> Iterator[Record]:
    """All there are of one instance, the oldest first."""
    with closing(Reader(folder, instance)) as reader:
        yield from reader.forward()


def merge(streams: Iterable[Iterable[Record]]) -> Iterator[Record]:
    """By time. Each stream keeps its own order, even where a clock was set back."""
    return (record for _, _, record in heapq.merge(*(_timed(stream, at) for at, stream in enumerate(streams))))


def _timed(stream: Iterable[Record], at: int) -> Iterator[tuple[datetime, tuple[int, int], Record]]:
    latest = _EPOCH
    for number, record in enumerate(stream):
        latest = max(latest, record.time)
        yield latest, (at, number), record


def _end_of_lines(file: BufferedReader) -> int:
    """Where the last whole line ends; file position is undefined afterwards."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _last_lines(file: BufferedReader, end: int, count: int) -> list[bytes]:
    """At most `count` lines before `end`, which is the end of one."""
    data, start = b"", end
    while start > 0 and data.count(b"\n") <= count:
        before = max(0, start - max(_BLOCK, len(data)))
        file.seek(before)
        data = file.read(start - before) + data
        start = before
    lines = data.split(b"\n")[:-1]
    return lines[-count:] if count else []
