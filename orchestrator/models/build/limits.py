"""What may a configuration say? The checks that all architectures share. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NoReturn

import msgspec

from orchestrator.models.build.encoder import ACTIVATIONS, Activation
from orchestrator.models.errors import ModelError, NotBuilt

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
"""A dimension or a number of things."""


EXPORT = "let torch export it: pip install 'orchestrator[torch]'"


def refuse(where: str, field: str, value: str, supported: Iterable[str]) -> NoReturn:
    raise NotBuilt(
        "this model cannot be built",
        where=where,
        why=f"{field} is {value}, supported: {', '.join(supported)}",
        remedy=f"name a model within these, or {EXPORT}",
    )


def activation(where: str, field: str, value: str) -> Activation:
    if value not in ACTIVATIONS:
        refuse(where, field, repr(value), ACTIVATIONS)
    return ACTIVATIONS[value]


def heads_fit(where: str, width: int, heads: int) -> None:
    if width % heads:
        contradiction(where, f"a width of {width} cannot be divided among {heads} attention heads")


def places_left(where: str, rows: int, first: int) -> int:
    """The longest sequence where the first token takes row `first` of a position table of `rows`."""
    if rows <= first:
        contradiction(where, f"max_position_embeddings is {rows}, and the first token takes position {first}")
    return rows - first


def contradiction(where: str, why: str) -> NoReturn:
    raise ModelError(
        "the configuration contradicts itself",
        where=where,
        why=why,
        remedy="mend the file, or download the model again",
    )
