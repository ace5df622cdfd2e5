"""Does a whole system serve a model with a task head, over every protocol of its task?"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.gateway.tasks.answering import ON_LOOP_CHARACTERS

DATA = Path(__file__).parents[2] / "data" / "tasks"


@pytest.fixture(scope="module")
def tiny_tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_tasks", DATA / "tiny_tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((DATA / "reference.json").read_text(encoding="utf-8"))
    return stored


def test_a_cross_encoder_ranks_over_both_protocols(
    start_system: Callable[..., Any], tiny_tasks: ModuleType, reference: dict[str, Any], tmp_path: Path
) -> None:
    directory = tiny_tasks.write(tmp_path / "model", "bert-relevance")
    system = start_system("--model", str(directory), "--instances", "2", "--precision", "fp32", "--answer-cache", "4")
    question = next(one for one in reference.values() if one["request"]["inputs"] == tiny_tasks.CLASSIFY[7]["inputs"])
    key = next(
        key
        for key, one in reference.items()
        if key.startswith("bert-relevance/") and one["request"] == question["request"]
    )
    pair, score = reference[key]["request"]["inputs"], reference[key]["answer"]["score"]

    status, headers, ranks = system.post("/rerank", {"query": pair["text"], "texts": ["rain", pair["text_pair"]]})
    assert status == 200, ranks
    assert "x-compute-time" in headers
    assert {one["index"]: one["score"] for one in ranks}[1] == pytest.approx(score, abs=1e-4)

    status, _, body = system.post(
        "/v1/rerank", {"query": pair["text"], "documents": ["rain", pair["text_pair"]], "top_n": 1}
    )
    assert (status, body["results"][0]["index"]) == (200, ranks[0]["index"])
    assert body["results"][0]["relevance_score"] == pytest.approx(ranks[0]["score"], abs=1e-6)

    status, _, refused = system.post("/embed", {"inputs": "rain"})
    assert status == 422
    assert "reranking" in refused["error"]
    assert system.status().model.task == "reranking"
    counted = system.get("/metrics")[1].decode()
    assert "orchestrator_gateway_answer_cache_hits_total" in counted


def test_task_on_the_command_line_goes_before_what_the_model_says(
    start_system: Callable[..., Any], tiny_tasks: ModuleType, reference: dict[str, Any], tmp_path: Path
) -> None:
    directory = tiny_tasks.write(tmp_path / "model", "bert-entailment")
    system = start_system(
        "--model", str(directory), "--instances", "1", "--precision", "fp32", "--task", "zero-shot-classification"
    )
    key = next(
        key
        for key, one in reference.items()
        if key.startswith("bert-entailment/") and "candidate_labels" in one["request"].get("parameters", {})
    )
    status, _, answer = system.post("/predict", reference[key]["request"])
    assert status == 200, answer
    expected = reference[key]["answer"]
    assert answer["labels"] == expected["labels"]
    assert answer["scores"] == pytest.approx(expected["scores"], abs=1e-4)


def test_masked_words_and_entities_come_through_the_whole_system(
    start_system: Callable[..., Any], tiny_tasks: ModuleType, reference: dict[str, Any], tmp_path: Path
) -> None:
    for name, number in (("roberta-mask", 3), ("bert-entities", 6)):
        directory = tiny_tasks.write(tmp_path / name, name)
        system = start_system("--model", str(directory), "--instances", "1", "--precision", "fp32", runtime=name)
        stored = reference[f"{name}/{number}"]
        status, _, answer = system.post("/", stored["request"])
        assert status == 200, answer
        ours, theirs = (list(leaves(one)) for one in (answer, stored["answer"]))
        assert [one for one in ours if not isinstance(one, float)] == [
            one for one in theirs if not isinstance(one, float)
        ]
        assert [one for one in ours if isinstance(one, float)] == pytest.approx(
            [one for one in theirs if isinstance(one, float)], abs=1e-4
        )
        assert system.stop() == 0


def test_a_long_context_is_answered_from_its_windows_beside_the_event_loop(
    start_system: Callable[..., Any], tiny_tasks: ModuleType, tmp_path: Path
) -> None:
    directory = tiny_tasks.write(tmp_path / "model", "bert-answers")
    system = start_system("--model", str(directory), "--instances", "2", "--precision", "fp32", "--join")
    context = tiny_tasks.CONTEXT * 12
    assert len(context) > ON_LOOP_CHARACTERS
    asked = {"inputs": {"question": "Who met him?", "context": context}, "parameters": {"top_k": 3}}
    status, headers, answers = system.post("/predict", asked)
    assert status == 200, answers
    assert len(answers) == 3
    assert all(context[one["start"] : one["end"]] == one["answer"] for one in answers)
    assert answers == sorted(answers, key=lambda one: one["score"], reverse=True)
    assert headers["x-compute-time"]
    status, _, refused = system.post("/predict", {"inputs": {"question": "Who?", "context": context * 60}})
    assert status == 413
    assert "the limit is 256" in refused["error"]


def leaves(value: Any) -> Any:
    if isinstance(value, dict):
        for key in sorted(value):
            yield key
            yield from leaves(value[key])
    elif isinstance(value, list):
        for one in value:
            yield from leaves(one)
    else:
        yield value
