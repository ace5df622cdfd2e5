"""How do token ids that a client has padded to one length become sequences of their own lengths, and rows per token a tensor again? Pure.

Padding is taken away before the router sees a request: it chooses the instance by how long a sequence really is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.client.texts import Side, Tokens
from orchestrator.gateway.apis.call import Served
from orchestrator.gateway.apis.options import within_batch
from orchestrator.gateway.apis.tensors import Floats, Integers, Tensor, integers
from orchestrator.gateway.errors import Refusal

Kept = npt.NDArray[np.bool_]

MOST_FLOATS: Final = 1 << 24
"""Of a tensor with a row per token, padding included: 64 MiB."""


class Padded(NamedTuple):
    """`ids` [n, length] as they came; `kept` says which of them the model reads."""

    ids: Integers
    kept: Kept
    lengths: list[int]
    """Of the sequences, without padding."""
    splits: list[int] | None
    """Where the second text of each sequence begins, counted without padding; 0 = it has none."""

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.lengths, self.ids[self.kept].astype("<i4").tobytes(), self.splits)


def padded(inputs: Mapping[str, Tensor], cut: Side | None, served: Served) -> Padded:
    """Of `input_ids`, `attention_mask` and `token_type_ids`, [n, length] each.

    Refusal: 413 for too many sequences, or one that is too long while `cut` is None; 422 for what the model cannot read.
    """
    ids = _matrix(inputs["input_ids"], served)
    kept = _mask(inputs, ids, served)
    lengths: list[int] = kept.sum(axis=1).tolist()
    if not all(lengths):
        raise _unacceptable(f"sequence {lengths.index(0)} has no token", "input_ids")
    limit, longest = served.model.max_seqlen, max(lengths)
    if longest > limit:
        if cut is None:
            raise Refusal(
                "too_long",
                f"inputs.input_ids: sequence {lengths.index(longest)} has {longest} tokens, the limit is {limit}; "
                'shorten it or send the parameter "truncate": true',
            )
        rank = kept.cumsum(axis=1)
        kept &= rank <= limit if cut == "right" else rank > rank[:, -1:] - limit
        lengths = [min(length, limit) for length in lengths]
    if _largest(ids[kept]) >= served.vocabulary:
        raise _unacceptable(f"token ids of this model are 0 to {served.vocabulary - 1}", "input_ids")
    return Padded(ids, kept, lengths, _splits(inputs, ids, kept, served))


def _largest(numbers: Integers) -> int:
    """A negative one counts as larger than every other: one look tells both ends."""
    return int(numbers.view(np.uint64).max())


def _matrix(tensor: Tensor, served: Served) -> Integers:
    if len(tensor.shape) != 2:
        raise _unacceptable(f"the shape {list(tensor.shape)!s:.80}, expected [sequences, tokens]", tensor.name)
    within_batch(tensor.shape[0], f"inputs.{tensor.name}", served, "sequences")
    tensor.encoded("np")
    return integers(tensor)


def _like(inputs: Mapping[str, Tensor], name: str, ids: Integers, served: Served) -> Integers | None:
    """An input of zeros and ones in the shape of the ids."""
    tensor = inputs.get(name)
    if tensor is None:
        return None
    found = _matrix(tensor, served)
    if found.shape != ids.shape:
        raise _unacceptable(f"the shape {list(found.shape)}, input_ids has {list(ids.shape)}", name)
    if found.size and _largest(found) > 1:
        raise _unacceptable("holds other numbers than 0 and 1", name)
    return found


def _mask(inputs: Mapping[str, Tensor], ids: Integers, served: Served) -> Kept:
    mask = _like(inputs, "attention_mask", ids, served)
    if mask is None:
        return np.ones(ids.shape, np.bool_)
    kept: Kept = mask.astype(np.bool_)
    # What is left when padding is gone must be one stretch: the model counts positions without gaps.
    torn = (kept[:, 1:] > kept[:, :-1]).sum(axis=1) + kept[:, :1].sum(axis=1) > 1
    if torn.any():
        raise _unacceptable(f"sequence {int(torn.argmax())} has zeros between ones", "attention_mask")
    return kept


def _splits(inputs: Mapping[str, Tensor], ids: Integers, kept: Kept, served: Served) -> list[int] | None:
    types = _like(inputs, "token_type_ids", ids, served)
    if types is None:
        return None
    second: Kept = kept & (types == 1)
    if not second.any():
        return None
    first = kept & ~second
    lengths, firsts = kept.sum(axis=1), first.sum(axis=1)
    torn = (second & (kept.cumsum(axis=1) <= firsts[:, None])).any(axis=1)
    if torn.any():
        raise _unacceptable(
            f"sequence {int(torn.argmax())} has a 1 before a 0; the first text has type 0, the second, if any, type 1",
            "token_type_ids",
        )
    alone = firsts == 0
    if alone.any():
        raise _unacceptable(f"sequence {int(alone.argmax())} has no token of type 0 that is kept", "token_type_ids")
    splits: list[int] = np.where(firsts == lengths, 0, firsts).tolist()
    return splits


def spread(rows: Sequence[Floats], kept: Kept) -> Floats:
    """[n, length, width] of a matrix [tokens, width] per sequence; zero where nothing is kept."""
    flat = np.concatenate(rows)
    tensor = np.zeros((*kept.shape, flat.shape[1]), np.float32)
    tensor[kept] = flat
    return tensor


def mask_of(lengths: Sequence[int]) -> Kept:
    """[n, longest], as a tokenizer that pads on the right gives it."""
    mask: Kept = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return mask


def within_floats(count: int, length: int, width: int, field: str) -> None:
    """Refusal (413) where a row per token and the padding would be too much."""
    if count * length * width > MOST_FLOATS:
        raise Refusal(
            "batch_too_large",
            f"{field}: {count} sequences padded to {length} tokens of {width} numbers, the limit is {MOST_FLOATS} numbers; "
            "send several requests",
        )


def _unacceptable(why: str, name: str) -> Refusal:
    return Refusal("unprocessable", f"inputs.{name}: {why}")
