"""Which label has each token, and which tokens together are one entity? As transformers.pipeline gives it. Pure.

Source: transformers TokenClassificationPipeline: the strategies none, simple, first, average and max, and its rule for which tokens
continue a word.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

import msgspec
import numpy as np
from tokenizers import Encoding, Tokenizer

from orchestrator.client.link import Answered
from orchestrator.client.texts import TextEncoder, Tokens, tokens_of
from orchestrator.gateway.apis.call import Call, Served, decode, dumps
from orchestrator.gateway.apis.options import Truncation, cut, within_batch
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import numbers
from orchestrator.gateway.tasks.numbers import Floats

NAMES = ("token-classification",)

Strategy = Literal["none", "simple", "first", "average", "max"]
Entity = dict[str, Any]


class Parameters(Truncation, forbid_unknown_fields=True):
    aggregation_strategy: Strategy = "none"
    ignore_labels: tuple[str, ...] = ("O",)
    stride: int | None = None
    """A long text in windows with so many tokens in common; only where entities are aggregated."""


class TokenClassificationRequest(msgspec.Struct):
    inputs: str | list[str]
    parameters: Parameters | None = None


class FoundEntity(TypedDict):
    """A token, or with an aggregation strategy the tokens of one entity; `start` and `end` in characters of the text."""

    entity: NotRequired[str]
    entity_group: NotRequired[str]
    score: float
    index: NotRequired[int]
    word: str
    start: int
    end: int


_predict = msgspec.json.Decoder(TokenClassificationRequest)


def predict(body: bytes, served: Served) -> Call:
    """POST /predict and POST / of a model that labels tokens."""
    request = decode(_predict, body)
    single = isinstance(request.inputs, str)
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    work = labelling(texts, "inputs", request.parameters or Parameters(), served)

    def render(answer: Answered, _: Tokens) -> bytes:
        found = work.found(answer)
        return dumps(found[0] if single else found)

    return Call(None, None, None, render, work.encode, sum(map(len, texts)))


def labelling(texts: list[str], field: str, parameters: Parameters, served: Served) -> Labelling:
    """Refusal where they cannot be labelled so. `field` is what the texts are called in the request."""
    within_batch(len(texts), field, served)
    if parameters.stride is not None and parameters.aggregation_strategy == "none":
        raise Refusal(
            "unprocessable", "parameters.stride: needs an aggregation_strategy other than none to join the windows"
        )
    length = served.model.max_seqlen
    if parameters.stride is not None and not 0 <= parameters.stride < length:
        raise Refusal("unprocessable", f"parameters.stride: {parameters.stride}, expected 0 to {length - 1}")
    if cut(parameters, served) == "left":
        raise Refusal("unprocessable", "parameters.truncation_direction: this task cuts a text on its right only")
    return Labelling(texts, field, parameters, served)


class Labelling:
    """One request: its tokens, then its entities."""

    def __init__(self, texts: list[str], field: str, parameters: Parameters, served: Served) -> None:
        head = served.model.head
        self._labels = [] if head is None else head.labels
        self._unk = None if head is None else head.unk_id
        self._texts = texts
        self._field = field
        self._parameters = parameters
        self._served = served
        self._windows: list[list[Encoding]] = []
        """Per text; one each but for long ones with `stride`."""
        self._tokenizer: Tokenizer

    def encode(self, encoder: TextEncoder) -> Tokens:
        self._tokenizer = encoder.tokenizer
        stride = self._parameters.stride
        if stride is None:
            cuts = cut(self._parameters, self._served) is not None
            self._windows = [[one] for one in encoder.encode_with_offsets(self._texts, cut=cuts)]
        else:
            most = self._served.limits.batch
            try:
                self._windows = [
                    encoder.windows(text, None, length=encoder.max_seqlen, overlap=stride, most=most)
                    for text in self._texts
                ]
            except ValueError as error:
                raise Refusal("unprocessable", f"parameters.stride: {error}") from None
        every = [window for windows in self._windows for window in windows]
        within_batch(len(every), self._field, self._served, "windows")
        return tokens_of(every)

    def found(self, answer: Answered) -> list[list[Entity]]:
        """Per text its entities."""
        probabilities = [numbers.softmax(matrix) for matrix in numbers.matrices(answer)]
        answers: list[list[Entity]] = []
        at = 0
        for text, windows in zip(self._texts, self._windows, strict=True):
            entities: list[Entity] = []
            for window in windows:
                entities += self._entities(text, window, probabilities[at])
                at += 1
            answers.append(_without_overlaps(entities) if len(windows) > 1 else entities)
        return answers

    def _entities(self, text: str, window: Encoding, probabilities: Floats) -> list[Entity]:
        strategy = self._parameters.aggregation_strategy
        tokens = tokens_with_scores(text, window, probabilities, self._tokenizer, self._unk)
        if strategy in ("none", "simple"):
            found = [
                {"entity": self._labels[best], "score": token["scores"][best], **_rest(token)}
                for token in tokens
                for best in (int(token["scores"].argmax()),)
            ]
        else:
            found = [self._word(word, strategy) for word in words_of(tokens)]
        if strategy != "none":
            found = [_group(group, self._tokenizer) for group in _runs(found)]
        ignored = self._parameters.ignore_labels
        kept = [one for one in found if one.get("entity", one.get("entity_group")) not in ignored]
        return [{**one, "score": float(one["score"])} for one in kept]

    def _word(self, word: list[Entity], strategy: Strategy) -> Entity:
        """The tokens of one word, with one label."""
        if strategy == "first":
            scores = word[0]["scores"]
        elif strategy == "max":
            scores = max(word, key=lambda token: float(token["scores"].max()))["scores"]
        else:
            scores = np.stack([token["scores"] for token in word]).mean(axis=0)
        best = int(scores.argmax())
        return {
            "entity": self._labels[best],
            "score": scores[best],
            "word": self._tokenizer_text([token["word"] for token in word]),
            "start": word[0]["start"],
            "end": word[-1]["end"],
        }

    def _tokenizer_text(self, tokens: list[str]) -> str:
        return text_of(tokens, self._tokenizer)


def tokens_with_scores(
    text: str, window: Encoding, probabilities: Floats, tokenizer: Tokenizer, unk: int | None
) -> list[Entity]:
    """Per token that is not special: word, scores, place in the text, and whether it continues a word."""
    word_aware = bool(getattr(tokenizer.model, "continuing_subword_prefix", None))
    tokens = []
    for index, (token_id, token, special, (start, end)) in enumerate(
        zip(window.ids, window.tokens, window.special_tokens_mask, window.offsets, strict=True)
    ):
        if special:
            continue
        here = text[start:end]
        # Without such a tokenizer a missing blank is the only sign.
        continues = len(token) != len(here) if word_aware else start > 0 and " " not in text[start - 1 : start + 1]
        if token_id == unk:
            token, continues = here, False
        tokens.append(
            {
                "word": token,
                "scores": probabilities[index],
                "start": start,
                "end": end,
                "index": index,
                "sub": continues,
            }
        )
    return tokens


def words_of(tokens: list[Entity]) -> list[list[Entity]]:
    words: list[list[Entity]] = []
    for token in tokens:
        if words and token["sub"]:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def text_of(tokens: list[str], tokenizer: Tokenizer) -> str:
    """Tokens as people write them."""
    decoder = tokenizer.decoder
    return " ".join(tokens) if decoder is None else str(decoder.decode(tokens))


def _rest(token: Entity) -> Entity:
    return {name: token[name] for name in ("index", "word", "start", "end")}


def _tag(label: str) -> tuple[bool, str]:
    """(it begins an entity, its name without B- and I-)"""
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label


def _runs(entities: list[Entity]) -> list[list[Entity]]:
    """Neighbours of one name, up to the next that begins anew."""
    runs: list[list[Entity]] = []
    for entity in entities:
        begins, name = _tag(entity["entity"])
        if runs and not begins and name == _tag(runs[-1][-1]["entity"])[1]:
            runs[-1].append(entity)
        else:
            runs.append([entity])
    return runs


def _group(entities: list[Entity], tokenizer: Tokenizer) -> Entity:
    return {
        "entity_group": entities[0]["entity"].split("-", 1)[-1],
        "score": np.mean([entity["score"] for entity in entities]),
        "word": text_of([entity["word"] for entity in entities], tokenizer),
        "start": entities[0]["start"],
        "end": entities[-1]["end"],
    }


def _without_overlaps(entities: list[Entity]) -> list[Entity]:
    """Of entities that two windows found in one place the longer, of equally long ones the surer."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda one: int(one["start"])):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
            continue
        length, previous = entity["end"] - entity["start"], kept[-1]["end"] - kept[-1]["start"]
        if (length, entity["score"]) > (previous, kept[-1]["score"]):
            kept[-1] = entity
    return kept
