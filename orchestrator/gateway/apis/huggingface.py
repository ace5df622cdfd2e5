"""How does Hugging Face Inference shape its requests and answers? POST /predict and POST /. Pure.

`{"inputs": …, "parameters": {…}}` → the task's output, as `transformers.pipeline` gives it; each task in its own file. For sentence
embeddings a text gives a vector, a list of texts a list of vectors, and `{"source_sentence": …, "sentences": […]}` gives the
similarities. For feature extraction each text gives a matrix.
Source: https://huggingface.co/docs/inference-providers/tasks/feature-extraction and …/tasks/sentence-similarity
"""

from __future__ import annotations

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
_TASKS: dict[str, Parse] = {
    **dict.fromkeys(classification.NAMES, classification.predict),
    **dict.fromkeys(token_classification.NAMES, token_classification.predict),
    **dict.fromkeys(filling.NAMES, filling.predict),
    **dict.fromkeys(answering.NAMES, answering.predict),
    **dict.fromkeys(image_classification.NAMES, image_classification.predict),
}
"""Tasks with a head; embeddings and features are below."""

TASKS = (*embedding.NAMES, *features.NAMES, *_TASKS)


def predict(body: bytes, served: Served) -> Call:
    """POST /predict and POST /, whatever the model's task is."""
    return _TASKS.get(served.model.task, _vectors)(body, served)


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
