"""Which words fit in place of the mask? `fill-mask` as transformers.pipeline gives it. Pure.

A text with several masks is computed once for each: the graph gives one row of the vocabulary per sequence, for the mask that is marked
(see models/build/heads.py).
"""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec
import numpy as np
from tokenizers import Tokenizer

from orchestrator.client.link import Answered
from orchestrator.client.texts import TextEncoder, Tokens, pack
from orchestrator.gateway.apis.call import Call, Served, decode, dumps
from orchestrator.gateway.apis.options import Truncation, at_least_one, cut, within_batch
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import numbers
from orchestrator.gateway.tasks.numbers import Floats

NAMES = ("fill-mask",)

TOP_K = 5

MOST_FLOATS = 1 << 24
"""Of all masks of a request: 64 MiB, 550 masks of BERT and 67 of XLM-RoBERTa."""


class Parameters(Truncation, forbid_unknown_fields=True):
    top_k: int = TOP_K
    targets: str | list[str] | None = None


class FillMaskRequest(msgspec.Struct):
    inputs: str | list[str]
    parameters: Parameters | None = None


class Fill(TypedDict):
    """A word for a mask: its probability, its id, itself, and the text with it."""

    score: float
    token: int
    token_str: str
    sequence: str


_predict = msgspec.json.Decoder(FillMaskRequest)


def predict(body: bytes, served: Served) -> Call:
    """POST /predict and POST / of a model that fills masks."""
    request = decode(_predict, body)
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    work = filling(texts, "inputs", request.parameters or Parameters(), served)

    def render(answer: Answered, _: Tokens) -> bytes:
        found = work.found(answer)
        return dumps(found[0] if len(found) == 1 else found)

    return Call(None, None, None, render, work.encode, sum(map(len, texts)))


def filling(texts: list[str], field: str, parameters: Parameters, served: Served) -> Filling:
    """Refusal where they cannot be filled so. `field` is what the texts are called in the request."""
    at_least_one(parameters.top_k, "parameters.top_k")
    within_batch(len(texts), field, served)
    if cut(parameters, served) == "left":
        raise Refusal("unprocessable", "parameters.truncation_direction: this task cuts a text on its right only")
    return Filling(texts, field, parameters, served)


class Filling:
    """One request: its texts with a mark on each mask, then the words that fit."""

    def __init__(self, texts: list[str], field: str, parameters: Parameters, served: Served) -> None:
        self._mask, self._asked = mask_of(served)
        self._pad = None if served.model.head is None else served.model.head.pad_id
        self._texts = texts
        self._field = field
        self._parameters = parameters
        self._served = served
        self._masked: list[tuple[list[int], list[int]]] = []
        """Per text its ids, and where its masks are."""
        self._targets: list[int] | None = None
        self._tokenizer: Tokenizer

    def encode(self, encoder: TextEncoder) -> Tokens:
        self._tokenizer = tokenizer = encoder.tokenizer
        marked: list[list[int]] = []
        cuts = cut(self._parameters, self._served) is not None
        for position, encoding in enumerate(encoder.encode_with_offsets(self._texts, cut=cuts)):
            ids: list[int] = encoding.ids
            places = [place for place, one in enumerate(ids) if one == self._mask]
            if not places:
                raise Refusal(
                    "unprocessable",
                    f"{self._field}[{position}]: has no mask, write {tokenizer.id_to_token(self._mask)}",
                )
            self._masked.append((ids, places))
            marked += [[*ids[:place], self._asked, *ids[place + 1 :]] for place in places]
        within_masks(len(marked), self._field, self._served)
        if self._parameters.targets is not None:
            self._targets = target_ids(self._parameters.targets, tokenizer)
        return pack(marked)

    def found(self, answer: Answered) -> list[Any]:
        """Per text the words for its mask, or a list of them for each of its masks."""
        probabilities = iter(numbers.softmax(numbers.rows(answer)))
        answers: list[Any] = []
        for ids, places in self._masked:
            single = len(places) == 1
            filled = [self._fill(ids, place, next(probabilities), single=single) for place in places]
            answers.append(filled[0] if single else filled)
        return answers

    def _fill(self, ids: list[int], place: int, probabilities: Floats, *, single: bool) -> list[Fill]:
        """The best tokens for one mask. Other masks stay visible in `sequence`."""
        targets = None if self._targets is None else np.array(self._targets)
        considered = probabilities if targets is None else probabilities[targets]
        found: list[Fill] = []
        for best in best_of(considered, self._parameters.top_k):
            token = best if targets is None else int(targets[best])
            filled = [one for one in (*ids[:place], token, *ids[place + 1 :]) if one != self._pad]
            found.append(
                {
                    "score": float(considered[best]),
                    "token": token,
                    "token_str": self._tokenizer.decode([token], skip_special_tokens=False),
                    "sequence": self._tokenizer.decode(filled, skip_special_tokens=single),
                }
            )
        return found


def mask_of(served: Served) -> tuple[int, int]:
    """The id of the mask, and the id that is put in its place where its row is wanted."""
    head = served.model.head
    if head is None or head.mask_id is None or head.asked_id is None:
        raise Refusal("internal", "the artefact does not say which token is the mask")
    return head.mask_id, head.asked_id


def within_masks(count: int, field: str, served: Served) -> None:
    """Refusal where there are more masks than one request may have."""
    within_batch(count, field, served, "masks")
    most = max(1, MOST_FLOATS // max(1, served.model.dimensions))
    if count > most:
        raise Refusal(
            "batch_too_large",
            f"{field}: {count} masks, with this vocabulary the limit is {most}; send several requests",
        )


def best_of(scores: Floats, most: int) -> list[int]:
    """Indices of the largest, the largest first; a vocabulary is not sorted for five of its words."""
    everything = most >= len(scores)
    candidates = np.arange(len(scores)) if everything else np.sort(np.argpartition(-scores, most - 1)[:most])
    order: list[int] = candidates[np.argsort(-scores[candidates], kind="stable")].tolist()
    return order


def target_ids(targets: str | list[str], tokenizer: Tokenizer) -> list[int]:
    """The tokens asked for; of a text that is no token the first of its tokens, as in transformers. Each once."""
    ids: dict[int, None] = {}
    for target in [targets] if isinstance(targets, str) else targets:
        found = tokenizer.token_to_id(target)
        if found is None:
            pieces: list[int] = tokenizer.encode(target, add_special_tokens=False).ids
            if not pieces:
                continue
            found = pieces[0]
        ids[found] = None
    if not ids:
        raise Refusal("unprocessable", "parameters.targets: none of them is a token of this model")
    return sorted(ids)
