"""Which file holds which lines, and what becomes of the old ones? Pure.

NAME.log is being written; NAME.log.1 is the one before it, and so on up to NAME.log.KEEP.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_FILE: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,63})\.log(?:\.([1-9][0-9]{0,3}))?")


def file_name(instance: str, age: int = 0) -> str:
    """Age 0 is the one being written."""
    return f"{instance}.log" if age == 0 else f"{instance}.log.{age}"


def parse(name: str) -> tuple[str, int] | None:
    """(instance, age) of a file's name; None for a file that is none of ours."""
    found = _FILE.fullmatch(name)
    return (found[1], int(found[2] or 0)) if found else None


def renames(instance: str, keep: int) -> list[tuple[str, str | None]]:
    """What to do, in this order, so that NAME.log is free: (from, to), or (from, None) to remove it.

    The oldest goes first: whoever is interrupted between two steps has lost none but that one.
    """
    if keep == 0:
        return [(file_name(instance), None)]
    return [(file_name(instance, age), file_name(instance, age + 1)) for age in range(keep - 1, -1, -1)]


def surplus(instance: str, keep: int, names: Iterable[str]) -> list[str]:
    """Files that are older than what is kept: a layout that keeps fewer came in."""
    found = [(each, parse(each)) for each in names]
    return sorted(name for name, parsed in found if parsed is not None and parsed[0] == instance and parsed[1] > keep)


def instances(names: Iterable[str]) -> list[str]:
    """Of which instances there are lines, in the order of their names."""
    return sorted({parsed[0] for name in names if (parsed := parse(name)) is not None})


def ages(instance: str, names: Iterable[str]) -> list[int]:
    """The ages of an instance's files, oldest first."""
    found = [parsed for name in names if (parsed := parse(name)) is not None]
    return sorted((age for name, age in found if name == instance), reverse=True)


def pieces(lines: list[bytes], size: int, most: int) -> list[tuple[bool, bytes]]:
    """What to append to a file of `size` bytes, in turn; True: to a new file.

    No file gets longer than `most` bytes, unless a single line is.
    """
    parts: list[tuple[bool, bytes]] = []
    rotate, total = False, size
    gathered: list[bytes] = []
    for line in lines:
        if total and total + len(line) > most:
            if gathered or rotate:
                parts.append((rotate, b"".join(gathered)))
            rotate, gathered, total = True, [], 0
        gathered.append(line)
        total += len(line)
    if gathered:
        parts.append((rotate, b"".join(gathered)))
    return parts
