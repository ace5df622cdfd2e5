"""How long are the sequences that come? Classes of lengths with weights, which may drift over the run. Pure."""

from __future__ import annotations

from random import Random
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from orchestrator.plan.buckets import MEDIUM_TOKENS, SHORT_TOKENS


class MixError(Exception):
    """A mix that cannot be used: says which, why, and what there is."""


class LengthClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, max_length=40)]
    low: Annotated[int, Meta(ge=1, le=1 << 20)]
    """Tokens; every length from `low` to `high` is equally likely."""
    high: Annotated[int, Meta(ge=1, le=1 << 20)]
    weight: Annotated[float, Meta(ge=0.0)]
    end_weight: Annotated[float, Meta(ge=0.0)] | None = None
    """The weight at the end of the run, reached in a straight line; omitted: it stays."""

    def weight_at(self, progress: float) -> float:
        end = self.weight if self.end_weight is None else self.end_weight
        return self.weight + (end - self.weight) * progress


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    classes: Annotated[list[LengthClass], Meta(min_length=1)]

    @property
    def longest(self) -> int:
        return max(each.high for each in self.classes)

    def draw(self, rng: Random, progress: float) -> tuple[str, int]:
        """Class and length of one sequence, `progress` from 0 at the start to 1 at the end of the run."""
        weights = [each.weight_at(progress) for each in self.classes]
        chosen = rng.choices(self.classes, weights)[0]
        return chosen.name, rng.randint(chosen.low, chosen.high)

    def shares(self, progress: float) -> list[tuple[int, float]]:
        """Lengths that stand for the mix, each with its share: five per class, evenly spread."""
        total = sum(each.weight_at(progress) for each in self.classes)
        return [
            (each.low + (each.high - each.low) * step // 4, each.weight_at(progress) / total / 5)
            for each in self.classes
            for step in range(5)
        ]


# Tokens of the embedded model: a word of `bench.texts` is one token, and there are two special ones.
_SHORT: Final = (10, 28)
_MEDIUM: Final = (62, 112)
_LONG: Final = (382, 482)

MIXES: Final[dict[str, Mix]] = {
    "mixed": Mix(
        [LengthClass("short", *_SHORT, 70), LengthClass("medium", *_MEDIUM, 25), LengthClass("long", *_LONG, 5)]
    ),
    "short": Mix([LengthClass("short", *_SHORT, 1)]),
    "long": Mix([LengthClass("long", *_LONG, 1)]),
    "uniform": Mix(
        [
            LengthClass("short", 1, SHORT_TOKENS, SHORT_TOKENS),
            LengthClass("medium", SHORT_TOKENS + 1, MEDIUM_TOKENS, MEDIUM_TOKENS - SHORT_TOKENS),
            LengthClass("long", MEDIUM_TOKENS + 1, 512, 512 - MEDIUM_TOKENS),
        ]
    ),
    # From almost nothing but short text, as a plan would assume of a search box, to mostly documents.
    "drift": Mix(
        [
            LengthClass("short", *_SHORT, 90, 20),
            LengthClass("medium", *_MEDIUM, 9, 50),
            LengthClass("long", *_LONG, 1, 30),
        ]
    ),
}


def class_of(length: int) -> str:
    """The class of a sequence that was recorded with its length alone: the buckets of the published example."""
    return "short" if length <= SHORT_TOKENS else "medium" if length <= MEDIUM_TOKENS else "long"


def decode_mix(raw: bytes, name: str) -> Mix:
    """MixError with the place if this is no mix."""
    try:
        mix = msgspec.json.decode(raw, type=Mix)
    except msgspec.DecodeError as error:
        raise MixError(
            f'{name}: not a mix: {error}; for example {{"classes": [{{"name": "short", "low": 8, "high": 32, "weight": 1}}]}}'
        ) from None
    for index, each in enumerate(mix.classes):
        if each.low > each.high:
            raise MixError(f"{name}: classes[{index}]: from {each.low} to {each.high} tokens is no range; swap the two")
    for progress, when in ((0.0, "start"), (1.0, "end")):
        if sum(each.weight_at(progress) for each in mix.classes) <= 0.0:
            raise MixError(f"{name}: all weights are 0 at the {when} of the run; give one class a weight")
    if len({each.name for each in mix.classes}) < len(mix.classes):
        raise MixError(f"{name}: two classes have the same name; give each its own")
    return mix
