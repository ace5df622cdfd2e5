"""Is a warm start quick, and is the graph that is built at least as fast as the plain one that an export gives?

Ratios are of medians of the thread's CPU time, taken in turns in one process on one thread: what others do on a busy machine counts for
neither side. Differences under 8 % are ties.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from orchestrator.models import Prepared, prepare
from orchestrator.models.build import OPSET
from orchestrator.models.build.encoder import Encoder, Linear, Norm
from orchestrator.models.directory import weight_files
from orchestrator.models.resolve import Directory, resolve
from orchestrator.models.settings import read_settings
from orchestrator.models.weights import Checkpoint, Weights
from workers.engines.onnxruntime import load
from workers.spec import WorkerSpec

SHAPES = [(1, 16), (1, 128), (1, 384), (8, 16)]
TIE = 1.08
TURNS = 25
WARM_START_SECONDS = 0.3

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def minilm(cache: Path) -> Prepared:
    return prepare(None, cache=cache)


def built(prepared: Prepared) -> Run:
    """As a worker loads it."""
    engine = load(
        WorkerSpec(
            name="bench", incarnation=1, cpus=[0], membind=[], nodes_on_machine=1, threads=1, endpoint="",
            max_seqlen=512, warmup=[], artefact=prepared.artefact,
        )
    )  # fmt: skip
    return lambda ids, mask: engine.run(ids, mask, None)


def plain(folder: Path) -> Run:
    """The same model in standard operators, node for node as torch exports it, at the engine's own best optimisation."""
    source = resolve(None)
    assert isinstance(source, Directory)
    settings = read_settings(source.root, "feature-extraction")
    graph = PlainGraph(settings.encoder, Checkpoint(weight_files(source.root)))
    onnx.save(graph.model(), folder / "plain.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / "plain.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: np.asarray(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])


class PlainGraph:
    """BERT as an export writes it: MatMul and Add, Reshape, Transpose, Softmax, Erf; then mean and normalisation."""

    def __init__(self, encoder: Encoder, weights: Weights) -> None:
        self._encoder = encoder
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> Any:
        graph = helper.make_graph(
            [],
            "plain",
            [
                helper.make_tensor_value_info(name, TensorProto.INT32, ["b", "l"])
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", self._encoder.width])],
        )
        self._emit()
        graph.node.extend(self._nodes)
        graph.initializer.extend(self._constants)
        return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", OPSET)])

    def _emit(self) -> None:
        encoder = self._encoder
        length = self("Gather", self("Shape", "input_ids"), self._ints(1), axis=0)
        places = self("Range", self._ints(0), length, self._ints(1))
        types = self._constant(self._weights.read(str(encoder.types))[0])
        value = self("Add", self("Gather", self._read(encoder.words), "input_ids"), types)
        value = self("Add", value, self("Gather", self._read(encoder.places), places))
        value = self._norm(encoder.embedded_norm, value)
        mask = self("Cast", "attention_mask", to=1)
        hidden = self("Sub", self._constant(np.float32(1)), self("Unsqueeze", mask, self._ints([1, 2])))
        bias = self("Mul", hidden, self._constant(np.finfo(np.float32).min))
        for layer in encoder.layers:
            query, key, content = (self._heads(one, value) for one in (layer.query, layer.key, layer.value))
            root = self._constant(np.float32(np.sqrt(encoder.width / encoder.heads)))
            scores = self("Div", self("MatMul", query, self("Transpose", key, perm=[0, 1, 3, 2])), root)
            shares = self("Softmax", self("Add", scores, bias), axis=-1)
            mixed = self("Transpose", self("MatMul", shares, content), perm=[0, 2, 1, 3])
            mixed = self("Reshape", mixed, self._ints([0, 0, encoder.width]))
            value = self._norm(layer.attended_norm, self("Add", self._linear(layer.attended, mixed), value))
            inner = self._linear(layer.up, value)
            erf = self("Erf", self("Div", inner, self._constant(np.float32(np.sqrt(2)))))
            half = self("Mul", inner, self("Add", erf, self._constant(np.float32(1))))
            inner = self("Mul", half, self._constant(np.float32(0.5)))
            value = self._norm(layer.norm, self("Add", self._linear(layer.down, inner), value))
        column = self("Unsqueeze", mask, self._ints([-1]))
        total = self("ReduceSum", self("Mul", value, column), self._ints([1]), keepdims=0)
        mean = self("Div", total, self("ReduceSum", column, self._ints([1]), keepdims=0))
        self("Div", mean, self("ReduceL2", mean, self._ints([-1])), output="embedding")

    def __call__(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def _constant(self, value: Any) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _ints(self, value: Any) -> str:
        return self._constant(np.asarray(value, np.int64))

    def _read(self, name: str) -> str:
        return self._constant(self._weights.read(name))

    def _linear(self, linear: Linear, value: str) -> str:
        matrix = self._constant(np.ascontiguousarray(self._weights.read(f"{linear.name}.weight").T))
        return self("Add", self("MatMul", value, matrix), self._read(f"{linear.name}.bias"))

    def _heads(self, linear: Linear, value: str) -> str:
        shape = self._ints([0, 0, self._encoder.heads, self._encoder.width // self._encoder.heads])
        return self("Transpose", self("Reshape", self._linear(linear, value), shape), perm=[0, 2, 1, 3])

    def _norm(self, norm: Norm, value: str) -> str:
        scale, shift = self._read(f"{norm.name}.weight"), self._read(f"{norm.name}.bias")
        return self("LayerNormalization", value, scale, shift, epsilon=self._encoder.epsilon)


def seconds(run: Run, ids: np.ndarray, mask: np.ndarray) -> float:
    run(ids, mask)  # the other side has had the caches
    started = time.thread_time()
    run(ids, mask)
    return time.thread_time() - started


@pytest.mark.speed
def test_the_built_graph_is_as_fast_as_a_plain_export_or_faster_at_every_shape(
    minilm: Prepared, tmp_path: Path
) -> None:
    ours, theirs = built(minilm), plain(tmp_path)
    ratios = {}
    for batch, length in SHAPES:
        ids = np.random.default_rng(0).integers(1000, 30000, (batch, length), dtype=np.int32)
        mask = np.ones_like(ids)
        assert np.abs(ours(ids, mask) - theirs(ids, mask)).max() < 1e-5
        turns = [(seconds(ours, ids, mask), seconds(theirs, ids, mask)) for _ in range(TURNS)]
        ratios[f"{batch}×{length}"] = statistics.median(a for a, _ in turns) / statistics.median(b for _, b in turns)
    print({shape: f"{ratio:.2f} of plain" for shape, ratio in ratios.items()})
    assert max(ratios.values()) <= TIE, ratios


@pytest.mark.speed
def test_a_warm_start_takes_milliseconds(benchmark: Any, minilm: Prepared, cache: Path) -> None:
    prepared = benchmark.pedantic(lambda: prepare(None, cache=cache), rounds=10, warmup_rounds=1)
    assert not prepared.built
    assert benchmark.stats.stats.median < WARM_START_SECONDS


@pytest.mark.parametrize(("batch", "length"), SHAPES)
def test_time_of_a_batch(benchmark: Any, minilm: Prepared, batch: int, length: int) -> None:
    run = built(minilm)
    ids = np.random.default_rng(0).integers(1000, 30000, (batch, length), dtype=np.int32)
    rows = benchmark(run, ids, np.ones_like(ids))
    assert rows.shape == (batch, 384)
