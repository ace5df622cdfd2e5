"""What stands between a body and its answer in these tests? Gateway code, the real graph and the worker's engine, in one process."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from orchestrator.client.link import Answered, Part
from orchestrator.client.texts import TextEncoder, Tokens, pack
from orchestrator.gateway.apis import huggingface
from orchestrator.gateway.apis.call import Body, Call, Parse, Served
from orchestrator.gateway.spec import Limits
from orchestrator.models import Prepared, prepare
from workers.engines.onnxruntime import load
from workers.spec import WorkerSpec
from workers.wire import RequestId

DATA = Path(__file__).parents[2] / "data" / "tasks"


@pytest.fixture(scope="session")
def tiny_tasks() -> ModuleType:
    """tests/data/tasks/tiny_tasks.py"""
    spec = importlib.util.spec_from_file_location("tiny_tasks", DATA / "tiny_tasks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_tasks"] = module
    spec.loader.exec_module(module)
    return module


class Model:
    """A tiny model with its gateway and its worker's engine."""

    def __init__(self, prepared: Prepared, limits: Limits) -> None:
        self.prepared = prepared
        self.encoder = TextEncoder(prepared.tokenizer, prepared.status.max_seqlen)
        self.served = Served(prepared.status, limits, self.encoder.vocabulary)
        self.shapes: list[tuple[int, ...]] = []
        """Of the numbers that came back for each request."""
        self._engine = load(
            WorkerSpec(
                name="test", incarnation=1, cpus=[0], membind=[], nodes_on_machine=1, threads=1, endpoint="",
                max_seqlen=prepared.status.max_seqlen, warmup=[], artefact=prepared.artefact,
            )
        )  # fmt: skip

    def post(self, body: Any, parse: Parse = huggingface.predict) -> Any:
        """The answer to a body, as JSON. Refusal where it would be refused."""
        return json.loads(self.answer(parse(json.dumps(body).encode(), self.served)))  # type: ignore[arg-type]

    def answer(self, call: Call) -> Body:
        """The body of the answer. Refusal where it would be refused."""
        if call.tokens is not None:
            tokens = call.tokens
        elif call.texts is not None:
            tokens = self.encoder.encode(call.texts, cut=call.cut)
        elif call.encode is not None:
            tokens = call.encode(self.encoder)
        else:
            assert call.sequences is not None
            tokens = pack(call.sequences)
        return call.render(self._infer(tokens), tokens)

    def _infer(self, tokens: Tokens) -> Answered:
        lengths, artefact = tokens.lengths, self.prepared.artefact
        assert max(lengths) <= self.prepared.status.max_seqlen
        batch = np.full((len(lengths), max(lengths)), artefact.pad_id, np.int32)
        mask, types = np.zeros_like(batch), np.zeros_like(batch)
        flat, at = np.frombuffer(tokens.ids, np.int32), 0
        for row, length in enumerate(lengths):
            batch[row, :length] = flat[at : at + length]
            mask[row, :length] = 1
            if tokens.splits is not None and tokens.splits[row]:
                types[row, tokens.splits[row] : length] = 1
            at += length
        answers = self._engine.run(batch, mask, types if artefact.token_types else None)
        self.shapes.append(answers.shape)
        rows = [row[:length] if artefact.per_token else row for row, length in zip(answers, lengths, strict=True)]
        return Answered(
            RequestId(1),
            [memoryview(np.ascontiguousarray(row).tobytes()) for row in rows],
            artefact.width,
            artefact.per_token,
            [Part("test", (0, 0), len(lengths), 0, 0, 1)],
            None,
        )


@pytest.fixture(scope="session")
def model(tiny_tasks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    """`model(case, task=None)`: built once per session."""
    made: dict[tuple[str, str | None], Model] = {}
    home = tmp_path_factory.mktemp("tasks")

    def of(name: str, task: str | None = None, limits: Limits | None = None) -> Model:
        key = (name, task)
        if key not in made or limits is not None:
            directory = tiny_tasks.write(home / name, name)
            found = Model(prepare(str(directory), task=task, cache=home / "cache"), limits or Limits())
            if limits is not None:
                return found
            made[key] = found
        return made[key]

    return of
