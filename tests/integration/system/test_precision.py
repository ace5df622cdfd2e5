"""Does a running system compute in what was measured as best, say so per instance, and warn where a bar was overruled?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DATA = Path(__file__).parents[2] / "data" / "models"
TEXTS = ["wolves", "the ferry leaves at nine", "forty two foxes and a river " * 3]

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("tiny_models", DATA / "tiny_models.py")
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    return Path(tiny.write(tmp_path_factory.mktemp("models") / "tiny", tiny.CASES["bert-mean-normalised"]))


def test_auto_says_what_each_instance_computes_with_and_answers_like_fp32(start_system: Start, model: Path) -> None:
    exact = start_system("--model", str(model), "--instances", "2", "--precision", "fp32", runtime="exact")
    wanted = [exact.embed(text) for text in TEXTS]
    assert {(one.precision, one.engine) for one in exact.status().instances} == {("fp32", "onnxruntime")}
    exact.stop()
    system = start_system("--model", str(model), "--instances", "2", "--precision", "auto", runtime="auto")
    status = system.status()
    for one in status.instances:
        assert (one.precision, one.engine) in {
            ("fp32", "onnxruntime"), ("int8", "onnxruntime"), ("bf16", "openvino"), ("fp32", "openvino"),
        }  # fmt: skip
        assert any(reason.startswith(f"{one.precision} on {one.engine}: ") for reason in one.reasons)
        assert one.verified is not None
        assert one.verified.matches_plan, one.verified.notes
    assert status.model.precision == "+".join(dict.fromkeys(one.precision for one in status.instances))
    mixed = len({(one.precision, one.engine) for one in status.instances}) > 1
    assert mixed == any("slightly different answers" in warning for warning in status.warnings)
    for text, row in zip(TEXTS, wanted, strict=True):
        assert float(np.dot(system.embed(text), row)) > 0.99


def test_what_is_asked_for_by_name_is_served_under_the_bar_too_with_a_warning(start_system: Start, model: Path) -> None:
    system = start_system("--model", str(model), "--precision", "int8", "--min-cosine", "1")
    status = system.status()
    assert {one.precision for one in status.instances} == {"int8"}
    assert any("int8 on onnxruntime was asked for, but mean cosine" in warning for warning in status.warnings)


def test_what_cannot_be_had_by_name_ends_the_start_with_78_and_the_way_out(start_system: Start, model: Path) -> None:
    system = start_system("--model", str(model), "--precision", "int8", "--engine", "openvino", ready=False)
    assert system.process.wait(60) == 78
    assert "int8 runs on onnxruntime, bf16 on openvino" in system.said()
