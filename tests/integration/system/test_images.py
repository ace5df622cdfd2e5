"""Does a whole system serve a model of images?"""

from __future__ import annotations

import base64
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[2] / "data" / "images"


def test_a_vit_answers_as_the_pipeline_and_has_no_tokenizer(start_system: Callable[..., Any], tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("tiny_images", DATA / "tiny_images.py")
    assert spec is not None
    assert spec.loader is not None
    tiny_images = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny_images)
    kept = json.loads((DATA / "reference.json").read_text(encoding="utf-8"))
    system = start_system("--model", str(tiny_images.write(tmp_path / "model", "classes")), "--instances", "2")

    files = ["photo.jpg", "odd.png", "grey.png"]
    status, headers, answers = system.post("/predict", {"inputs": [kept["images"][file] for file in files]})
    assert status == 200, answers
    assert "x-compute-time" in headers
    for file, got in zip(files, answers, strict=True):
        expected = kept["answers"]["classes"][file][:5]
        assert [one["label"] for one in got] == [one["label"] for one in expected]
        assert [one["score"] for one in got] == pytest.approx([one["score"] for one in expected], abs=1e-4)

    status, _, refused = system.post("/predict", {"inputs": base64.b64encode(b"no image").decode()})
    assert (status, refused["error_type"]) == (422, "unprocessable")
    for path in ("/tokenize", "/embed"):
        status, _, refused = system.post(path, {"inputs": "rain"})
        assert status == 422
        assert "image-classification" in refused["error"]
