"""Which task does a configuration ask for, and is its label map whole?"""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.models.build import bert, heads
from orchestrator.models.errors import ModelError
from orchestrator.models.tasks import ALIASES, KINDS, TASKS, choose_task, read_head
from orchestrator.models.weights import check

WHERE = "somewhere/config.json"


@pytest.mark.parametrize(
    ("document", "task"),
    [
        ({"architectures": ["BertModel"]}, "feature-extraction"),
        ({"architectures": ["BertForPreTraining"]}, "feature-extraction"),
        ({}, "feature-extraction"),
        ({"architectures": ["BertForMaskedLM"]}, "fill-mask"),
        ({"architectures": ["BertForTokenClassification"]}, "token-classification"),
        ({"architectures": ["BertForQuestionAnswering"]}, "question-answering"),
        ({"architectures": ["BertForSequenceClassification"]}, "text-classification"),
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 1}, "reranking"),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}, "reranking"),
        (
            {
                "architectures": ["BertForSequenceClassification"],
                "id2label": {"0": "stars"},
                "problem_type": "regression",
            },
            "text-classification",
        ),
    ],
)
def test_the_class_of_the_model_decides_the_task(document: dict[str, Any], task: str) -> None:
    assert choose_task(None, document, False, WHERE) == task


def test_modules_of_sentence_transformers_go_before_the_class_and_the_user_before_both() -> None:
    document = {"architectures": ["BertForMaskedLM"]}
    assert choose_task(None, document, True, WHERE) == "sentence-embedding"
    assert choose_task("feature-extraction", document, True, WHERE) == "feature-extraction"
    for alias, task in ALIASES.items():
        assert choose_task(alias, document, True, WHERE) == task


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"id2label": {"0": "a", "2": "c"}}, "missing: 1"),
        ({"id2label": {"1": "a", "2": "b"}}, "missing: 0"),
        ({"id2label": {"0": "a", "00": "b"}}, "missing: none"),
        ({"id2label": {"0": "a", "9999999999": "b"}}, "up to number 9999999999"),
        ({"id2label": {"zero": "a"}}, "key 'zero'"),
        ({"id2label": {"-1": "a"}}, "key '-1'"),
        ({"id2label": {}}, "id2label is empty"),
        ({"id2label": {"0": 5}}, "id2label"),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, "num_labels is 3, id2label names 2"),
        ({"num_labels": 0}, "num_labels is 0"),
        ({"problem_type": "guessing"}, "problem_type"),
    ],
)
def test_a_label_map_with_holes_is_refused_with_what_is_missing(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError) as raised:
        read_head(document, "text-classification", WHERE)
    assert words in str(raised.value), raised.value
    assert WHERE in str(raised.value)


@pytest.mark.parametrize(
    ("document", "labels", "activation"),
    [
        ({}, ["LABEL_0", "LABEL_1"], "softmax"),
        ({"num_labels": 1}, ["LABEL_0"], "sigmoid"),
        ({"id2label": {"1": "b", "0": "a", "10": "k", **{str(n): str(n) for n in range(2, 10)}}}, None, "softmax"),
        ({"num_labels": 1, "problem_type": "regression"}, ["LABEL_0"], "none"),
        ({"problem_type": "multi_label_classification"}, ["LABEL_0", "LABEL_1"], "sigmoid"),
        ({"problem_type": "single_label_classification"}, ["LABEL_0", "LABEL_1"], "softmax"),
    ],
)
def test_labels_stand_in_the_order_of_their_numbers_with_the_activation_of_the_pipeline(
    document: dict[str, Any], labels: list[str] | None, activation: str
) -> None:
    head = read_head(document, "text-classification", WHERE)
    assert head.labels == (labels or ["a", "b", *map(str, range(2, 10)), "k"])
    assert head.activation == activation


def test_the_label_of_entailment_is_found_as_the_pipeline_finds_it() -> None:
    names = {"0": "contradiction", "1": "neutral", "2": "Entailment"}
    assert read_head({"id2label": names}, "text-classification", WHERE).entailment == 2
    said = {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "ENTAILS": 1}}
    assert read_head(said, "zero-shot-classification", WHERE).entailment == 1
    with pytest.raises(ModelError, match="none of its labels says entailment: LABEL_0, LABEL_1"):
        read_head({}, "zero-shot-classification", WHERE)


def test_a_ranker_has_one_label() -> None:
    with pytest.raises(ModelError, match="reranking needs a single label, it has 2"):
        read_head({}, "reranking", WHERE)


def test_every_task_with_a_head_has_one_for_every_architecture_that_is_said_to_have_heads() -> None:
    document = {
        "model_type": "bert", "vocab_size": 60, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 12,
    }  # fmt: skip
    encoder = bert.describe(document, WHERE)
    for task in TASKS:
        if task in KINDS:
            assert heads.describe(document, encoder, KINDS[task], 3, WHERE).kind == KINDS[task]


class Stored:
    """A checkpoint of shapes only."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = shapes

    def names(self) -> list[str]:
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._shapes.get(name)

    def read(self, name: str) -> Any:
        raise AssertionError(f"{name} must not be read before the shapes are right")

    def where(self, name: str) -> str:
        return "model.safetensors"


def test_a_head_that_does_not_fit_the_labels_is_refused_by_the_name_of_its_tensor() -> None:
    document = {
        "model_type": "bert", "vocab_size": 60, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 12,
    }  # fmt: skip
    encoder = bert.describe(document, WHERE)
    head = heads.describe(document, encoder, "text", 3, WHERE)
    shapes = {
        **encoder.tensors(),
        "pooler.dense.weight": (8, 8),
        "pooler.dense.bias": (8,),
        "classifier.weight": (2, 8),
    }
    weights = Stored(shapes)
    with pytest.raises(ModelError) as raised:
        check(weights, encoder.tensors() | head.tensors(weights), encoder.layer_prefix, 1)
    assert "tensor classifier.weight has shape [2, 8], config.json asks for [3, 8]" in str(raised.value)
    assert "tensor classifier.bias [3] is missing" in str(raised.value)
