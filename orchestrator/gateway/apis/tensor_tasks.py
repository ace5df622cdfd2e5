"""How is each task asked and answered in tensors? Pure.

Each function makes a Call of a request whose tensors fit the model (signatures.py); `finish` makes the body of the outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from orchestrator.client.link import Answered
from orchestrator.client.texts import Side, TextEncoder, Tokens
from orchestrator.gateway.apis import options, tensors
from orchestrator.gateway.apis.call import Body, Call, Render, Served, dumps
from orchestrator.gateway.apis.huggingface import VectorParameters
from orchestrator.gateway.apis.options import Truncation, at_least_one, within_batch
from orchestrator.gateway.apis.outputs import Output
from orchestrator.gateway.apis.padded import Padded, mask_of, padded, spread, within_floats
from orchestrator.gateway.apis.tei import check_options
from orchestrator.gateway.apis.tensors import Asked, Tensor
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import (
    answering,
    classification,
    embedding,
    filling,
    image_classification,
    numbers,
    reranking,
    token_classification,
    zero_shot,
)

P = TypeVar("P", bound=msgspec.Struct)

Outputs = dict[str, Output]
Finish = Callable[[Outputs], Body]

ON_LOOP_FLOATS: Final = 1 << 18
"""Of a tensor with a row per token: 1 MiB, which may be made on the event loop."""


# ---- vectors


class _Vectors(VectorParameters, forbid_unknown_fields=True):
    pass


class _Cutting(Truncation, forbid_unknown_fields=True):
    pass


def embed(asked: Asked, served: Served, finish: Finish) -> Call:
    parameters = _parameters(asked, _Vectors)
    check_options(parameters.normalize is not False, parameters.prompt_name)
    dimensions = embedding.check_dimensions(parameters.dimensions, served.model.dimensions)

    def render(answer: Answered, _: Tokens) -> Body:
        rows = embedding.vectors(answer, dimensions)
        return finish({"embedding": Output("FP32", rows.shape, rows)})

    cut = options.cut(parameters, served)
    if "input_ids" in asked.inputs:
        return Call(None, None, cut, render, tokens=padded(asked.inputs, cut, served).tokens)
    return Call(_texts(asked, "text", served), None, cut, render)


def features(asked: Asked, served: Served, finish: Finish) -> Call:
    parameters = _parameters(asked, _Cutting)
    cut = options.cut(parameters, served)
    width = served.model.dimensions
    if "input_ids" in asked.inputs:
        return _per_token(asked, cut, served, "features", finish)
    texts = _texts(asked, "text", served)

    def encode(encoder: TextEncoder) -> Tokens:
        tokens = encoder.encode(texts, cut=cut)
        within_floats(len(texts), max(tokens.lengths), width, "inputs.text")
        return tokens

    def render(answer: Answered, tokens: Tokens) -> Body:
        kept = mask_of(tokens.lengths)
        rows = spread(numbers.matrices(answer), kept)
        mask = Output("INT64", kept.shape, kept.astype(np.int64))
        return finish({"features": Output("FP32", rows.shape, rows), "attention_mask": mask})

    return Call(None, None, cut, render, encode, sum(map(len, texts)), costly=len(texts) > 1)


def _per_token(
    asked: Asked,
    cut: Side | None,
    served: Served,
    name: str,
    finish: Finish,
) -> Call:
    """A matrix per sequence of ids, put where the ids stood."""
    given = padded(asked.inputs, cut, served)
    count, length = given.ids.shape
    within_floats(count, length, served.model.dimensions, "inputs.input_ids")

    def render(answer: Answered, _: Tokens) -> Body:
        rows = spread(numbers.matrices(answer), given.kept)
        return finish({name: Output("FP32", rows.shape, rows)})

    return Call(
        None, None, cut, render, tokens=given.tokens, costly=given.ids.size * served.model.dimensions > ON_LOOP_FLOATS
    )


# ---- labels


def classify(asked: Asked, served: Served, finish: Finish) -> Call:
    parameters = _parameters(asked, classification.Parameters)
    ids = "input_ids" in asked.inputs
    if "candidate_labels" in asked.inputs:
        if parameters.candidate_labels is not None:
            raise Refusal("unprocessable", "candidate_labels: is there as input and as parameter; send one of them")
        parameters.candidate_labels = _texts(asked, "candidate_labels", served)
    if parameters.candidate_labels is not None or (served.model.task == "zero-shot-classification" and not ids):
        return _judge(asked, parameters, served, finish)
    give = _ranking(served, parameters.function_to_apply, _most(parameters.top_k), finish)
    cut = options.cut(parameters, served)
    if ids:
        return Call(None, None, cut, give, tokens=padded(asked.inputs, cut, served).tokens)
    return classification.classify(_pairs(asked, served), "inputs.text", parameters, served, give)


def _pairs(asked: Asked, served: Served) -> list[classification.Text]:
    """The texts, each with its `text_pair`, or behind the `query`."""
    texts = _texts(asked, "text", served)
    if "query" in asked.inputs:
        reranking.require(served)
        if "text_pair" in asked.inputs:
            raise Refusal("unprocessable", "inputs.query: does not go with text_pair; send one of them")
        queries = _texts(asked, "query", served)
        if len(queries) == 1:
            queries *= len(texts)
        return _side_by_side(queries, texts, "query", "one query, or one for each text")
    if "text_pair" in asked.inputs:
        return _side_by_side(texts, _texts(asked, "text_pair", served), "text_pair", "one for each text")
    return list(texts)


def _side_by_side(firsts: list[str], seconds: list[str], name: str, wanted: str) -> list[classification.Text]:
    if len(firsts) != len(seconds):
        raise Refusal("unprocessable", f"inputs.{name}: {len(firsts)} and {len(seconds)} texts; send {wanted}")
    return list(zip(firsts, seconds, strict=True))


def _judge(asked: Asked, parameters: classification.Parameters, served: Served, finish: Finish) -> Call:
    """Labels of the client's own."""
    for name in ("text_pair", "query", "input_ids"):
        if name in asked.inputs:
            raise Refusal("unprocessable", f"inputs.{name}: does not go with candidate_labels, which judge texts")
    if any(wish.name == "logits" for wish in asked.outputs):
        raise Refusal("unprocessable", "outputs.logits: is not given with candidate_labels; ask for labels and scores")
    work = zero_shot.judging(
        _texts(asked, "text", served), "inputs.text", parameters.candidate_labels, parameters.hypothesis_template,
        parameters.multi_label, options.cut(parameters, served), served,
    )  # fmt: skip

    def render(answer: Answered, _: Tokens) -> Body:
        found = work.found(answer)
        scores = np.stack([fits for _, fits in found])
        labels = [label for best, _ in found for label in best]
        return finish({"labels": Output("BYTES", scores.shape, labels), "scores": Output("FP32", scores.shape, scores)})

    return Call(None, None, None, render, work.encode, work.characters)


