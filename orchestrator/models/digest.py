"""Which bytes is a file made of, without reading 90 MB again at every start?

An index remembers, per file, what stat said when it was hashed: device, inode, size, modification and change time. All equal:
the bytes are taken to be the same, as git does with its index. A file that was changed within RACY_SECONDS before it was hashed is
not remembered: it could change again within the same tick of the file system's clock (the "racily clean" rule of git).
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from orchestrator.models.errors import ModelError

log = logging.getLogger(__name__)

RACY_SECONDS = 2.0
"""The coarsest clock of a file system in use (FAT)."""
_CHUNK = 1 << 20


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    stamp: Stamp
    sha256: str


class SourceFile(msgspec.Struct, frozen=True):
    """One file by its name relative to the model's directory."""

    name: str
    size: int
    sha256: str


class DigestIndex:
    """sha256 of files, remembered in one small JSON file. A lost or broken index costs time and nothing else."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch, as the file system's stamps do."""
        self._path = path
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._changed = False
        try:
            self._entries = msgspec.json.decode(path.read_bytes(), type=dict[str, Entry])
        except FileNotFoundError:
            pass
        except (msgspec.DecodeError, OSError) as error:
            log.warning("digest index %s is unreadable and made anew: %s", path, error)

    def digest(self, path: Path) -> tuple[int, str]:
        """(size in bytes, sha256 in hex) of a file. OSError as open and stat raise it."""
        key = str(path.resolve())
        known = self._entries.get(key)
        if known is not None and known.stamp == Stamp.of(path.stat()):
            return known.stamp.size, known.sha256
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            hashed = hashlib.sha256()
            while chunk := file.read(_CHUNK):
                hashed.update(chunk)
            after = os.fstat(file.fileno())
        sha256 = hashed.hexdigest()
        stamp = Stamp.of(after)
        youngest = max(after.st_mtime, after.st_ctime)
        if stamp == Stamp.of(before) and self._clock() - youngest > RACY_SECONDS:
            self._entries[key] = Entry(stamp, sha256)
            self._changed = True
        return after.st_size, sha256

    def save(self) -> None:
        """Writes the index if it has news, without entries of files that are gone. A cache that cannot be written is no reason to fail."""
        if not self._changed:
            return
        kept = {key: entry for key, entry in sorted(self._entries.items()) if os.path.exists(key)}  # noqa: PTH110 - a plain key
        fresh = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            fresh.write_bytes(msgspec.json.encode(kept))
            fresh.replace(self._path)
        except OSError as error:
            log.info(
                "digest index %s cannot be written, files are hashed again at the next start: %s", self._path, error
            )
            with suppress(OSError):  # where nothing can be written nothing was left to remove
                fresh.unlink(missing_ok=True)
            return
        self._changed = False


def digest_files(root: Path, files: Sequence[Path], index: DigestIndex) -> list[SourceFile]:
    """Size and sha256 of each file; ModelError for one that cannot be read."""
    listed = []
    for path in files:
        try:
            size, sha256 = index.digest(path)
        except OSError as error:
            raise ModelError(
                "cannot read a file of the model",
                where=str(path),
                why=str(error.strerror),
                remedy="make the file readable, or download the model again",
            ) from None
        listed.append(SourceFile(path.relative_to(root).as_posix(), size, sha256))
    return listed


def combined(files: Sequence[SourceFile]) -> str:
    """One sha256 over names and contents, whatever the order."""
    ordered = sorted(files, key=lambda file: file.name)
    return hashlib.sha256(msgspec.json.encode([[file.name, file.sha256] for file in ordered])).hexdigest()
