"""What does a model card say of the task, and what of it is believed?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.models.card import CARD, LARGEST_HEADER, card_task
from orchestrator.models.tasks import Task, choose_task


@pytest.mark.parametrize(
    ("card", "task"),
    [
        ("---\nlanguage: en\npipeline_tag: fill-mask\n---\n# A model\n", "fill-mask"),
        ("---\r\npipeline_tag: 'sentence-similarity'\r\n---\r\n", "sentence-similarity"),
        ('\ufeff---\npipeline_tag: "text-ranking"  # of pairs\n---\n', "text-ranking"),
        ("---\nlicense: mit\n---\npipeline_tag: fill-mask\n---\n", None),  # beneath the header
        ("---\nwidget:\n  pipeline_tag: fill-mask\n---\n", None),  # of something else
        ("# A model\n---\npipeline_tag: fill-mask\n---\n", None),
        ("---\npipeline_tag: fill-mask\n", None),  # a header without an end
        ("---\npipeline_tag: text-generation\n---\n", "text-generation"),
        ("---\npipeline_tag:\n---\n", None),
        ("---\npipeline_tag: [fill-mask]\n---\n", None),
        ("", None),
        ("---", None),
    ],
)
def test_the_tag_counts_where_it_stands_in_the_header_and_is_a_name(
    tmp_path: Path, card: str, task: str | None
) -> None:
    (tmp_path / CARD).write_bytes(card.encode())
    assert card_task(tmp_path) == task


def test_a_card_that_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    assert card_task(tmp_path) is None
    (tmp_path / CARD).mkdir()
    assert card_task(tmp_path) is None
    (tmp_path / CARD).rmdir()
    (tmp_path / CARD).write_bytes(b"---\nauthor: \xff\xfe\npipeline_tag: fill-mask\n---\n")
    assert card_task(tmp_path) == "fill-mask"
    (tmp_path / CARD).write_bytes(b"---\n" + b"a: b\n" * LARGEST_HEADER + b"pipeline_tag: fill-mask\n---\n")
    assert card_task(tmp_path) is None


@pytest.mark.parametrize(
    ("document", "hint", "task"),
    [
        ({}, "text-classification", "text-classification"),
        ({"architectures": []}, "fill-mask", "fill-mask"),
        ({}, "text-ranking", "reranking"),
        ({}, "text-generation", "feature-extraction"),
        ({"architectures": ["BertModel"]}, "sentence-similarity", "sentence-embedding"),
        ({"architectures": ["BertForPreTraining"]}, "sentence-embedding", "sentence-embedding"),
        ({"architectures": ["BertModel"]}, "text-classification", "feature-extraction"),  # there is no head
        ({"architectures": ["BertForMaskedLM"]}, "sentence-embedding", "fill-mask"),
    ],
)
def test_the_class_of_the_model_goes_before_its_card(document: dict[str, Any], hint: str, task: Task) -> None:
    assert choose_task(None, document, False, "config.json", hint) == task
    assert choose_task("feature-extraction", document, False, "config.json", hint) == "feature-extraction"
    assert choose_task(None, document, True, "config.json", hint) == "sentence-embedding"