def _ranking(served: Served, function: str | None, most: int | None, finish: Finish) -> Render:
    """Renders rows of logits as labels and scores, the best first and equal ones in the order of their ids, and as they are."""
    chosen = classification.activation(served) if function is None else classification.function(function)
    names = classification.labels_of(served)

    def render(answer: Answered, _: Tokens) -> Body:
        logits = numbers.rows(answer)
        scores = numbers.apply(chosen, logits)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :most]
        return finish(
            {
                "labels": Output("BYTES", order.shape, [names[label] for label in order.ravel().tolist()]),
                "scores": Output("FP32", order.shape, np.take_along_axis(scores, order, axis=1)),
                "logits": Output("FP32", logits.shape, logits),
            }
        )

    return render


def _most(top_k: int | msgspec.UnsetType | None) -> int | None:
    most = None if isinstance(top_k, msgspec.UnsetType) else top_k
    at_least_one(most, "parameters.top_k")
    return most


# ---- ragged answers


def entities(asked: Asked, served: Served, finish: Finish) -> Call:
    if "input_ids" in asked.inputs:
        return _logits_per_token(asked, served, finish)
    texts = _texts(asked, "text", served)
    work = token_classification.labelling(
        texts, "inputs.text", _parameters(asked, token_classification.Parameters), served
    )

    def render(answer: Answered, _: Tokens) -> Body:
        return finish({"entities": _documents(work.found(answer))})

    return Call(None, None, None, render, work.encode, sum(map(len, texts)))


def answers(asked: Asked, served: Served, finish: Finish) -> Call:
    if "input_ids" in asked.inputs:
        return _logits_per_token(asked, served, finish)
    questions, contexts = _texts(asked, "question", served), _texts(asked, "context", served)
    if len(questions) != len(contexts):
        raise Refusal(
            "unprocessable", f"inputs.question: {len(questions)} and {len(contexts)} contexts; send one for each"
        )
    work = answering.answering(
        [answering.Question(question, context) for question, context in zip(questions, contexts, strict=True)],
        "inputs", _parameters(asked, answering.Parameters), served,
    )  # fmt: skip

    def render(answer: Answered, _: Tokens) -> Body:
        return finish({"answers": _documents(work.found(answer))})

    return Call(None, None, None, render, work.encode, work.characters, work.costly)


