"""How does the OpenAI API shape embeddings and models? POST /v1/embeddings, GET /v1/models. Pure.

Source: https://platform.openai.com/docs/api-reference/embeddings. Any `model` is accepted, since one model is served here and clients have
a name to fill in; the answer names the model that it came from.
"""

from __future__ import annotations

from binascii import b2a_base64
from typing import Any, Literal, TypedDict

import msgspec

from orchestrator.client.link import Answered
from orchestrator.client.texts import Tokens
from orchestrator.gateway.apis.call import Call, Inputs, Served, call, cut_of, decode, dumps
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import embedding
from orchestrator.status import ModelStatus


class EmbeddingsRequest(msgspec.Struct):
    input: Inputs
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    truncate: bool | None = None
    """Not OpenAI's: cuts a text that is too long instead of refusing it."""


class Embedding(TypedDict):
    """Floats, or with `encoding_format` base64 their little-endian bytes."""

    object: str
    index: int
    embedding: list[float] | str


class EmbeddingsResponse(TypedDict):
    object: str
    data: list[Embedding]
    model: str
    usage: dict[str, int]


class Model(TypedDict):
    """`created` in seconds since the epoch: when this gateway started."""

    id: str
    object: str
    created: int
    owned_by: str


class Models(TypedDict):
    object: str
    data: list[Model]


_embeddings = msgspec.json.Decoder(EmbeddingsRequest)


def embeddings(body: bytes, served: Served) -> Call:
    """POST /v1/embeddings."""
    embedding.require(served.model.task)
    request = decode(_embeddings, body)
    dimensions = embedding.check_dimensions(request.dimensions, served.model.dimensions)
    base64 = request.encoding_format == "base64"
    name = served.model.id

    def render(answer: Answered, tokens: Tokens) -> bytes:
        rows: list[Any] = list(embedding.vectors(answer, dimensions))
        if base64:  # little-endian float32, as numpy.frombuffer(base64.b64decode(…), dtype="float32") reads it
            rows = [b2a_base64(row.astype("<f4", copy=False).tobytes(), newline=False).decode() for row in rows]
        return dumps(
            {
                "object": "list",
                "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
                "model": name,
                "usage": {"prompt_tokens": tokens.total, "total_tokens": tokens.total},
            }
        )

    return call(request.input, "input", cut_of(request.truncate, "right", served), render, served)


def models(model: ModelStatus, created: int) -> bytes:
    """GET /v1/models. `created` in seconds since the epoch."""
    listed: Models = {"object": "list", "data": [_model(model, created)]}
    return dumps(listed)


def model_named(name: str, model: ModelStatus, created: int) -> bytes:
    """GET /v1/models/NAME."""
    if name != model.id:
        raise Refusal("not_found", f"model {name[:200]!r} is not served here, {model.id!r} is")
    return dumps(_model(model, created))


def _model(model: ModelStatus, created: int) -> Model:
    return {"id": model.id, "object": "model", "created": created, "owned_by": "orchestrator"}
