"""How does Hugging Face Inference shape its requests and answers? POST /predict and POST /. Pure.

`{"inputs": …, "parameters": {…}}` → the task's output, as `transformers.pipeline` gives it; each task in its own file. For sentence
embeddings a text gives a vector, a list of texts a list of vectors, and `{"source_sentence": …, "sentences": […]}` gives the
similarities. For feature extraction each text gives a matrix.
Source: https://huggingface.co/docs/inference-providers/tasks/feature-extraction and …/tasks/sentence-similarity
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from orchestrator.client.link import Answered
from orchestrator.client.texts import Tokens
from orchestrator.gateway.apis import options
from orchestrator.gateway.apis.call import Call, Inputs, Parse, Served, call, decode, dumps
from orchestrator.gateway.apis.options import Truncation
from orchestrator.gateway.apis.tei import check_options
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import (
    answering,
    classification,
    embedding,
    features,
    filling,
    image_classification,
    token_classification,
    zero_shot,
)


class Similarity(msgspec.Struct):
    source_sentence: str
    sentences: list[str]


class VectorParameters(Truncation):
    normalize: bool | None = None
    dimensions: int | None = None
    prompt_name: str | None = None


class VectorsRequest(msgspec.Struct):
    inputs: Inputs | Similarity
    parameters: VectorParameters | None = None


_predict = msgspec.json.Decoder(VectorsRequest)


def predict(body: bytes, served: Served) -> Call:
    """POST /predict and POST /, whatever the model's task is."""
    return KINDS[served.model.task].parse(body, served)


def _vectors(body: bytes, served: Served) -> Call:
    request = decode(_predict, body)
    parameters = request.parameters or VectorParameters()
    check_options(parameters.normalize is not False, parameters.prompt_name)
    dimensions = embedding.check_dimensions(parameters.dimensions, served.model.dimensions)
    cut = options.cut(parameters, served)
    inputs = request.inputs
    if isinstance(inputs, Similarity):
        embedding.require(served.model.task)
        if not inputs.sentences:
            raise Refusal("unprocessable", "inputs.sentences: is empty; send at least one text")
        texts: list[str | int | list[int]] = [inputs.source_sentence, *inputs.sentences]
        return call(texts, "inputs.sentences", cut, lambda answer, _: dumps(embedding.similarities(answer)), served)
    single = isinstance(inputs, str) or (bool(inputs) and isinstance(inputs[0], int))

    if served.model.task in features.NAMES:
        if dimensions is not None:
            raise Refusal(
                "unprocessable", "parameters.dimensions: is for embeddings of texts, this model gives features"
            )

        def matrices(answer: Answered, _: Tokens) -> bytes:
            arrays = features.nested(answer)
            return dumps(arrays[0] if single else arrays)

        return call(inputs, "inputs", cut, matrices, served)

    def render(answer: Answered, _: Tokens) -> bytes:
        rows = embedding.vectors(answer, dimensions)
        return dumps(rows[0] if single else rows)

    return call(inputs, "inputs", cut, render, served)


class Kind(NamedTuple):
    """How a task is asked on this route."""

    parse: Parse
    body: Any
    """Type of the request's body, and of the answer's."""
    answer: Any


Scores = classification.LabelScore
Entities = list[token_classification.FoundEntity]
Fills = list[filling.Fill]
Span = answering.Span

KINDS: dict[str, Kind] = {
    **dict.fromkeys(embedding.NAMES, Kind(_vectors, VectorsRequest, list[float] | list[list[float]])),
    **dict.fromkeys(
        features.NAMES, Kind(_vectors, VectorsRequest, list[list[list[float]]] | list[list[list[list[float]]]])
    ),
    **dict.fromkeys(
        classification.NAMES,
        Kind(
            classification.predict,
            classification.ClassificationRequest,
            Scores | list[Scores] | list[list[Scores]] | zero_shot.Judged | list[zero_shot.Judged],
        ),
    ),
    **dict.fromkeys(
        token_classification.NAMES,
        Kind(
            token_classification.predict,
            token_classification.TokenClassificationRequest,
            Entities | list[Entities],
        ),
    ),
    **dict.fromkeys(
        filling.NAMES, Kind(filling.predict, filling.FillMaskRequest, Fills | list[Fills] | list[Fills | list[Fills]])
    ),
    **dict.fromkeys(
        answering.NAMES,
        Kind(answering.predict, answering.QuestionAnsweringRequest, Span | list[Span] | list[Span | list[Span]]),
    ),
    **dict.fromkeys(
        image_classification.NAMES,
        Kind(
            image_classification.predict,
            image_classification.ImageClassificationRequest,
            list[Scores] | list[list[Scores]],
        ),
    ),
}
"""By task."""
