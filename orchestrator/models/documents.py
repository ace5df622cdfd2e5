"""How is a small JSON file of a model directory read? An error names the file, the field and the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from orchestrator.models.errors import ModelError

T = TypeVar("T")

LARGEST_DOCUMENT = 64 << 20
"""Bytes. The largest tokenizer.json in use (multilingual vocabularies) is about 20 MB."""


def read_bytes(path: Path, what: str) -> bytes:
    """The bytes of a file; ModelError if it is absent, unreadable or larger than LARGEST_DOCUMENT."""
    try:
        size = path.stat().st_size
        if size > LARGEST_DOCUMENT:
            raise ModelError(
                f"cannot read {what}",
                where=str(path),
                why=f"{size} bytes, at most {LARGEST_DOCUMENT} are expected of such a file",
                remedy="check that this is the file it should be",
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"cannot read {what}",
            where=str(path),
            why="there is no such file",
            remedy="download the model again, or name the directory that holds it",
        ) from None
    except OSError as error:
        raise ModelError(
            f"cannot read {what}", where=str(path), why=str(error.strerror), remedy="make the file readable"
        ) from None


def parse(data: bytes, kind: type[T], path: Path, what: str) -> T:
    """JSON as `kind`, fields that `kind` does not name left out; ModelError with the field that does not fit."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            f"cannot understand {what}",
            where=str(path),
            why=str(error),
            remedy="mend the file, or download the model again",
        ) from None


def read(path: Path, kind: type[T], what: str) -> T:
    return parse(read_bytes(path, what), kind, path, what)


def convert(document: dict[str, Any], kind: type[T], where: str, what: str) -> T:
    """A parsed document as `kind`; ModelError with the field that does not fit."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ModelError(
            f"cannot understand {what}",
            where=where,
            why=str(error),
            remedy="mend the file, or download the model again",
        ) from None
