"""How do Jina and Cohere shape reranking? POST /v1/rerank. Pure.

Sources: https://jina.ai/reranker/ and https://docs.cohere.com/reference/rerank. Any `model` is accepted, as in openai.py.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

import msgspec

from orchestrator.client.texts import Tokens
from orchestrator.gateway.apis.call import Call, Served, cut_of, decode
from orchestrator.gateway.apis.options import at_least_one
from orchestrator.gateway.tasks import reranking


class Document(msgspec.Struct):
    text: str


class RelevanceRequest(msgspec.Struct):
    query: str
    documents: list[str | Document]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    truncate: bool | None = None
    """Cuts what is too long instead of refusing it."""


class Relevance(TypedDict):
    """`index` is the place of the document in the request; the score is from 0 to 1."""

    index: int
    relevance_score: float
    document: NotRequired[dict[str, str]]


class RelevanceResponse(TypedDict):
    object: str
    model: str
    results: list[Relevance]
    usage: dict[str, int]


_rerank = msgspec.json.Decoder(RelevanceRequest)


def rerank(body: bytes, served: Served) -> Call:
    """The `top_n` most relevant documents, the first of them first; relevance from 0 to 1."""
    reranking.require(served)
    request = decode(_rerank, body)
    at_least_one(request.top_n, "top_n")
    texts = [one.text if isinstance(one, Document) else one for one in request.documents]

    def shape(ranks: list[tuple[int, float]], tokens: Tokens) -> RelevanceResponse:
        results: list[Relevance] = [
            {"index": index, "relevance_score": score} for index, score in ranks[: request.top_n]
        ]
        if request.return_documents:
            for one in results:
                one["document"] = {"text": texts[one["index"]]}
        usage = {"prompt_tokens": tokens.total, "total_tokens": tokens.total}
        return {"object": "list", "model": served.model.id, "results": results, "usage": usage}

    side = cut_of(request.truncate, "right", served)
    return reranking.call(request.query, texts, "documents", side, False, served, shape)
