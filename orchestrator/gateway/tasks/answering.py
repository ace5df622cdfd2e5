"""Where in a text does the answer to a question stand? `question-answering` as transformers.pipeline gave it. Pure.

Theory of operation. Question and context are one sequence; a context that is too long becomes windows that overlap. Each token of the
context has a logit to be the first of the answer and one to be the last. Softmax over the window's context tokens (and the [CLS] token,
which stands for "no answer here"), then the best products of first and last. A span is widened to whole words; the same text found twice
counts together. Source: QuestionAnsweringPipeline of transformers 4 (version 5 has none), after Chen et al., arXiv 1704.00051.
"""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec
import numpy as np
import numpy.typing as npt
from tokenizers import Encoding

from orchestrator.client.link import Answered
from orchestrator.client.texts import TextEncoder, Tokens, tokens_of
from orchestrator.gateway.apis.call import Call, Served, decode, dumps
from orchestrator.gateway.apis.options import at_least_one, within_batch
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import numbers
from orchestrator.gateway.tasks.numbers import Floats

NAMES = ("question-answering",)

ON_LOOP_CHARACTERS = 1_000
"""Spans of one window of 384 tokens take 2.6 ms, of 200 tokens 0.4; a question with a context up to this is one such window."""

WINDOW = 384
OVERLAP = 128
NEVER = -10_000.0
"""The logit of a token that cannot be part of an answer."""

Doubles = npt.NDArray[np.float64]


class Question(msgspec.Struct, forbid_unknown_fields=True):
    question: str
    context: str


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    top_k: int = 1
    doc_stride: int | None = None
    """Tokens that neighbouring windows have in common."""
    max_answer_len: int = 15
    max_seq_len: int | None = None
    max_question_len: int | None = None
    """Accepted and without effect, as in transformers with fast tokenizers."""
    handle_impossible_answer: bool = False
    align_to_words: bool = True


class QuestionAnsweringRequest(msgspec.Struct):
    inputs: Question | list[Question]
    parameters: Parameters | None = None


class Span(TypedDict):
    """An answer and where in the context it stands, in characters."""

    score: float
    start: int
    end: int
    answer: str


_predict = msgspec.json.Decoder(QuestionAnsweringRequest)


def predict(body: bytes, served: Served) -> Call:
    """POST /predict and POST / of a model that answers questions."""
    request = decode(_predict, body)
    single = not isinstance(request.inputs, list)
    questions = request.inputs if isinstance(request.inputs, list) else [request.inputs]
    work = answering(questions, "inputs", request.parameters or Parameters(), served)

    def render(answer: Answered, _: Tokens) -> bytes:
        found = work.found(answer)
        return dumps(found[0] if single or len(found) == 1 else found)

    return Call(None, None, None, render, work.encode, work.characters, work.costly)


