"""Where do artefacts lie, and how do two processes that want the same one not get into each other's way?

One folder per artefact, named by its content. A folder is made under another name, flushed, and renamed when it is whole: whoever
sees it sees all of it. The maker holds a lock (flock on a file beside it), which the kernel lets go of when the maker dies; what a dead
maker left behind is removed by the next.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orchestrator.models import manifest as manifests
from orchestrator.models.digest import DigestIndex, SourceFile
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import Manifest

log = logging.getLogger(__name__)

INDEX = "digests.json"
LOCK_SECONDS = 1800.0
"""How long one process waits for another that is making the same artefact: longer than the largest model takes."""
_POLL_SECONDS = 0.05
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Cache:
    """A folder of artefacts. Reading needs no right to write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = DigestIndex(root / INDEX)
        self._told: set[str] = set()

    def find(self, name: str) -> Manifest | None:
        """The manifest of a whole and unharmed artefact; None, with a line in the log if there is a harmed one."""
        folder = self.root / name
        if not folder.exists():
            return None
        found = self._read(folder)
        if isinstance(found, Manifest):
            return found
        if name not in self._told:  # it is looked at once more under the lock
            self._told.add(name)
            log.warning("artefact=%s corrupt: %s; making it anew", folder, found)
        return None

    def _read(self, folder: Path) -> Manifest | str:
        """The manifest, or what is wrong with the artefact."""
        try:
            manifest = manifests.decode(manifests.path_of(folder).read_bytes())
        except OSError as error:
            return f"{manifests.MANIFEST}: {error.strerror}"
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return f"{manifests.MANIFEST}: {error}"
        if manifest.format != manifests.FORMAT:
            return f"it has format {manifest.format}, wanted is {manifests.FORMAT}"
        problems = (self._harm(folder, file) for file in manifest.files)
        return next((problem for problem in problems if problem), manifest)

    def _harm(self, folder: Path, file: SourceFile) -> str | None:
        path = folder / file.name
        try:
            size = path.stat().st_size
            if size != file.size:
                return f"{file.name} has {size} bytes, the manifest says {file.size}"
            _, sha256 = self.index.digest(path)
        except OSError as error:
            return f"{file.name}: {error.strerror}"
        if sha256 != file.sha256:
            return f"{file.name} has the sha256 {sha256[:12]}…, the manifest says {file.sha256[:12]}…"
        return None

    def prepare(self) -> None:
        """Makes the folder; ModelError if it cannot be made or written."""
        with self._explained():
            self.root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Only one process at a time makes `name`. ModelError after LOCK_SECONDS."""
        with self._explained():
            descriptor = os.open(self.root / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._acquire(descriptor, name)
            with self._explained():
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(descriptor)  # lets go of the lock

    def _acquire(self, descriptor: int, name: str) -> None:
        deadline = time.monotonic() + LOCK_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            if not told:
                log.info("artefact=%s is being made by process %s; waiting", name, holder)
                told = True
            if time.monotonic() > deadline:
                raise ModelError(
                    "cannot make the artefact",
                    where=str(self.root / name),
                    why=f"process {holder} has been making it for more than {LOCK_SECONDS:.0f} s",
                    remedy=f"look at process {holder} and end it if it hangs",
                    unworkable=False,
                )
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """A folder to fill, which becomes the artefact at the end and vanishes if an error ends it. To be used under `locked`.

        Errors of the file system inside become ModelErrors that say what to do.
        """
        fresh = self.root / f".{name}.making"
        with self._explained():
            if fresh.exists():
                log.warning("artefact=%s: removing what an earlier process left unfinished", name)
                shutil.rmtree(fresh)
            fresh.mkdir()
            try:
                yield fresh
                for path in (*fresh.iterdir(), fresh):
                    _flush(path)
                self._replace(fresh, self.root / name)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise

    def _replace(self, fresh: Path, final: Path) -> None:
        if final.exists():  # harmed: a rename cannot put a folder over one that is not empty
            harmed = self.root / f".{final.name}.harmed"
            shutil.rmtree(harmed, ignore_errors=True)
            final.rename(harmed)
            fresh.rename(final)
            shutil.rmtree(harmed)
        else:
            fresh.rename(final)
        _flush(self.root)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = str(error.filename or self.root)
            if error.errno in _FULL:
                raise ModelError(
                    "cannot write the artefact",
                    where=where,
                    why=f"{error.strerror} ({_free_megabytes(self.root)} MB are free)",
                    remedy=f"free some space, remove artefacts you no longer need from {self.root}, or choose another cache directory",
                    unworkable=False,
                ) from None
            raise ModelError(
                "cannot write to the cache of artefacts",
                where=where,
                why=str(error.strerror or error),
                remedy="make the directory writable for this user, or choose another cache directory",
            ) from None


def _free_megabytes(path: Path) -> int:
    """Of the file system that the folder is on, or would be on."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free >> 20


def _flush(path: Path) -> None:
    """To the disk: a rename must not become visible before what it renames."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
