"""Which known word did the user mean? Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "cores"?`, or the known words where none is near."""
    words = list(known)
    folded = {each.casefold().replace("_", "-"): each for each in words}
    near = difflib.get_close_matches(word.casefold().replace("_", "-"), folded, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{folded[near[0]]}"?'
    return "known are " + ", ".join(words)
