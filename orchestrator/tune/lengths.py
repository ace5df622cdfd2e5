"""Which lengths come: a mix by name, a file of classes, or requests that were recorded? Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from orchestrator.simulate.mixes import LengthClass, Mix, MixError, class_of, decode_mix

MOST_RANGES: Final = 48
"""That recorded lengths are summed up in: a search looks at each many times."""
_LONGEST: Final = 1 << 20


class _Line(msgspec.Struct, frozen=True):
    """Of a trace; what else the line says (a time) is not needed here."""

    length: Annotated[int, Meta(ge=1, le=_LONGEST)]


def decode_lengths(raw: bytes, name: str) -> Mix:
    """A mix in the form of `simulate --mix`, or lengths that were recorded: a number of tokens a line, or a trace of
    `{"time": SECONDS, "length": TOKENS}`. MixError names the line that is neither."""
    lines = [(number, line.strip()) for number, line in enumerate(raw.splitlines(), 1) if line.strip()]
    if not lines:
        raise MixError(f"{name}: nothing in it; expected a number of tokens on each line, or a mix in JSON")
    first = lines[0][1]
    if first.startswith(b"{") and b'"length"' not in first:
        return decode_mix(raw, name)
    line_of, number_of = msgspec.json.Decoder(_Line), msgspec.json.Decoder(Annotated[int, Meta(ge=1, le=_LONGEST)])
    found: list[int] = []
    for number, line in lines:
        try:
            found.append(line_of.decode(line).length if line.startswith(b"{") else number_of.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MixError(
                f'{name}:{number}: {error}; expected a number of tokens, or {{"time": SECONDS, "length": TOKENS}}'
            ) from None
    return of_recorded(found)


def of_recorded(lengths: Sequence[int]) -> Mix:
    """Classes that these lengths could have been drawn from: at most `MOST_RANGES` ranges with equally many in each, none of them across
    two of the classes that figures are told by."""
    by_kind: dict[str, list[int]] = {}
    for length in sorted(lengths):
        by_kind.setdefault(class_of(length), []).append(length)
    classes: list[LengthClass] = []
    for kind, of_kind in by_kind.items():
        ranges = max(1, MOST_RANGES * len(of_kind) // len(lengths))
        distinct = Counter(of_kind)
        if len(distinct) <= ranges:
            classes += [LengthClass(kind, length, length, count) for length, count in distinct.items()]
            continue
        edges = [len(of_kind) * at // ranges for at in range(ranges + 1)]
        classes += [
            LengthClass(kind, of_kind[low], of_kind[high - 1], high - low)
            for low, high in itertools.pairwise(edges)
            if low < high
        ]
    return Mix(classes)


def cut(mix: Mix, limit: int) -> Mix:
    """The same with what is longer than the model takes cut to its limit."""
    return Mix(
        [msgspec.structs.replace(each, low=min(each.low, limit), high=min(each.high, limit)) for each in mix.classes]
    )


def shares(mix: Mix) -> list[tuple[int, float]]:
    """Lengths that stand for the mix over the whole of the run, ascending, each with its share; the shares add up to 1."""
    found: Counter[int] = Counter()
    for progress in (0.0, 0.5, 1.0):
        for length, share in mix.shares(progress):
            found[length] += share / 3  # type: ignore[assignment] # a Counter of shares
    return sorted(found.items())


def kinds(mix: Mix) -> dict[str, int]:
    """The longest sequence of each class."""
    longest: dict[str, int] = {}
    for each in mix.classes:
        longest[each.name] = max(longest.get(each.name, 0), each.high)
    return longest
