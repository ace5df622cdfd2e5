"""What has the reader chosen to see, and what does a key change in it? Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Key = Literal["up", "down", "page-up", "page-down", "home", "end", "escape", "interrupt"] | str

KEYS = (
    ("q", "quit"),
    ("s S", "sort by the next, by the previous column"),
    ("r", "the other way round"),
    ("↑ ↓ k j", "one row up, down"),
    ("PgUp PgDn b space", "a page up, down"),
    ("Home End g G", "the first, the last row"),
    ("? h", "this help; any key leaves it"),
)

_SEQUENCES: dict[bytes, Key] = {
    b"[A": "up", b"[B": "down", b"OA": "up", b"OB": "down", b"[5~": "page-up", b"[6~": "page-down", b"[H": "home",
    b"[F": "end", b"OH": "home", b"OF": "end", b"[1~": "home", b"[4~": "end", b"[7~": "home", b"[8~": "end",
}  # fmt: skip
_SAME: dict[str, Key] = {
    "k": "up", "j": "down", "b": "page-up", " ": "page-down", "g": "home", "G": "end", "h": "?", "Q": "q", "\x03": "interrupt",
}  # fmt: skip
LONGEST_SEQUENCE = 16


@dataclass(frozen=True, slots=True)
class View:
    sort: str = ""
    """Title of a column; empty: the order of the plan."""
    reverse: bool = False
    offset: int = 0
    """The first row that is shown."""
    help: bool = False


def pressed(view: View, key: Key, *, sorts: tuple[str, ...], rows: int, page: int) -> View:
    """:param sorts: by what rows can be sorted, the empty one for the order of the plan first
    :param rows: how many there are
    :param page: how many of them are shown
    """
    if view.help:
        return replace(view, help=False)
    last = max(0, rows - page)
    match key:
        case "s" | "S":
            at = sorts.index(view.sort) if view.sort in sorts else 0
            return replace(view, sort=sorts[(at + (1 if key == "s" else -1)) % len(sorts)], offset=0)
        case "r":
            return replace(view, reverse=not view.reverse, offset=0)
        case "?":
            return replace(view, help=True)
        case "up" | "down" | "page-up" | "page-down" | "home" | "end":
            here = min(view.offset, last)
            step = max(1, page)
            to = {
                "up": here - 1,
                "down": here + 1,
                "page-up": here - step,
                "page-down": here + step,
                "home": 0,
                "end": last,
            }
            return replace(view, offset=min(max(0, to[key]), last))
    return view


def keys_in(data: bytes) -> tuple[list[Key], bytes]:
    """The keys that a terminal has sent, and the beginning of one whose rest has not come yet. What is no key is left out."""
    keys: list[Key] = []
    while data:
        if data[:1] != b"\x1b":
            letter = chr(data[0])
            keys.append(_SAME.get(letter, letter))
            data = data[1:]
            continue
        if data == b"\x1b" or data[1:2] == b"\x1b":
            keys.append("escape")
            data = data[1:]
            continue
        if data[1:2] not in (b"[", b"O"):  # Alt and a letter
            data = data[2:]
            continue
        end = next((at for at in range(2, len(data)) if 0x40 <= data[at] <= 0x7E), None)
        if end is None:
            return keys, data if len(data) < LONGEST_SEQUENCE else b""
        key = _SEQUENCES.get(data[1 : end + 1])
        if key is not None:
            keys.append(key)
        data = data[end + 1 :]
    return keys, b""
