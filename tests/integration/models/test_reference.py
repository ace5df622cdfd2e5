"""Are the answers those of sentence-transformers and transformers?

The stored vectors were made by tests/data/models/make_reference.py, which says how; no torch is needed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from orchestrator.models import Prepared, prepare

DATA = Path(__file__).parents[2] / "data" / "models"
CASES = [
    "bert", "bert-gelu-new", "bert-relu", "distilbert", "bert-mean-normalised", "bert-cls", "bert-max", "bert-last",
    "bert-root", "bert-concatenated", "distilbert-mean",
]  # fmt: skip


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, Any], np.ndarray]:
    document = json.loads((DATA / "minilm.json").read_text(encoding="utf-8"))
    return document, np.load(DATA / "minilm.npz")["rows"]


@pytest.fixture(scope="module")
def ids(minilm: Prepared, reference: tuple[dict[str, Any], np.ndarray]) -> list[np.ndarray]:
    """The reference texts, cut at the model's own limit as sentence-transformers cuts them."""
    tokenizer = Tokenizer.from_file(minilm.tokenizer)
    whole = [len(tokenizer.encode(text).ids) for text in reference[0]["texts"]]
    assert whole == reference[0]["tokens_before_truncation"]
    tokenizer.enable_truncation(minilm.status.max_seqlen)
    return [np.array(tokenizer.encode(text).ids, np.int32) for text in reference[0]["texts"]]


def test_the_limit_of_minilm_is_that_of_sentence_transformers(
    minilm: Prepared, reference: tuple[dict[str, Any], np.ndarray]
) -> None:
    assert minilm.status.max_seqlen == reference[0]["max_seqlen"] == 256
    assert minilm.artefact.positions == 512
    assert minilm.special_tokens == 2


def test_every_embedding_of_minilm_agrees_with_sentence_transformers(
    minilm: Prepared, session: Callable[..., Any], reference: tuple[dict[str, Any], np.ndarray], ids: list[np.ndarray]
) -> None:
    rows = session(minilm)
    for text, one, expected in zip(reference[0]["texts"], ids, reference[1], strict=True):
        answer = rows([one])[0]
        assert cosine(answer, expected) >= 0.999999, text[:40]
        assert np.abs(answer - expected).max() < 1e-5, text[:40]


def test_a_ragged_batch_of_minilm_gives_what_each_text_gives_alone(
    minilm: Prepared, session: Callable[..., Any], reference: tuple[dict[str, Any], np.ndarray], ids: list[np.ndarray]
) -> None:
    together = session(minilm)(ids)
    for text, row, expected in zip(reference[0]["texts"], together, reference[1], strict=True):
        assert np.abs(row - expected).max() < 1e-5, text[:40]


def test_different_texts_of_the_reference_have_different_answers(
    reference: tuple[dict[str, Any], np.ndarray], ids: list[np.ndarray]
) -> None:
    """The comparison above could not fail if the reference were a constant."""
    rows = reference[1]
    alike = {(a, b) for a in range(len(rows)) for b in range(a) if cosine(rows[a], rows[b]) > 0.999}
    assert alike == {(a, b) for a in range(len(ids)) for b in range(a) if np.array_equal(ids[a], ids[b])}


@pytest.mark.parametrize("name", CASES)
def test_tiny_models_agree_with_transformers_alone_and_in_a_ragged_batch(
    tiny: ModuleType, tmp_path: Path, session: Callable[..., Any], name: str
) -> None:
    stored = np.load(DATA / "tiny.npz")
    prepared = prepare(str(tiny.write(tmp_path / name, tiny.CASES[name])), cache=tmp_path / "cache")
    tokenizer = Tokenizer.from_file(prepared.tokenizer)
    ids = [np.array(tokenizer.encode(text).ids, np.int32) for text in tiny.TEXTS]
    rows = session(prepared)
    together = rows(ids)
    for number, one in enumerate(ids):
        expected = stored[f"{name}/{number}"]
        assert len(one) <= prepared.status.max_seqlen
        assert np.array_equal(one, stored[f"ids/{number}"])
        assert together[number].shape == expected.shape
        assert np.abs(rows([one])[0] - expected).max() < 1e-5
        assert np.abs(together[number] - expected).max() < 1e-5


def test_every_case_of_the_reference_is_compared(tiny: ModuleType) -> None:
    assert list(tiny.CASES) == CASES
    assert {name.split("/")[0] for name in np.load(DATA / "tiny.npz").files} == {*CASES, "ids"}
