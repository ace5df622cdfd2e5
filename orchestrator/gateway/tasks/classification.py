"""Which label has a text, or a pair of texts? As transformers.pipeline and as text-embeddings-inference answer it. Pure.

Both protocols live on POST /predict. A body is the latter's if it has one of its own fields on top (`raw_scores`, `truncate`) or lists in
`inputs`; `{"inputs": ["a", "b"]}` alone is two texts, as in transformers.
Sources: transformers TextClassificationPipeline; https://huggingface.github.io/text-embeddings-inference/ (/predict)
"""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec

from orchestrator.client.link import Answered
from orchestrator.client.texts import TextEncoder, Tokens
from orchestrator.gateway.apis.call import Call, Render, Served, decode, dumps
from orchestrator.gateway.apis.options import Direction, Truncation, at_least_one, cut, within_batch
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import numbers, zero_shot
from orchestrator.gateway.tasks.numbers import Activation, Floats

NAMES = ("text-classification", "reranking", "zero-shot-classification")
"""Tasks whose model gives one score per label for a text or a pair of texts."""

Text = str | tuple[str, str]


class Pair(msgspec.Struct, forbid_unknown_fields=True):
    text: str
    text_pair: str | None = None


class Parameters(Truncation, forbid_unknown_fields=True):
    function_to_apply: str | None = None
    top_k: int | msgspec.UnsetType | None = msgspec.UNSET
    """null: all labels. Left out: the best one, not in a list."""
    candidate_labels: str | list[str] | None = None
    hypothesis_template: str = zero_shot.TEMPLATE
    multi_label: bool = False


class ClassificationRequest(msgspec.Struct):
    inputs: str | Pair | list[str | Pair | list[str]]
    parameters: Parameters | None = None
    raw_scores: bool | None = None
    truncate: bool | None = None
    truncation_direction: Direction | None = None


class LabelScore(TypedDict):
    label: str
    score: float


_predict = msgspec.json.Decoder(ClassificationRequest)
_FUNCTIONS: dict[str, Activation] = {"softmax": "softmax", "sigmoid": "sigmoid", "none": "none"}


def predict(body: bytes, served: Served) -> Call:
    """POST /predict and POST / of a model that classifies texts."""
    request = decode(_predict, body)
    parameters = request.parameters or Parameters()
    if parameters.candidate_labels is not None or served.model.task == "zero-shot-classification":
        return zero_shot.call(
            _only_texts(request.inputs),
            parameters.candidate_labels,
            parameters.hypothesis_template,
            parameters.multi_label,
            cut(parameters, served),
            served,
        )
    listed = isinstance(request.inputs, list) and any(isinstance(one, list) for one in request.inputs)
    own = (request.raw_scores, request.truncate, request.truncation_direction)
    if listed or any(field is not None for field in own):
        if request.parameters is not None:
            raise Refusal(
                "unprocessable", "parameters: does not go with raw_scores, truncate on top or lists of texts in inputs"
            )
        return _embeddings_inference(request, served)
    return _pipeline(request, parameters, served)


def _pipeline(request: ClassificationRequest, parameters: Parameters, served: Served) -> Call:
    """As transformers.pipeline answers: one label each, or with `top_k` a list of them."""
    top_k = parameters.top_k
    best_only = top_k is msgspec.UNSET
    most = None if isinstance(top_k, msgspec.UnsetType) else top_k
    at_least_one(most, "parameters.top_k")
    chosen = activation(served) if parameters.function_to_apply is None else function(parameters.function_to_apply)
    labels = labels_of(served)
    inputs = request.inputs

    def render(answer: Answered, _: Tokens) -> bytes:
        listed = [ranked(row, labels, 1 if best_only else most) for row in numbers.apply(chosen, numbers.rows(answer))]
        if best_only:
            firsts = [one[0] for one in listed]
            return dumps(firsts[0] if isinstance(inputs, Pair) else firsts)
        return dumps(listed if isinstance(inputs, list) else listed[0])

    texts = [_text(one) for one in (inputs if isinstance(inputs, list) else [inputs])]
    return classify(texts, "inputs", parameters, served, render)


def _embeddings_inference(request: ClassificationRequest, served: Served) -> Call:
    """As text-embeddings-inference answers: all labels, the best first. Two strings in `inputs` are a pair there."""
    chosen: Activation = "none" if request.raw_scores else activation(served)
    labels = labels_of(served)
    inputs = request.inputs
    if isinstance(inputs, list) and all(isinstance(one, str) for one in inputs):
        single, texts = True, [_several(inputs)]
    elif isinstance(inputs, list):
        single, texts = False, [_several(one) if isinstance(one, list) else _text(one) for one in inputs]
    else:
        single, texts = True, [_text(inputs)]

    def render(answer: Answered, _: Tokens) -> bytes:
        listed = [ranked(row, labels, None) for row in numbers.apply(chosen, numbers.rows(answer))]
        return dumps(listed[0] if single else listed)

    options = Truncation(truncate=request.truncate, truncation_direction=request.truncation_direction or "right")
    return classify(texts, "inputs", options, served, render)


def classify(texts: list[Text], field: str, options: Truncation, served: Served, render: Render) -> Call:
    """`render` makes the answer of one row of logits per text or pair. `field` is what these are called in the request."""
    within_batch(len(texts), field, served)
    side = cut(options, served)
    plain = [text for text in texts if isinstance(text, str)]
    if len(plain) == len(texts):
        return Call(plain, None, side, render)

    def encode(encoder: TextEncoder) -> Tokens:
        return encoder.encode_pairs(texts, cut=side)

    characters = sum(len(text) if isinstance(text, str) else len(text[0]) + len(text[1]) for text in texts)
    return Call(None, None, side, render, encode, characters)


def ranked(scores: Floats, labels: list[str], most: int | None) -> list[LabelScore]:
    """Labels with their scores, the best first; equal ones in the order of their ids."""
    both = sorted(zip(labels, scores.tolist(), strict=True), key=lambda one: one[1], reverse=True)
    return [{"label": label, "score": score} for label, score in both[:most]]


def activation(served: Served) -> Activation:
    head = served.model.head
    return "none" if head is None else head.activation


def labels_of(served: Served) -> list[str]:
    head = served.model.head
    return [] if head is None else head.labels


def function(name: str) -> Activation:
    found = _FUNCTIONS.get(name.lower())
    if found is None:
        known = ", ".join(_FUNCTIONS)
        raise Refusal("unprocessable", f"parameters.function_to_apply: {name[:80]!r} is unknown, known are {known}")
    return found


def _text(one: str | Pair | list[str]) -> Text:
    if isinstance(one, list):
        return _several(one)
    if isinstance(one, Pair):
        return one.text if one.text_pair is None else (one.text, one.text_pair)
    return one


def _several(texts: list[Any]) -> Text:
    match texts:
        case [str() as text]:
            return text
        case [str() as text, str() as other]:
            return text, other
        case _:
            raise Refusal(
                "unprocessable", f"inputs: {len(texts)} texts together; one is classified alone, two as a pair"
            )


def _only_texts(inputs: str | Pair | list[str | Pair | list[str]]) -> str | list[str]:
    if isinstance(inputs, str):
        return inputs
    texts = [one for one in inputs if isinstance(one, str)] if isinstance(inputs, list) else []
    if not isinstance(inputs, list) or len(texts) != len(inputs):
        raise Refusal("unprocessable", "inputs: zero-shot classification takes a text or a list of texts")
    return texts