def _logits_per_token(asked: Asked, served: Served, finish: Finish) -> Call:
    cut = options.cut(_parameters(asked, _Cutting), served)
    return _per_token(asked, cut, served, "logits", finish)


def fills(asked: Asked, served: Served, finish: Finish) -> Call:
    if "input_ids" in asked.inputs:
        cut = options.cut(_parameters(asked, _Cutting), served)
        given = _marked(padded(asked.inputs, cut, served), served)

        def logits(answer: Answered, _: Tokens) -> Body:
            rows = numbers.rows(answer)
            return finish({"logits": Output("FP32", rows.shape, rows)})

        return Call(None, None, cut, logits, tokens=given.tokens)
    texts = _texts(asked, "text", served)
    work = filling.filling(texts, "inputs.text", _parameters(asked, filling.Parameters), served)

    def render(answer: Answered, _: Tokens) -> Body:
        return finish({"fills": _documents(work.found(answer))})

    return Call(None, None, None, render, work.encode, sum(map(len, texts)))


def _marked(given: Padded, served: Served) -> Padded:
    """With the id that asks for the row of the mask in the place of each mask; one to a sequence."""
    mask, asked = filling.mask_of(served)
    masks = given.kept & (given.ids == mask)
    filling.within_masks(len(masks), "inputs.input_ids", served)
    counts = masks.sum(axis=1)
    other = counts != 1
    if other.any():
        at = int(other.argmax())
        raise Refusal(
            "unprocessable",
            f"inputs.input_ids: sequence {at} has {int(counts[at])} masks (id {mask}); send it once for each mask, the others filled",
        )
    return given._replace(ids=np.where(masks, asked, given.ids))


def _documents(found: list[Any]) -> Output:
    return Output("BYTES", (len(found),), [dumps(one).decode() for one in found])


# ---- images


def images(asked: Asked, served: Served, finish: Finish) -> Call:
    parameters = _parameters(asked, image_classification.Parameters)
    at_least_one(parameters.top_k, "parameters.top_k")
    give = _ranking(served, parameters.function_to_apply, parameters.top_k, finish)
    if "pixel_values" in asked.inputs:
        return Call(None, None, None, give, tokens=_pixels(asked.inputs["pixel_values"], served))
    tensor = asked.inputs["image"]
    _require_column(tensor)
    within_batch(tensor.count, "inputs.image", served, "images")
    fields = [f"inputs.image[{position}]" for position in range(tensor.count)]
    if not tensor.encoded("base64") and tensor.blob is not None:
        files = tensors.blobs(tensor)
    else:
        texts = tensors.strings(tensor)
        files = [image_classification.of_base64(text, field) for text, field in zip(texts, fields, strict=True)]
    return image_classification.reading(list(zip(fields, files, strict=True)), "inputs.image", served, give)


def _pixels(tensor: Tensor, served: Served) -> Tokens:
    wanted = served.model.image
    if wanted is None:
        raise Refusal("internal", "the artefact does not say how images are prepared")
    tensor.encoded("np")
    size = [3, wanted.height, wanted.width]
    if len(tensor.shape) != 4 or list(tensor.shape[1:]) != size:
        raise Refusal(
            "unprocessable",
            f"inputs.pixel_values: the shape {list(tensor.shape)!s:.80}, this model reads [images, {size}]",
        )
    within_batch(tensor.shape[0], "inputs.pixel_values", served, "images")
    values = tensors.floats(tensor)
    if not np.isfinite(values).all():
        raise Refusal("unprocessable", "inputs.pixel_values: holds numbers that are not finite")
    return Tokens([wanted.tokens] * len(values), values.astype("<f4", copy=False).tobytes(), pixels=True)


# ---- inputs and parameters


_PROTOCOLS_OWN = frozenset({"binary_data_output", "priority", "timeout", "content_type", "headers"})
"""Parameters that are no task's. The last two are what MLServer's clients say of their own encoding."""


def _parameters(asked: Asked, kind: type[P]) -> P:
    """The task's own. Refusal (400) for one that it does not have."""
    given = {name: value for name, value in asked.parameters.items() if name not in _PROTOCOLS_OWN}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Refusal("malformed", f"parameters: {error}") from None


def _texts(asked: Asked, name: str, served: Served) -> list[str]:
    tensor = asked.inputs[name]
    _require_column(tensor)
    within_batch(tensor.count, f"inputs.{name}", served, "texts")
    tensor.encoded("str")
    return tensors.strings(tensor)


def _require_column(tensor: Tensor) -> None:
    if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
        raise Refusal(
            "unprocessable", f"inputs.{tensor.name}: the shape {list(tensor.shape)!s:.80}, expected [n] or [n, 1]"
        )
