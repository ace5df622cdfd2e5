"""Where do these tests get their models, and the session that runs them as a worker does?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from orchestrator.models import Prepared, prepare
from workers.engines.onnxruntime import load
from workers.spec import WorkerSpec

DATA = Path(__file__).parents[2] / "data" / "models"

Rows = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Token ids of texts → their rows, computed as one padded batch."""


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/data/models/tiny_models.py"""
    spec = importlib.util.spec_from_file_location("tiny_models", DATA / "tiny_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The embedded default, built once for all tests."""
    return prepare(None, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def session() -> Callable[[Prepared], Rows]:
    """Runs an artefact with the worker's own engine, on one thread."""

    def of(prepared: Prepared) -> Rows:
        engine = load(
            WorkerSpec(
                name="test", incarnation=1, cpus=[0], membind=[], nodes_on_machine=1, threads=1, endpoint="",
                max_seqlen=prepared.status.max_seqlen, warmup=[], artefact=prepared.artefact,
            )
        )  # fmt: skip

        def rows(ids: list[np.ndarray]) -> list[np.ndarray]:
            batch = np.full((len(ids), max(len(one) for one in ids)), prepared.artefact.pad_id, np.int32)
            mask = np.zeros_like(batch)
            for row, one in enumerate(ids):
                batch[row, : len(one)] = one
                mask[row, : len(one)] = 1
            answers = engine.run(batch, mask, None)
            if prepared.artefact.per_token:
                return [answer[: len(one)] for answer, one in zip(answers, ids, strict=True)]
            return list(answers)

        return rows

    return of
