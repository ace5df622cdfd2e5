"""What do all inference protocols have in common? A body becomes a Call, and a Call's answer a body. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import orjson

from orchestrator.client.link import Answered
from orchestrator.client.texts import Side, TextEncoder, Tokens
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.spec import Limits
from orchestrator.status import ModelStatus

T = TypeVar("T")

Inputs = str | list[str | int | list[int]]
"""A text, texts, a sequence of token ids, or several."""


class Content(msgspec.Struct, frozen=True, gc=False):
    """A body that is not JSON alone."""

    data: bytes
    content_type: str
    headers: bytes
    """Finished header lines, each with its CRLF."""


Body = bytes | Content
Render = Callable[[Answered, Tokens], Body]


class Served(msgspec.Struct, frozen=True):
    """What every call is checked against."""

    model: ModelStatus
    limits: Limits
    vocabulary: int
    """Ids are 0 to this, exclusive."""


class Call(msgspec.Struct, gc=False):
    """One of `texts`, `sequences`, `encode`, `decode` and `tokens` is set."""

    texts: list[str] | None
    sequences: list[list[int]] | None
    cut: Side | None
    render: Render
    encode: Callable[[TextEncoder], Tokens] | None = None
    """What a task makes of its texts, where they are not simply tokenized one by one."""
    characters: int = 0
    """How long the texts for `encode` are in all."""
    costly: bool = False
    """Whether making the answer of the rows may take milliseconds: then it is not done on the event loop."""
    decode: Callable[[], Tokens] | None = None
    """What makes pixels of images; takes milliseconds. Refusal where one cannot be read."""
    tokens: Tokens | None = None
    """Sequences that came as the router wants them."""
    timeout_seconds: float | None = None
    """From arrival, where the body names one; the shorter of this and the one in the headers counts."""
    priority: int | None = None
    """Index into `wire.PRIORITIES`, where the body names one: it goes before the one in the headers."""


Parse = Callable[[bytes, Served], Call]


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the route's type. Refusal (400) says at which field it is not."""
    try:
        if not body.isascii():
            body.decode()  # the decoder does not look into fields that it skips
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal("malformed", f"body: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal("malformed", f"body is not JSON: {error}" if body else "body is empty, expected JSON") from None
    except RecursionError:
        raise Refusal("malformed", "body is not acceptable: nested too deeply") from None


def call(inputs: Inputs, field: str, cut: Side | None, render: Render, served: Served) -> Call:
    """The inputs checked: of one kind (400), at least one (422), within the batch limit (413), ids of the vocabulary (422)."""
    if isinstance(inputs, str):
        return Call([inputs], None, cut, render)
    if not inputs:
        raise Refusal("unprocessable", f"{field}: is empty; send at least one text")
    first = type(inputs[0])
    for position, one in enumerate(inputs):
        if type(one) is not first:
            raise Refusal("malformed", f"{field}[{position}]: texts and token ids are mixed; send one kind")
    if first is int:
        return Call(None, [_ids(inputs, field, cut, served)], cut, render)
    if len(inputs) > served.limits.batch:
        raise Refusal(
            "batch_too_large",
            f"{field}: {len(inputs)} inputs, the limit is {served.limits.batch}; send several requests",
        )
    if first is str:
        return Call(inputs, None, cut, render)  # type: ignore[arg-type]  # all are str, checked above
    sequences = [_ids(one, f"{field}[{position}]", cut, served) for position, one in enumerate(inputs)]
    return Call(None, sequences, cut, render)


def cut_of(asked: bool | None, side: Side, served: Served) -> Side | None:
    """Where a text that is too long is cut; None = it is refused."""
    return side if (served.limits.truncate or served.model.truncate if asked is None else asked) else None


def _ids(sequence: Any, field: str, cut: Side | None, served: Served) -> list[int]:
    ids: list[int] = sequence
    if not ids:
        raise Refusal("unprocessable", f"{field}: has no token ids")
    if min(ids) < 0 or max(ids) >= served.vocabulary:
        raise Refusal("unprocessable", f"{field}: token ids of this model are 0 to {served.vocabulary - 1}")
    limit = served.model.max_seqlen
    if len(ids) <= limit:
        return ids
    if cut is None:
        raise Refusal(
            "too_long", f'{field}: {len(ids)} tokens, the limit is {limit}; shorten it or send "truncate": true'
        )
    return ids[:limit] if cut == "right" else ids[-limit:]


def dumps(value: Any) -> bytes:
    """JSON; numpy arrays of float32 are written with the shortest digits that read back the same."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
