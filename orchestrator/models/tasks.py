"""Which task is a model for, and what do its labels mean? Pure.

The class that config.json names decides (`…ForSequenceClassification`), as in transformers. A classifier with a single label whose task
nobody named gives a relevance: it is a cross-encoder for reranking, as text-embeddings-inference takes it.
"""

from __future__ import annotations

from typing import Any, Literal, NoReturn

import msgspec

from orchestrator.models.build.heads import Kind
from orchestrator.models.documents import convert
from orchestrator.models.errors import ModelError
from orchestrator.status import HeadStatus

Task = Literal[
    "feature-extraction", "sentence-embedding", "text-classification", "token-classification", "reranking", "fill-mask",
    "question-answering", "zero-shot-classification", "image-classification",
]  # fmt: skip
"""feature-extraction: one row per token. sentence-embedding: one row per text. The others have a head behind the encoder."""

TASKS: tuple[Task, ...] = (
    "feature-extraction", "sentence-embedding", "text-classification", "token-classification", "reranking", "fill-mask",
    "question-answering", "zero-shot-classification", "image-classification",
)  # fmt: skip

ALIASES: dict[str, Task] = {
    "sentiment-analysis": "text-classification",
    "ner": "token-classification",
    "text-ranking": "reranking",
    "rerank": "reranking",
    "sentence-similarity": "sentence-embedding",
    "embeddings": "sentence-embedding",
    "zero-shot": "zero-shot-classification",
}
"""Other names of the ecosystem for the same tasks."""

KINDS: dict[Task, Kind] = {
    "text-classification": "text",
    "zero-shot-classification": "text",
    "reranking": "text",
    "token-classification": "token",
    "question-answering": "span",
    "fill-mask": "mask",
    "image-classification": "text",
}
"""The head that a task needs; a task that is not here needs none."""

_CLASSES: dict[str, Task] = {
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
    "MaskedLM": "fill-mask",
    "ImageClassification": "image-classification",
}
"""What follows `For` in the name of a class of transformers."""

MOST_LABELS = 1 << 16


class LabelConfig(msgspec.Struct, frozen=True):
    """The fields of config.json about labels."""

    id2label: dict[str, str] | None = None
    label2id: dict[str, int] | None = None
    num_labels: int | None = None
    problem_type: Literal["regression", "single_label_classification", "multi_label_classification"] | None = None


def choose_task(
    task: str | None, document: dict[str, Any], has_modules: bool, where: str, hint: str | None = None
) -> Task:
    """The task asked for, or else the one that the directory is made for. ModelError where that is none of TASKS.

    `hint` is what the model card claims. It counts where the class of the model says nothing, and where there is a class (which then
    has no head) only if the task needs none. A claim that is no task here is none.
    """
    if task is not None:
        asked = _named(task)
        if asked is not None:
            return asked
        raise ModelError(
            f"unknown task {task!r}",
            where=where,
            why=f"supported: {', '.join(TASKS)}",
            remedy="choose one of these, or leave --task out",
        )
    if has_modules:
        return "sentence-embedding"
    heads = document.get("architectures")
    for head in heads if isinstance(heads, list) else []:
        after = head.partition("For")[2] if isinstance(head, str) else ""
        if after in ("", "PreTraining"):
            continue
        found = _CLASSES.get(after)
        if found is None:
            raise ModelError(
                "this model's own task is not supported",
                where=where,
                why=f"it is a {head}, supported tasks are {', '.join(TASKS)}",
                remedy="pass --task feature-extraction to serve its encoder without its head",
            )
        if found == "text-classification" and _is_reranker(document, where):
            return "reranking"
        return found
    claimed = None if hint is None else _named(hint)
    if claimed is not None and (not heads or claimed not in KINDS):
        return claimed
    return "feature-extraction"


def _named(name: str) -> Task | None:
    """By its own name or another of the ecosystem."""
    name = ALIASES.get(name, name)
    return next((task for task in TASKS if task == name), None)