def answering(questions: list[Question], field: str, parameters: Parameters, served: Served) -> Answering:
    """Refusal where they cannot be answered so. `field` is what the questions are called in the request."""
    at_least_one(parameters.top_k, "parameters.top_k")
    at_least_one(parameters.max_answer_len, "parameters.max_answer_len")
    within_batch(len(questions), field, served)
    for position, one in enumerate(questions):
        for part in ("question", "context"):
            if not getattr(one, part):
                raise Refusal("unprocessable", f"{field}[{position}].{part}: is empty")
    limit = served.model.max_seqlen
    length = min(limit, WINDOW) if parameters.max_seq_len is None else parameters.max_seq_len
    if not 1 <= length <= limit:
        raise Refusal("unprocessable", f"parameters.max_seq_len: {length}, this model takes 1 to {limit} tokens")
    overlap = min(length // 2, OVERLAP) if parameters.doc_stride is None else parameters.doc_stride
    if not 0 <= overlap <= length:
        raise Refusal("unprocessable", f"parameters.doc_stride: {overlap}, expected 0 to {length}, the window's length")
    return Answering(questions, field, parameters, served, length, overlap)


class Answering:
    """One request: its windows, then its answers."""

    def __init__(
        self,
        questions: list[Question],
        field: str,
        parameters: Parameters,
        served: Served,
        length: int,
        overlap: int,
    ) -> None:
        self.characters = sum(len(one.question) + len(one.context) for one in questions)
        self.costly = self.characters > ON_LOOP_CHARACTERS
        """Whether finding the spans takes longer than others should wait."""
        self._questions = questions
        self._field = field
        self._parameters = parameters
        self._served = served
        self._length, self._overlap = length, overlap
        self._windows: list[list[Encoding]] = []
        """Per question."""

    def encode(self, encoder: TextEncoder) -> Tokens:
        most = self._served.limits.batch
        for position, one in enumerate(self._questions):
            try:
                windows = encoder.windows(
                    one.question, one.context, length=self._length, overlap=self._overlap, most=most
                )
            except ValueError as error:
                raise Refusal("unprocessable", f"{self._field}[{position}]: {error}") from None
            self._windows.append(windows)
        every = [window for windows in self._windows for window in windows]
        within_batch(len(every), self._field, self._served, "windows")
        return tokens_of(every)

    def found(self, answer: Answered) -> list[Any]:
        """Per question its answer, or a list where there are several or none."""
        logits = iter(numbers.matrices(answer))
        answers: list[Any] = []
        for one, windows in zip(self._questions, self._windows, strict=True):
            found = self._answers(one.context, [(window, next(logits)) for window in windows])
            answers.append(found[0] if len(found) == 1 else found)
        return answers

    def _answers(self, context: str, windows: list[tuple[Encoding, Floats]]) -> list[Span]:
        parameters = self._parameters
        # Widening to words makes some candidates one.
        most = parameters.top_k * 2 + 10 if parameters.align_to_words else parameters.top_k
        head = self._served.model.head
        cls = None if head is None else head.cls_id
        found: dict[str, Span] = {}
        nothing = 1_000_000.0
        for window, logits in windows:
            starts, ends, scores, null = spans(logits, possible(window, cls), most, parameters.max_answer_len)
            if parameters.handle_impossible_answer:
                nothing = min(nothing, null)
            for first, last, score in zip(starts, ends, scores, strict=True):
                start, end = characters_of(window, first, last, words=parameters.align_to_words)
                text = context[start:end]
                known = found.get(text.lower())
                if known is None:
                    found[text.lower()] = {"score": score, "start": start, "end": end, "answer": text}
                else:
                    known["score"] += score
        answers = list(found.values())
        if parameters.handle_impossible_answer:
            answers.append({"score": nothing, "start": 0, "end": 0, "answer": ""})
        return sorted(answers, key=lambda one: float(one["score"]), reverse=True)[: parameters.top_k]


def possible(window: Encoding, cls: int | None) -> npt.NDArray[np.bool_]:
    """[tokens]: those of the context, and [CLS]."""
    return np.array(
        [sequence == 1 or one == cls for sequence, one in zip(window.sequence_ids, window.ids, strict=True)], np.bool_
    )


def spans(
    logits: Floats, allowed: npt.NDArray[np.bool_], most: int, longest: int
) -> tuple[list[int], list[int], list[float], float]:
    """First tokens, last tokens and scores of the best spans of at most `longest` tokens, and the score of there being none."""
    start, end = (_shares(np.where(allowed, column, NEVER)) for column in logits.T)
    null = float(start[0] * end[0])
    start[0] = end[0] = 0.0
    products = np.tril(np.triu(np.outer(start, end)), min(longest, len(start)) - 1)
    flat = products.ravel()
    if most == 1:
        order = np.array([flat.argmax()])
    elif len(flat) <= most:
        order = np.argsort(-flat)
    else:
        order = np.argpartition(-flat, most)[:most]
        order = order[np.argsort(-flat[order])]
    firsts, lasts = np.unravel_index(order, products.shape)
    kept = allowed[firsts] & allowed[lasts]
    firsts, lasts = firsts[kept], lasts[kept]
    return firsts.tolist(), lasts.tolist(), products[firsts, lasts].tolist(), null


def _shares(logits: Doubles) -> Doubles:
    powers = np.exp(logits - logits.max())
    shares: Doubles = powers / powers.sum()
    return shares


def characters_of(window: Encoding, first: int, last: int, *, words: bool) -> tuple[int, int]:
    """The characters of the context that the tokens stand for, or the words that they lie in."""
    if words:
        begins, ends = window.token_to_word(first), window.token_to_word(last)
        if begins is not None and ends is not None:
            from_, to = window.word_to_chars(begins, 1), window.word_to_chars(ends, 1)
            if from_ is not None and to is not None:
                return int(from_[0]), int(to[1])
    return int(window.offsets[first][0]), int(window.offsets[last][1])
