"""Where do the files come from: the live machine, a directory, an archive, and how are they kept for a capture?

Absent is an answer (None): a kernel leaves out what it does not know. Present and unreadable is an error that names the file.
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from topology.model import TopologyError

# What sysfs answers for an attribute that exists and has nothing to say (a CPU going offline, a driver without the datum).
_KERNEL_SAYS_NOTHING = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENODATA}
)
_PAGE = 4096
_CHUNK = 1 << 16
_LARGEST_FILE = 64 << 20
"""Bytes; /proc/cpuinfo of 8,192 CPUs has about 12 million."""
GZIP = b"\x1f\x8b"
"""How a capture begins."""


class Tree(Protocol):
    """Files below one root. Paths are relative, with `/` between the parts."""

    @property
    def origin(self) -> str:
        """The root as the user knows it, for messages."""
        ...

    def read(self, path: str) -> str | None:
        """The text of a file, None if there is none. TopologyError if it exists and cannot be read."""
        ...

    def names(self, path: str) -> tuple[str, ...]:
        """The names in a directory, sorted; empty if there is none."""
        ...


class DiskTree:
    """The files below a directory, `/` for the live machine."""

    def __init__(self, root: Path) -> None:
        self._root = str(root).rstrip("/") + "/"

    @property
    def origin(self) -> str:
        return self._root

    def read(self, path: str) -> str | None:
        # os.open and os.read: a third of the time of Path.read_text, and there are thousands of files.
        try:
            descriptor = os.open(self._root + path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self._unless_absent(path, error)
            return None
        try:
            # A small buffer first: nearly every attribute is a few bytes, and a large buffer costs more than the read.
            content = os.read(descriptor, _PAGE)
            if len(content) >= _PAGE:  # sysfs attributes end below a page; longer ones may come in pieces
                pieces = [content]
                while (piece := os.read(descriptor, _CHUNK)) and len(pieces) * _CHUNK <= _LARGEST_FILE:
                    pieces.append(piece)
                content = b"".join(pieces)
        except OSError as error:
            self._unless_absent(path, error)
            return None
        finally:
            os.close(descriptor)
        return content.decode("utf-8", "backslashreplace")

    def names(self, path: str) -> tuple[str, ...]:
        try:
            return tuple(sorted(os.listdir(self._root + path)))  # noqa: PTH208 (Path.iterdir costs four times as much)
        except OSError as error:
            self._unless_absent(path, error)
            return ()

    def _unless_absent(self, path: str, error: OSError) -> None:
        if error.errno not in _KERNEL_SAYS_NOTHING:
            raise TopologyError(
                f"{self._root}{path}: cannot be read: {error.strerror}; "
                "give this user the right to read it, or capture the tree again"
            ) from error


class MemoryTree:
    """Files held in memory: a capture that was not unpacked, a recording, a test."""

    def __init__(self, files: dict[str, str], origin: str, directories: Iterable[str] = ()) -> None:
        self._files = files
        self._origin = origin
        self._children: dict[str, set[str]] = {}
        for path in (*files, *directories):
            parts = path.split("/")
            for depth in range(len(parts)):
                self._children.setdefault("/".join(parts[:depth]), set()).add(parts[depth])

    @property
    def origin(self) -> str:
        return self._origin

    def read(self, path: str) -> str | None:
        return self._files.get(path)

    def names(self, path: str) -> tuple[str, ...]:
        return tuple(sorted(self._children.get(path.strip("/"), ())))


class RecordingTree:
    """Another tree, remembering what was read of it and which empty directories said something by being there."""

    def __init__(self, inner: Tree) -> None:
        self._inner = inner
        self.files: dict[str, str] = {}
        self.listed: dict[str, tuple[str, ...]] = {}

    @property
    def origin(self) -> str:
        return self._inner.origin

    def read(self, path: str) -> str | None:
        if path not in self.files:
            content = self._inner.read(path)
            if content is None:
                return None
            self.files[path] = content
        return self.files[path]

    def names(self, path: str) -> tuple[str, ...]:
        if path not in self.listed:
            self.listed[path] = self._inner.names(path)
        return self.listed[path]


def read_file(path: Path) -> bytes:
    """All of a file or of a pipe (`--sysroot <(ssh host lscpu -p)`), read once. TopologyError if it cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise TopologyError(f"{path}: cannot be read: {error.strerror}; name the root directory of a tree") from error
    if len(content) > _LARGEST_FILE:
        raise TopologyError(
            f"{path}: more than {_LARGEST_FILE >> 20} MB; name a tree, a capture or a file of lscpu output"
        )
    return content


def open_archive(archive: Path, content: bytes) -> MemoryTree:
    """The files of a `topology --capture` archive (gzip tar), read without unpacking. TopologyError if it is none."""
    files: dict[str, str] = {}
    directories: list[str] = []
    total = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            for member in tar:
                path = member.name.removeprefix("./").strip("/")
                if member.isdir():
                    if path:
                        directories.append(path)
                    continue
                total += member.size
                if total > _LARGEST_FILE:
                    raise TopologyError(f"{archive}: more than {_LARGEST_FILE >> 20} MB unpacked; this is no capture")
                packed = tar.extractfile(member) if member.isfile() else None
                if packed is not None:
                    files[path] = packed.read().decode("utf-8", "backslashreplace")
                else:  # a link such as cpu0/node0: its name says all
                    directories.append(path)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise TopologyError(
            f"{archive}: not a readable archive of `orchestrator topology --capture`: {error}; copy it again"
        ) from error
    return MemoryTree(files, f"{archive}:", directories)
