"""Which options do the bodies of several tasks share, and what do they mean? Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from orchestrator.client.texts import Side
from orchestrator.gateway.apis.call import Served, cut_of
from orchestrator.gateway.errors import Refusal

Direction = Literal["right", "left", "Right", "Left"]

_STRATEGIES = {"longest_first": True, "only_first": True, "only_second": False, "do_not_truncate": False}


class Truncation(msgspec.Struct, kw_only=True):
    """What a request may say about texts that are too long."""

    truncate: bool | None = None
    truncation: bool | str | None = None
    """`transformers` says this one; its strategies other than `do_not_truncate` all cut a single text the same way."""
    truncation_direction: Direction = "right"


def cut(asked: Truncation, served: Served) -> Side | None:
    """Where a text that is too long is cut; None = it is refused."""
    return cut_of(_truncate(asked), side(asked.truncation_direction), served)


def side(direction: str) -> Side:
    return "left" if direction in ("left", "Left") else "right"


def _truncate(asked: Truncation) -> bool | None:
    if asked.truncate is not None:
        return asked.truncate
    strategy = asked.truncation
    if not isinstance(strategy, str):
        return strategy
    if strategy not in _STRATEGIES:
        known = ", ".join(_STRATEGIES)
        raise Refusal(
            "unprocessable", f"parameters.truncation: {strategy[:80]!r} is unknown, known are true, false, {known}"
        )
    return _STRATEGIES[strategy]


def within_batch(count: int, field: str, served: Served, what: str = "inputs") -> None:
    """Refusal where a request has no sequence at all (422) or more than the limit (413)."""
    if count == 0:
        raise Refusal("unprocessable", f"{field}: is empty; send at least one text")
    if count > served.limits.batch:
        raise Refusal(
            "batch_too_large",
            f"{field}: {count} {what}, the limit is {served.limits.batch}; send several requests",
        )


def at_least_one(value: int | None, field: str) -> None:
    if value is not None and value < 1:
        raise Refusal("unprocessable", f"{field}: {value}, expected at least 1")
