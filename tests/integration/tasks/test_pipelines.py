"""Are the answers those of transformers.pipeline?

The stored answers were made by tests/data/tasks/make_reference.py, which says how; no torch is needed here.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.gateway import openapi
from orchestrator.gateway.apis import huggingface
from orchestrator.gateway.openapi import Operation, Says

check: Any = runpy.run_path(str(Path(__file__).parents[2] / "support" / "schemas.py"))["check"]
REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "tasks" / "reference.json").read_text(encoding="utf-8"))
LARGEST_DIFFERENCE = 1e-4


def same(ours: Any, theirs: Any, at: str) -> None:
    """Labels, words, offsets and order equal; scores within LARGEST_DIFFERENCE."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), at
        for key, value in theirs.items():
            same(ours[key], value, f"{at}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), at
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            same(one, other, f"{at}[{number}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=LARGEST_DIFFERENCE), at
    else:
        assert ours == theirs, at


@pytest.mark.parametrize("key", REFERENCE)
def test_the_answer_is_that_of_the_pipeline(model: Callable[..., Any], key: str) -> None:
    stored = REFERENCE[key]
    ours = model(key.split("/")[0]).post(stored["request"])
    same(ours, stored["answer"], key)


@pytest.mark.parametrize("key", REFERENCE)
def test_request_and_answer_are_of_the_types_that_openapi_tells(model: Callable[..., Any], key: str) -> None:
    served = model(key.split("/")[0]).served
    kind = huggingface.KINDS[served.model.task]
    says = Says("", kind.answer, kind.body)
    document = json.loads(openapi.document([Operation("POST", "/predict", says, True, False)], served, keyed=False))
    operation, components = document["paths"]["/predict"]["post"], document["components"]["schemas"]
    body = {name: value for name, value in REFERENCE[key]["request"].items() if name != "pipeline"}
    check(body, operation["requestBody"]["content"]["application/json"]["schema"], components)
    answer = model(key.split("/")[0]).post(body)
    check(answer, operation["responses"]["200"]["content"]["application/json"]["schema"], components)


def test_every_request_has_a_stored_answer(tiny_tasks: ModuleType) -> None:
    asked = {f"{name}/{number}" for name in tiny_tasks.CASES for number in range(len(tiny_tasks.requests(name)))}
    assert set(REFERENCE) == asked


def test_the_stored_answers_differ_from_one_another() -> None:
    """The comparison above could not fail if the models answered everything alike."""
    scores = [one["answer"] for one in REFERENCE.values()]
    assert len({json.dumps(answer) for answer in scores}) > 0.9 * len(scores)
