"""How do lines get into files that cannot fill the disk, and what if the disk takes none?

Theory of operation. One folder belongs to one orchestrator (a lock says so), one file in it to each instance. What cannot be written is
counted and let go: serving never waits for a log. The first failure is told; later attempts come after 5 s, then ever more slowly up to
a minute; the first success says how many lines are missing. A write that got only half through is cut off again, so that
every line in a file is whole. Files that somebody else moved or removed are noticed within a second and begun anew.
Used by one thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.logs.record import SUPERVISOR, Record, encode
from orchestrator.logs.rotation import file_name, pieces, renames, surplus
from workers.said import Level

FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 60.0
LOOK_SECONDS = 1.0
"""How often a file is looked for where it should be."""
ROOM_BYTES = 64 << 10
"""A disk that was full is not tried again before it has so much room: a few bytes would only end the silence for a moment."""
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class FolderTaken(OSError):
    """Another orchestrator writes there."""


class Files:
    """`compose` makes a record of what is to be said of the files themselves, `show` brings it to standard error."""

    def __init__(
        self,
        folder: Path,
        *,
        most_bytes: int,
        keep: int,
        clock: Callable[[], float],
        compose: Callable[[str, Level, int], Record],
        show: Callable[[Record], None],
    ) -> None:
        self.trouble: str | None = None
        """What keeps lines from being written just now."""
        self.folder = folder
        self._most = most_bytes
        self._keep = keep
        self._clock = clock
        self._compose = compose
        self._show = show
        self._open: dict[str, _File] = {}
        self._lock = -1
        self._lost = 0
        self._full = False
        self._retry_at = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._troubled_at = float("-inf")

    def write(self, records: Sequence[Record]) -> None:
        """Appends each to the file of its instance. What fails is in `trouble`, never raised."""
        now = self._clock()
        if self.trouble is not None and not self._may_retry(now):
            self._lost += len(records)
            return
        written = 0
        path = self.folder
        try:
            if self._lock < 0:
                self._claim()
            for instance, lines in _grouped(records).items():
                path = self.folder / file_name(instance)
                self._file(instance, now).append(lines)
                written += len(lines)
            if self.trouble is not None:
                path = self.folder / file_name(SUPERVISOR)
                self._recover(now)
        except OSError as error:
            self._fail(error, path, len(records) - written, now)

    def seconds_to_retry(self) -> float | None:
        """How long until `write` should be called again although there is nothing to write."""
        return None if self.trouble is None else max(0.05, self._retry_at - self._clock())

    def lose(self, count: int) -> None:
        """So many lines never came here."""
        self._lost += count
        if self.trouble is None:
            message = f"{count} lines are missing from the files in {self.folder}: the disk was too slow for them"
            self._show(self._compose(message, "warning", count))
            self._lost = 0

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _claim(self) -> None:
        self.folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        fd = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise FolderTaken(
                0, f"the orchestrator with pid {owner} writes its logs there; name another folder with --log-dir"
            ) from None
        except OSError:
            os.close(fd)
            raise
        self._lock = fd
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def _file(self, instance: str, now: float) -> _File:
        file = self._open.get(instance)
        if file is None:
            file = self._open[instance] = _File(self.folder, instance, self._most, self._keep)
        file.look(now)
        return file

    def _may_retry(self, now: float) -> bool:
        if now < self._retry_at:
            return False
        if self._full and not _has_room(self.folder):
            self._retry_at = now + self._retry_seconds
            return False
        return True

    def _fail(self, error: OSError, path: Path, lost: int, now: float) -> None:
        self._lost += lost
        for file in self._open.values():  # descriptors may be what is short, and the folder may be another by now
            file.close()
        self._open.clear()
        self._full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        again = now - self._troubled_at < 2 * LAST_RETRY_SECONDS
        self._retry_seconds = min(LAST_RETRY_SECONDS, 2 * self._retry_seconds) if again else FIRST_RETRY_SECONDS
        self._troubled_at = now
        self._retry_at = now + self._retry_seconds
        why = f"{path}: {error.strerror or error}"
        first = self.trouble is None
        self.trouble = f"logs are not written to files: {why}"
        if first:
            message = f"cannot write logs: {why}; serving goes on, lines go to standard error only until it works again"
            self._show(self._compose(message, "error", 0))

    def _recover(self, now: float) -> None:
        message = f"logs are written again; {self._lost} lines are missing from the files in {self.folder}"
        notice = self._compose(message, "warning", self._lost)
        self._file(SUPERVISOR, now).append([encode(notice)])
        self.trouble = None
        self._lost = 0
        self._troubled_at = now
        self._show(notice)


def _grouped(records: Sequence[Record]) -> dict[str, list[bytes]]:
    lines: dict[str, list[bytes]] = {}
    for record in records:
        lines.setdefault(record.instance, []).append(encode(record))
    return lines


def _has_room(folder: Path) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return True  # the next attempt says what is wrong
    return found.f_bavail * found.f_frsize >= ROOM_BYTES


class _File:
    """NAME.log and the files it was before."""

    def __init__(self, folder: Path, instance: str, most: int, keep: int) -> None:
        self._folder = folder
        self._instance = instance
        self._path = folder / file_name(instance)
        self._most = most
        self._keep = keep
        self._fd = -1
        self._inode = (0, 0)
        self._size = 0
        self._looked_at = float("-inf")
        for name in surplus(instance, keep, (path.name for path in folder.iterdir())):
            (folder / name).unlink(missing_ok=True)

    def look(self, now: float) -> None:
        """Whether the file is still where it belongs; opens it anew where it is not."""
        if self._fd >= 0 and now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        if self._fd >= 0:
            try:
                found = self._path.lstat()
            except FileNotFoundError:
                self.close()
            else:
                if (found.st_dev, found.st_ino) != self._inode:
                    self.close()
                else:
                    self._size = found.st_size  # somebody may have emptied it
        if self._fd < 0:
            self._begin()

    def append(self, lines: list[bytes]) -> None:
        for rotate, data in pieces(lines, self._size, self._most):
            if rotate:
                self.close()
                for before, after in renames(self._instance, self._keep):
                    self._move(before, after)
                self._begin()
            if data:
                self._write(data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self) -> None:
        self._fd = os.open(self._path, _FLAGS, 0o640)
        found = os.fstat(self._fd)
        self._inode, self._size = (found.st_dev, found.st_ino), found.st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._write(b"\n")  # the power went away in the middle of a line

    def _move(self, before: str, after: str | None) -> None:
        try:
            if after is None:
                (self._folder / before).unlink()
            else:
                (self._folder / before).replace(self._folder / after)
        except FileNotFoundError:
            return

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            if len(left) < len(data):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)