def _is_reranker(document: dict[str, Any], where: str) -> bool:
    config = _config(document, where)
    return len(_labels(config, where)) == 1 and config.problem_type is None


def read_head(document: dict[str, Any], task: Task, where: str) -> HeadStatus:
    """Labels and what makes probabilities of their scores. ModelError names the label that is missing."""
    if task == "question-answering":
        return HeadStatus()
    if task == "fill-mask":
        return HeadStatus(activation="softmax")
    config = _config(document, where)
    labels = _labels(config, where)
    if task == "token-classification":
        return HeadStatus(labels=labels, activation="softmax")
    if task == "reranking" and len(labels) != 1:
        raise ModelError(
            "this model is no cross-encoder",
            where=where,
            why=f"reranking needs a single label, it has {len(labels)}: {', '.join(labels[:5])}",
            remedy="pass --task text-classification, or name a model that gives one score for a pair of texts",
        )
    entailment = _entailment(config, labels)
    if task == "zero-shot-classification" and (entailment is None or len(labels) < 2):
        raise ModelError(
            "this model cannot classify without training",
            where=where,
            why=f"none of its labels says entailment: {', '.join(labels[:5])}",
            remedy="name a model trained on natural language inference",
        )
    return HeadStatus(labels=labels, activation=_activation(config, len(labels)), entailment=entailment)


def _activation(config: LabelConfig, labels: int) -> Literal["softmax", "sigmoid", "none"]:
    """As the text-classification pipeline of transformers chooses it."""
    if config.problem_type == "regression":
        return "none"
    if config.problem_type == "multi_label_classification" or labels == 1:
        return "sigmoid"
    return "softmax"


def _config(document: dict[str, Any], where: str) -> LabelConfig:
    return convert(document, LabelConfig, where, "the labels of the model")


def _labels(config: LabelConfig, where: str) -> list[str]:
    """By id. Without a map they are LABEL_0 and so on, two unless `num_labels` says otherwise, as in transformers."""
    if config.id2label is None:
        count = 2 if config.num_labels is None else config.num_labels
        if not 1 <= count <= MOST_LABELS:
            _refuse(where, f"num_labels is {count}, at least 1 and at most {MOST_LABELS} are possible")
        return [f"LABEL_{number}" for number in range(count)]
    named: dict[int, str] = {}
    for key, label in config.id2label.items():
        if not (key.isascii() and key.isdigit()):
            _refuse(where, f"id2label has the key {key[:40]!r}, expected the numbers of the labels from 0 on")
        named[int(key)] = label
    if not named:
        _refuse(where, "id2label is empty")
    missing = sorted(set(range(min(max(named) + 1, MOST_LABELS))) - set(named))
    if missing or len(named) != len(config.id2label) or max(named) >= MOST_LABELS:
        holes = ", ".join(map(str, missing[:10])) or "none below the largest"
        _refuse(where, f"id2label names {len(config.id2label)} labels up to number {max(named)}; missing: {holes}")
    if config.num_labels is not None and config.num_labels != len(named):
        _refuse(where, f"num_labels is {config.num_labels}, id2label names {len(named)} labels")
    return [named[number] for number in range(len(named))]


def _entailment(config: LabelConfig, labels: list[str]) -> int | None:
    """The label that begins with `entail`, as the zero-shot pipeline of transformers finds it: in label2id, else in id2label."""
    for label, number in (config.label2id or {}).items():
        if label.lower().startswith("entail") and 0 <= number < len(labels):
            return number
    return next((number for number, label in enumerate(labels) if label.lower().startswith("entail")), None)


def _refuse(where: str, why: str) -> NoReturn:
    raise ModelError(
        "cannot use the labels of this model",
        where=where,
        why=why,
        remedy="mend the file, or download the model again; --task feature-extraction serves the encoder without its head",
    )
