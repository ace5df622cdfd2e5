"""Can the result be written where it was asked for? Found out before anything is measured; written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


class OutputError(Exception):
    """A file that cannot be written: says which, why and what to do."""


def check(files: Mapping[str, Path], *, force: bool) -> None:
    """OutputError for the first that could not be written. `files`: option → file."""
    seen: dict[Path, str] = {}
    for option, path in files.items():
        where = f"{option} {path}"
        same = seen.setdefault(path.absolute(), option)
        if same != option:
            raise OutputError(f"{where}: {same} names the same file; give each its own")
        try:
            _check(where, path, force)
        except OSError as error:
            raise OutputError(
                f"{where}: cannot be written: {error.strerror}; name a file in a folder that exists and is yours"
            ) from None


def _check(where: str, path: Path, force: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{where}: is a directory; name a file in it")
    if path.exists() and not path.is_file():
        return  # a device or a pipe, such as /dev/stdout
    if path.exists() and not force:
        raise OutputError(f"{where}: it exists; say --force to replace it, or name another")
    descriptor, trial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    Path(trial).unlink()


def write(files: Sequence[tuple[str, Path, str]]) -> list[str]:
    """Writes all it can: (option, file, text). What could not be written is returned in words."""
    problems = []
    for option, path, text in files:
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            if path.exists() and not path.is_file():
                path.write_text(text, encoding="utf-8")
                continue
            try:
                fresh.write_text(text, encoding="utf-8")
                fresh.replace(path)
            finally:
                fresh.unlink(missing_ok=True)
        except OSError as error:
            problems.append(f"{option} {path}: not written: {error.strerror or error}")
    return problems
