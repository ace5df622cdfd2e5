"""Which variant serves texts of these lengths on this CPU, and why? Pure.

The fastest one whose answers are close enough to fp32's, by the times that were measured on this CPU at the lengths in question.
Differences under TIE are ties, and a tie goes to the more exact one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.models.variants import MIN_COSINE, Study, Variant

TIE = 1.08
"""Repeated measurements of the same thing differ by as much."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for; `auto` leaves it to the measurement."""

    precision: str = "auto"
    engine: str = "auto"
    min_cosine: float = MIN_COSINE

    def admits(self, variant: Variant) -> bool:
        return self.precision in ("auto", variant.precision) and self.engine in ("auto", variant.engine)


@dataclass(frozen=True, slots=True)
class Choice:
    variant: Variant
    reason: str
    warnings: tuple[str, ...] = ()


class NoVariantError(Exception):
    """Nothing of what was asked for can be had: says what was, and why not."""


def choose(study: Study, wish: Wish, low: int, high: int) -> Choice:
    """For texts of `low` to `high` tokens. NoVariantError if none can be used."""
    usable, close = _usable(study, wish)
    if not close:
        best = _quickest(usable, low, high)
        return Choice(best, "asked for by name", (f"{best.name} was asked for, but {_shortfall(best, wish)}",))
    best = _quickest(close, low, high)
    return Choice(best, _reason(best, study, close, wish, low, high))


def candidates(study: Study, wish: Wish) -> list[Variant]:
    """All that `choose` may choose, at whatever lengths. NoVariantError if there is none."""
    usable, close = _usable(study, wish)
    return close or usable


def _usable(study: Study, wish: Wish) -> tuple[list[Variant], list[Variant]]:
    """What can be computed with, and what of it is close enough to fp32: with a precision that was asked for by name perhaps nothing."""
    admitted = [variant for variant in study.variants if wish.admits(variant)]
    usable = [variant for variant in admitted if variant.problem is None]
    if not usable:
        said = "; ".join(f"{variant.name}: {variant.problem}" for variant in admitted)
        raise NoVariantError(said or f"there is no {wish.precision} on {wish.engine} here")
    close = [variant for variant in usable if _shortfall(variant, wish) is None]
    if not close and wish.precision == "auto":
        said = "; ".join(f"{variant.name}: {_shortfall(variant, wish)}" for variant in usable)
        raise NoVariantError(f"no variant is good enough: {said}")
    return usable, close


def why_not(study: Study, chosen: Sequence[Variant], wish: Wish) -> dict[str, str]:
    """By name: why a variant serves no length."""
    names = {variant.name for variant in chosen}
    reasons = {}
    for variant in study.variants:
        if variant.name in names:
            continue
        if not wish.admits(variant):
            reasons[variant.name] = "not asked for"
        else:
            reasons[variant.name] = variant.problem or _shortfall(variant, wish) or "slower"
    return reasons


def _shortfall(variant: Variant, wish: Wish) -> str | None:
    return None if variant.accuracy is None else variant.accuracy.shortfall(wish.min_cosine)


def _quickest(variants: Sequence[Variant], low: int, high: int) -> Variant:
    """The most exact of those that tie with the fastest."""
    fastest = min(_milliseconds(variant, low, high) for variant in variants)
    tied = [variant for variant in variants if _milliseconds(variant, low, high) <= fastest * TIE]
    return max(tied, key=lambda variant: (_exactness(variant), -_milliseconds(variant, low, high)))


def _exactness(variant: Variant) -> float:
    return 1.0 if variant.accuracy is None else round(variant.accuracy.mean_cosine, 4)


def _milliseconds(variant: Variant, low: int, high: int) -> float:
    """Geometric mean over the measured lengths within the range. Where there are none, the time in its middle, as if the time grew by a
    power of the length between the two measured next to it; outside of all of them that of the nearest."""
    timed = sorted((timing for timing in variant.timings if timing.milliseconds > 0), key=lambda timing: timing.tokens)
    if not timed:
        return math.inf
    within = [timing for timing in timed if low <= timing.tokens <= high]
    if within:
        return math.exp(sum(math.log(timing.milliseconds) for timing in within) / len(within))
    below = [timing for timing in timed if timing.tokens < low]
    above = [timing for timing in timed if timing.tokens > high]
    if not below or not above:
        return (below[-1] if below else above[0]).milliseconds
    before, behind = below[-1], above[0]
    share = math.log(math.sqrt(low * high) / before.tokens) / math.log(behind.tokens / before.tokens)
    return before.milliseconds * math.pow(behind.milliseconds / before.milliseconds, share)


def _reason(best: Variant, study: Study, close: Sequence[Variant], wish: Wish, low: int, high: int) -> str:
    said = []
    exact = study.variants[0]
    gain = _milliseconds(exact, low, high) / _milliseconds(best, low, high)
    if best.name != exact.name and math.isfinite(gain):
        said.append(f"{gain:.1f} × as fast as fp32 on onnxruntime at {low} to {high} tokens")
    elif len(close) > 1:
        said.append(f"fastest or within {TIE - 1:.0%} of it at {low} to {high} tokens, and exact")
    else:
        said.append(
            "the only one that was asked for" if not wish.admits(exact) or wish.precision != "auto" else "exact"
        )
    if best.accuracy is not None:
        said.append(f"mean cosine {best.accuracy.mean_cosine:.4f} to it")
        if best.accuracy.changes_with_batch:
            said.append(f"{best.accuracy.mean_cosine_in_batches:.4f} in ragged batches")
    return ", ".join(said)
