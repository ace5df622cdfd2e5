"""How does text from anywhere become cells of a terminal? Pure.

Names, reasons and the last output of a process come from outside. A control character in them would steer the terminal of whoever
looks, so none gets through.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Style = Literal["", "good", "busy", "warn", "bad", "faint", "strong", "bar"]

_CODES: dict[Style, str] = {
    "good": "32", "busy": "36", "warn": "33", "bad": "1;31", "faint": "2", "strong": "1", "bar": "7",
}  # fmt: skip
_WITHOUT_COLOUR: dict[Style, str] = {"bad": "1", "faint": "2", "strong": "1", "bar": "7"}
_ASCII = str.maketrans({
    "●": "*", "○": "o", "◌": "o", "◐": "o", "▲": "^", "▼": "v", "✖": "x", "■": "#", "–": "-", "…": "~", "·": "-", "→": ">",
    "▁": "_", "▂": ".", "▃": ":", "▄": "-", "▅": "=", "▆": "+", "▇": "*", "█": "#", "×": "x", "µ": "u",
})  # fmt: skip


_BREAK = re.compile(r"[^\S ]\s*|\s+[^\S ]\s*")
"""White space that is more than blanks."""


@dataclass(frozen=True, slots=True)
class Span:
    """Text in one style."""

    text: str
    style: Style = ""


Line = tuple[Span, ...]


def printable(text: str) -> str:
    """On one line, with `?` in place of what a terminal would take for an order."""
    flat = _BREAK.sub(" ", text)
    return "".join(
        "?" if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else letter for letter in flat
    )


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` cells: filled up with blanks, or cut with an ellipsis."""
    taken = cells(text)
    if taken > width:
        text = cut(text, width)
        taken = cells(text)
    blanks = " " * (width - taken)
    return blanks + text if right else text + blanks


def cut(text: str, width: int) -> str:
    """At most `width` cells, with an ellipsis where something is missing."""
    if cells(text) <= width:
        return text
    kept, taken = "", 1
    for letter in text:
        taken += _width(letter)
        if taken > width:
            break
        kept += letter
    return kept + "…" if width > 0 else ""


def crop(line: Line, width: int) -> Line:
    """The first cells of a line."""
    kept: list[Span] = []
    for span in line:
        if width <= 0:
            break
        kept.append(Span(cut(span.text, width), span.style))
        width -= cells(kept[-1].text)
    return tuple(kept)


def plain(line: Line) -> str:
    """Without style, and without blanks at the end."""
    return "".join(span.text for span in line).rstrip()


def in_ascii(text: str) -> str:
    """For a terminal that has no more."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def painted(line: Line, *, colour: bool) -> str:
    """With the escape sequences of its styles (ECMA-48, SGR)."""
    codes = _CODES if colour else _WITHOUT_COLOUR
    return "".join(
        f"\x1b[{codes[span.style]}m{span.text}\x1b[0m" if span.style in codes else span.text for span in line
    )


def flow(parts: Iterable[Span], width: int, gap: int = 2) -> list[Line]:
    """Parts beside one another, on as many lines as they need."""
    lines: list[list[Span]] = [[]]
    taken = 0
    for part in parts:
        wide = cells(part.text)
        if lines[-1] and taken + gap + wide > width:
            lines.append([])
            taken = 0
        if lines[-1]:
            lines[-1].append(Span(" " * gap))
            taken += gap
        lines[-1].append(part)
        taken += wide
    return [tuple(line) for line in lines if line]


def _width(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
