"""How do Jina and Cohere shape reranking? POST /v1/rerank. Pure.

Sources: https://jina.ai/reranker/ and https://docs.cohere.com/reference/rerank. Any `model` is accepted, as in openai.py.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.client.texts import Tokens
from orchestrator.gateway.apis.call import Call, Served, cut_of, decode
from orchestrator.gateway.apis.options import at_least_one
from orchestrator.gateway.tasks import reranking


class _Document(msgspec.Struct):
    text: str


class _Rerank(msgspec.Struct):
    query: str
    documents: list[str | _Document]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    truncate: bool | None = None
    """Cuts what is too long instead of refusing it."""


_rerank = msgspec.json.Decoder(_Rerank)


def rerank(body: bytes, served: Served) -> Call:
    """The `top_n` most relevant documents, the first of them first; relevance from 0 to 1."""
    reranking.require(served)
    request = decode(_rerank, body)
    at_least_one(request.top_n, "top_n")
    texts = [one.text if isinstance(one, _Document) else one for one in request.documents]

    def shape(ranks: list[tuple[int, float]], tokens: Tokens) -> dict[str, Any]:
        results = [
            {
                "index": index,
                "relevance_score": score,
                **({"document": {"text": texts[index]}} if request.return_documents else {}),
            }
            for index, score in ranks[: request.top_n]
        ]
        usage = {"prompt_tokens": tokens.total, "total_tokens": tokens.total}
        return {"object": "list", "model": served.model.id, "results": results, "usage": usage}

    side = cut_of(request.truncate, "right", served)
    return reranking.call(request.query, texts, "documents", side, False, served, shape)
