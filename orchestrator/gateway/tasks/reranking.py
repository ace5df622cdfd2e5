"""How relevant is each text to a query? The score of a cross-encoder, read from query and text together. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.client.link import Answered
from orchestrator.client.texts import Side, TextEncoder, Tokens
from orchestrator.gateway.apis.call import Call, Served, dumps
from orchestrator.gateway.apis.options import within_batch
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import numbers


def require(served: Served) -> None:
    """The routes that rank need a model with one score for a pair of texts."""
    head = served.model.head
    if head is None or len(head.labels) != 1:
        raise Refusal(
            "unprocessable",
            f"this model's task is {served.model.task}, it ranks nothing; a cross-encoder with a single label does",
        )


def call(
    query: str,
    texts: list[str],
    field: str,
    side: Side | None,
    raw: bool,
    served: Served,
    shape: Callable[[list[tuple[int, float]], Tokens], Any],
) -> Call:
    """`shape` makes the body of (index, score), the most relevant first; the sigmoid of the score unless `raw`."""
    within_batch(len(texts), field, served, "texts")
    pairs = [(query, text) for text in texts]

    def encode(encoder: TextEncoder) -> Tokens:
        return encoder.encode_pairs(pairs, cut=side)

    def render(answer: Answered, tokens: Tokens) -> bytes:
        logits = numbers.rows(answer)[:, 0]
        scores = (logits if raw else numbers.sigmoid(logits)).tolist()
        # By the logit: two texts whose sigmoid rounds to 1 still differ.
        order = sorted(range(len(texts)), key=logits.tolist().__getitem__, reverse=True)
        return dumps(shape([(index, scores[index]) for index in order], tokens))

    characters = len(query) * len(texts) + sum(map(len, texts))
    return Call(None, None, side, render, encode, characters)
