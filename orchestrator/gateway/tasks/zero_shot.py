"""Which of the caller's own labels fits a text? By asking a model of natural language inference whether the text entails it. Pure.

Source: transformers ZeroShotClassificationPipeline; Yin et al., arXiv 1909.00161.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from orchestrator.client.link import Answered
from orchestrator.client.texts import Side, TextEncoder, Tokens
from orchestrator.gateway.apis.call import Call, Served, dumps
from orchestrator.gateway.apis.options import within_batch
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import numbers
from orchestrator.gateway.tasks.numbers import Floats

TEMPLATE = "This example is {}."


class Judged(TypedDict):
    """The labels that fit the text, the best first."""

    sequence: str
    labels: list[str]
    scores: list[float]


def call(
    inputs: str | list[str],
    candidates: str | list[str] | None,
    template: str,
    multi_label: bool,
    side: Side | None,
    served: Served,
) -> Call:
    """One sequence per text and label. Where `side` is set the text is cut and never the hypothesis."""
    texts = [inputs] if isinstance(inputs, str) else inputs
    work = judging(texts, "inputs", candidates, template, multi_label, side, served)

    def render(answer: Answered, _: Tokens) -> bytes:
        answers: list[Judged] = [
            {"sequence": text, "labels": best, "scores": fits.tolist()}
            for text, (best, fits) in zip(texts, work.found(answer), strict=True)
        ]
        return dumps(answers[0] if isinstance(inputs, str) else answers)

    return Call(None, None, side, render, work.encode, work.characters)


def judging(
    texts: list[str],
    field: str,
    candidates: str | list[str] | None,
    template: str,
    multi_label: bool,
    side: Side | None,
    served: Served,
) -> Judging:
    """Refusal where the model cannot judge them so. `field` is what the texts are called in the request."""
    head = served.model.head
    if head is None or head.entailment is None:
        raise Refusal(
            "unprocessable",
            "parameters.candidate_labels: none of this model's labels says entailment, so it cannot judge labels of yours",
        )
    labels = _labels(candidates)
    hypotheses = [_hypothesis(template, label) for label in labels]
    within_batch(len(texts) * len(labels), field, served, f"pairs of {len(texts)} texts and {len(labels)} labels")
    pairs = [(text, hypothesis) for text in texts for hypothesis in hypotheses]
    return Judging(pairs, labels, head.entailment, multi_label, side)


class Judging:
    """One request: each text with each hypothesis, then the labels that fit it."""

    def __init__(
        self, pairs: list[tuple[str, str]], labels: list[str], entailment: int, multi_label: bool, side: Side | None
    ) -> None:
        self.characters = sum(len(one) + len(other) for one, other in pairs)
        self._pairs = pairs
        self._labels = labels
        self._entailment = entailment
        self._multi_label = multi_label
        self._side: Side | None = side

    def encode(self, encoder: TextEncoder) -> Tokens:
        return encoder.encode_pairs(self._pairs, cut=self._side, strategy="only_first")

    def found(self, answer: Answered) -> list[tuple[list[str], Floats]]:
        """Per text the labels and how well each fits, the best first."""
        found = []
        for rows in numbers.rows(answer).reshape(-1, len(self._labels), answer.width):
            fits = scores(rows, self._entailment, self._multi_label)
            order = fits.argsort()[::-1]
            found.append(([self._labels[i] for i in order.tolist()], fits[order]))
        return found


def scores(logits: Floats, entailment: int, multi_label: bool) -> Floats:
    """[labels] of the logits [labels, classes]: shares of one, or with `multi_label` each against its contradiction."""
    if multi_label or len(logits) == 1:
        contradiction = -1 if entailment == 0 else 0
        return numbers.softmax(logits[:, [contradiction, entailment]])[:, 1]
    return np.asarray(numbers.softmax(logits[:, entailment]), np.float32)


def _labels(candidates: str | list[str] | None) -> list[str]:
    if isinstance(candidates, str):
        candidates = [label.strip() for label in candidates.split(",") if label.strip()]
    if not candidates:
        raise Refusal("unprocessable", "parameters.candidate_labels: is empty; send the labels to choose from")
    return candidates


def _hypothesis(template: str, label: str) -> str:
    """The template with the label in place of `{}`. Nothing else of Python's formatting: a client wrote it."""
    before, braces, after = template.partition("{}")
    if not braces or any(brace in before + after for brace in "{}"):
        raise Refusal(
            "unprocessable",
            f"parameters.hypothesis_template: {template[:80]!r} must hold {{}} once, where the label goes",
        )
    return f"{before}{label}{after}"
