"""How does Hugging Face Inference shape its requests and answers? POST /predict and POST /. Pure.

`{"inputs": …, "parameters": {…}}` → the task's output. For sentence embeddings a text gives a vector, a list of texts a list of
vectors, and `{"source_sentence": …, "sentences": […]}` gives the similarities. For feature extraction each text gives a matrix.
Source: https://huggingface.co/docs/inference-providers/tasks/feature-extraction and …/tasks/sentence-similarity
"""

from __future__ import annotations

import msgspec

from orchestrator.client.link import Answered
from orchestrator.client.texts import Tokens
from orchestrator.gateway.apis.call import Call, Inputs, Served, call, cut_of, decode, dumps
from orchestrator.gateway.apis.tei import Direction, check_options, side
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import embedding, features


class _Similarity(msgspec.Struct):
    source_sentence: str
    sentences: list[str]


class _Parameters(msgspec.Struct):
    truncate: bool | None = None
    truncation: bool | str | None = None
    """`transformers` says this one; its strategies other than `do_not_truncate` all cut a single text the same way."""
    truncation_direction: Direction = "right"
    normalize: bool | None = None
    dimensions: int | None = None
    prompt_name: str | None = None


class _Predict(msgspec.Struct):
    inputs: Inputs | _Similarity
    parameters: _Parameters | None = None


_predict = msgspec.json.Decoder(_Predict)
_STRATEGIES = {"longest_first": True, "only_first": True, "only_second": False, "do_not_truncate": False}


def predict(body: bytes, served: Served) -> Call:
    request = decode(_predict, body)
    parameters = request.parameters or _Parameters()
    check_options(parameters.normalize is not False, parameters.prompt_name)
    dimensions = embedding.check_dimensions(parameters.dimensions, served.model.dimensions)
    cut = cut_of(_truncate(parameters), side(parameters.truncation_direction), served)
    inputs = request.inputs
    if isinstance(inputs, _Similarity):
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


def _truncate(parameters: _Parameters) -> bool | None:
    if parameters.truncate is not None:
        return parameters.truncate
    strategy = parameters.truncation
    if not isinstance(strategy, str):
        return strategy
    if strategy not in _STRATEGIES:
        known = ", ".join(_STRATEGIES)
        raise Refusal(
            "unprocessable", f"parameters.truncation: {strategy[:80]!r} is unknown, known are true, false, {known}"
        )
    return _STRATEGIES[strategy]
