"""Which known word did the user mean? Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is spelt alike, or that is a part of this one (`cores_per_instance` → `cores`); None if none is."""
    folded = {_fold(each): each for each in known}
    near = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    if near:
        return folded[near[0]]
    parts = _fold(word).split("-")
    return next((folded[part] for part in parts if part in folded), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "cores"?`, or nothing where no known word is near."""
    near = nearest(word, known)
    return f'did you mean "{near}"?' if near is not None else ""


def _fold(word: str) -> str:
    return word.casefold().replace("_", "-")
