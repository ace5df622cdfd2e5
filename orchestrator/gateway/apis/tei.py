"""How does text-embeddings-inference shape its requests and answers? POST /embed, POST /tokenize, GET /info. Pure.

Source: https://huggingface.github.io/text-embeddings-inference/
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import msgspec
from tokenizers import Encoding

from orchestrator import __version__
from orchestrator.client.link import Answered
from orchestrator.client.texts import Tokens
from orchestrator.gateway.apis.call import Call, Inputs, Served, call, cut_of, decode, dumps
from orchestrator.gateway.apis.options import Direction, side
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import classification, embedding, reranking


class EmbedRequest(msgspec.Struct):
    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Direction = "right"
    normalize: bool = True
    dimensions: int | None = None
    prompt_name: str | None = None


class RerankRequest(msgspec.Struct):
    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool | None = None
    truncation_direction: Direction = "right"


class TokenizeRequest(msgspec.Struct):
    inputs: str | list[str]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class Rank(TypedDict):
    """`index` is the place of the text in the request."""

    index: int
    score: float
    text: NotRequired[str]


class SpelledToken(TypedDict):
    """`start` and `stop` in characters of the text, null for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Info(TypedDict):
    """What is served. `max_input_length` in tokens, `max_client_batch_size` in texts, `model_sha` is the digest of the weights."""

    model_id: str
    model_sha: str
    model_dtype: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str
    engine: str
    architecture: str
    task: str
    dimensions: int


_embed = msgspec.json.Decoder(EmbedRequest)
_rerank = msgspec.json.Decoder(RerankRequest)
_tokenize = msgspec.json.Decoder(TokenizeRequest)


def embed(body: bytes, served: Served) -> Call:
    """POST /embed: one vector per input, always a list of vectors."""
    embedding.require(served.model.task)
    request = decode(_embed, body)
    check_options(request.normalize, request.prompt_name)
    dimensions = embedding.check_dimensions(request.dimensions, served.model.dimensions)

    def render(answer: Answered, _: Tokens) -> bytes:
        return dumps(embedding.vectors(answer, dimensions))

    return call(
        request.inputs, "inputs", cut_of(request.truncate, side(request.truncation_direction), served), render, served
    )


def rerank(body: bytes, served: Served) -> Call:
    """POST /rerank: index and score of each text, the most relevant first."""
    reranking.require(served)
    request = decode(_rerank, body)

    def shape(ranks: list[tuple[int, float]], _: Tokens) -> list[Rank]:
        if not request.return_text:
            return [{"index": index, "score": score} for index, score in ranks]
        return [{"index": index, "score": score, "text": request.texts[index]} for index, score in ranks]

    cut = cut_of(request.truncate, side(request.truncation_direction), served)
    return reranking.call(request.query, request.texts, "texts", cut, request.raw_scores, served, shape)


def tokenize(body: bytes, served: Served) -> tuple[list[str], bool]:
    """POST /tokenize: the texts, and whether special tokens are wanted."""
    if served.model.image is not None:
        raise Refusal(
            "unprocessable", f"this model's task is {served.model.task}, it has no tokenizer; use POST /predict"
        )
    request = decode(_tokenize, body)
    check_options(True, request.prompt_name)
    texts = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    if not texts:
        raise Refusal("unprocessable", "inputs: is empty; send at least one text")
    if len(texts) > served.limits.batch:
        raise Refusal("batch_too_large", f"inputs: {len(texts)} inputs, the limit is {served.limits.batch}")
    return texts, request.add_special_tokens


def spelled(texts: list[str], encodings: list[Encoding]) -> bytes:
    """The answer of /tokenize: per text its tokens, `start` and `stop` in characters and null for special tokens."""
    answer: list[list[SpelledToken]] = []
    for text, encoding in zip(texts, encodings, strict=True):
        tokens: list[SpelledToken] = []
        for number, token, special, (start, stop) in zip(
            encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
        ):
            if special:
                tokens.append({"id": number, "text": token, "special": True, "start": None, "stop": None})
            else:
                tokens.append({"id": number, "text": text[start:stop], "special": False, "start": start, "stop": stop})
        answer.append(tokens)
    return dumps(answer)


def info(served: Served) -> bytes:
    """GET /info."""
    model, limits = served.model, served.limits
    found: Info = {
        "model_id": model.id,
        "model_sha": model.digest,
        "model_dtype": {"fp32": "float32", "bf16": "bfloat16"}.get(model.precision, model.precision),
        "model_type": _model_type(served),
        "max_concurrent_requests": limits.in_flight,
        "max_input_length": model.max_seqlen,
        "max_client_batch_size": limits.batch,
        "auto_truncate": limits.truncate or model.truncate,
        "version": __version__,
        "engine": model.engine,
        "architecture": model.architecture,
        "task": model.task,
        "dimensions": model.dimensions,
    }
    return dumps(found)


def _model_type(served: Served) -> dict[str, Any]:
    """As text-embeddings-inference names it where it has such models, else the task."""
    task, labels = served.model.task, classification.labels_of(served)
    named: dict[str, Any] = {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    if task in embedding.NAMES:
        return {"embedding": {}}
    if task in classification.NAMES:
        return {"reranker" if len(labels) == 1 else "classifier": named}
    return {task: {}}


def check_options(normalize: bool, prompt_name: str | None) -> None:
    """What is asked for and cannot be done is refused, never left out in silence."""
    if not normalize:
        raise Refusal("unprocessable", "normalize: false is not possible, normalisation is part of this model's graph")
    if prompt_name is not None:
        raise Refusal("unprocessable", f"prompt_name: {prompt_name[:80]!r} is unknown, this model has no prompts")
