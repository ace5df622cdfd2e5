"""How is an ONNX file that somebody else made fitted to what a worker loads?

Theory of operation. Exporters agree on little: int64 inputs, outputs by many names, weights beside the file or in it, no pooling. The
graph is taken over as it is, under a prefix; in front of it stand casts from our int32 inputs (and zeros where it wants token types and
the task has none), behind it the pooling that modules.json asks for, and its weights go into our data file. What comes out is compared,
text by text, with the original under onnxruntime and with pooling in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import onnx
from onnx import TensorProto

from orchestrator.models.build import OPSET, pooling
from orchestrator.models.build.assemble import IDS, MASK, OUTPUT, TYPES
from orchestrator.models.build.encoder import Encoder, Norm
from orchestrator.models.build.graph import DataFile, GraphBuilder
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import DATA, GRAPH, Verification
from orchestrator.models.settings import Project, Settings
from orchestrator.models.tasks import Task
from orchestrator.models.verify import cosine, follow, load, padded, random_ids
from orchestrator.models.weights import Weights

LENGTHS = (3, 24, 1, 11)
LARGEST_DIFFERENCE = 1e-4
"""Relative to the largest float of the row, between the original alone and ours: the same nodes on other shapes."""
LONGEST_TRIED = 1024
"""Tokens. A graph is run once at its longest text, unless that would take long."""

_PREFIX = "source/"
_HIDDEN = ("last_hidden_state", "token_embeddings", "hidden_states")
_QUANTISED = {
    "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat",
    "MatMulNBits", "QAttention", "QGemm", "QLinearMatMul", "QuantizeLinear",
}  # fmt: skip
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
_INTEGERS = {TensorProto.INT32: np.int32, TensorProto.INT64: np.int64}

T = TypeVar("T")

Original = Callable[[np.ndarray, np.ndarray | None], list[np.ndarray]]
"""(ids, token types or None for zeros), both [batch, length] without padding → the chosen outputs."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """An ONNX file, read and looked at."""

    path: Path
    model: onnx.ModelProto
    inputs: dict[str, int]
    """Name → element type."""
    outputs: tuple[str, ...]
    """Those that are used: one, or start and end of a span."""
    width: int
    """Floats per token of the first of them."""


def read_graph(files: Sequence[Path], task: Task) -> Foreign:
    """The first file is the graph, the others may hold its weights. ModelError says what does not fit, and what would."""
    path = files[0]
    model = _load(path, {file.name for file in files[1:]})
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value.type.tensor_type.elem_type for value in model.graph.input if value.name not in stored}
    for name, kind in inputs.items():
        if name not in (IDS, MASK, TYPES) or kind not in _INTEGERS:
            _unfit(path, f"it takes {name} ({_kind(kind)})", f"int32 or int64 inputs named {IDS}, {MASK}, {TYPES}")
    for name in (IDS, MASK):
        if name not in inputs:
            _unfit(path, f"it takes no {name}", "a graph that takes it: without it padding would change answers")
    quantised = sorted({node.op_type for node in model.graph.node} & _QUANTISED)
    if quantised:
        _unfit(path, f"it is quantised already ({quantised[0]})", "an fp32 file; --precision chooses from there")
    outputs = _choose_outputs(path, [value.name for value in model.graph.output], task)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    for name in outputs:
        if kinds[name] not in _FLOATS:
            _unfit(path, f"its output {name} is {_kind(kinds[name])}", "floats")
    rows = _original(path, inputs, outputs)(np.ones((2, 5), np.int32), None)
    wanted = {"text-classification": 2, "zero-shot-classification": 2, "reranking": 2, "question-answering": 2}
    for name, row in zip(outputs, rows, strict=True):
        if row.ndim != wanted.get(task, 3) or row.shape[0] != 2 or (row.ndim == 3 and row.shape[1] != 5):
            _unfit(path, f"two texts of five tokens gave {name} {list(row.shape)}", f"the outputs of {task}")
    return Foreign(path, model, inputs, outputs, 1 if task == "question-answering" else int(rows[0].shape[-1]))


def _load(path: Path, beside: set[str]) -> onnx.ModelProto:
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(
            "cannot read the graph",
            where=str(path),
            why=f"{error} ({path.stat().st_size} bytes: truncated, or no ONNX file)",
            remedy="download the file again",
        ) from None
    if not model.graph.node:
        raise ModelError(
            "cannot read the graph", where=str(path), why="it has no nodes", remedy="download the file again"
        )
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if location not in beside:
                raise ModelError(
                    "the weights of the graph are not beside it",
                    where=str(path),
                    why=f"tensor {tensor.name} lies in {location!r}",
                    remedy=f"put that file into the same directory, under a name that begins with {path.name} or ends with .data",
                )
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
        return model if version >= OPSET else onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:  # noqa: BLE001 - the C++ side raises bare RuntimeError and others of its own
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            "cannot take over the graph",
            where=str(path),
            why=first_line,
            remedy=f"export it with opset {OPSET} or newer, and see that its weights are whole",
        ) from None


def _choose_outputs(path: Path, names: list[str], task: Task) -> tuple[str, ...]:
    if task == "fill-mask":
        _unfit(path, "it is an ONNX file", "safetensors, for fill-mask: the row of one token is computed, not all")
    wanted: tuple[str, ...] = ("logits",)
    if task == "question-answering":
        wanted = ("start_logits", "end_logits")
    elif task in ("feature-extraction", "sentence-embedding"):
        known = [name for name in _HIDDEN if name in names]
        unnamed = names[:1] if len(names) == 1 and names[0] not in ("logits", "sentence_embedding") else []
        wanted = tuple((known or unnamed or _HIDDEN)[:1])
    if not set(wanted) <= set(names):
        _unfit(path, f"its outputs are {', '.join(names)}", f"{' and '.join(wanted)}, for {task}")
    return wanted


def outline(foreign: Foreign, architecture: str, vocab_size: int, positions: int) -> Encoder:
    """What is known of an encoder that is a graph: no tensors and no layers."""
    typed = TYPES in foreign.inputs
    return Encoder(
        architecture=architecture, width=foreign.width, heads=1, inner=1, vocab_size=vocab_size, positions=positions,
        type_vocab_size=2 if typed else 0, epsilon=0.0, activation="gelu", words="", places=None,
        types=TYPES if typed else None, embedded_norm=Norm("", foreign.width), layers=(), layer_prefix="",
    )  # fmt: skip


def write(folder: Path, foreign: Foreign, settings: Settings, projections: dict[str, Weights]) -> None:
    """Writes model.onnx and its data file into the folder; inputs and output as `assemble` writes them. ModelError if it has no room."""
    if settings.head is not None and settings.head.out.outputs != (2 if len(foreign.outputs) == 2 else foreign.width):
        _unfit(
            foreign.path,
            f"it gives {foreign.width} scores",
            f"one for each of {settings.head.out.outputs} labels of config.json",
        )
    with DataFile(folder / DATA) as data:
        graph = GraphBuilder(data)
        graph.absorb(onnx.compose.add_prefix(foreign.model, _PREFIX))
        for name, kind in foreign.inputs.items():
            given = name
            if name == TYPES and not settings.token_types:
                given = graph.node("Sub", [IDS, IDS], "no_types")
            graph.node("Cast", [given], _PREFIX + name, to=kind)
        value = _join(graph, [_PREFIX + name for name in foreign.outputs])
        for number, step in enumerate(settings.steps):
            dense = projections[step.directory] if isinstance(step, Project) else None
            value = pooling.emit(graph, step, f"step{number}", value, MASK, dense)
        graph.node("Identity", [value], OUTPUT)
        shape = ("batch", "length", settings.width) if settings.per_token else ("batch", settings.width)
        taken = (IDS, MASK, *([TYPES] if settings.token_types else []))
        model = graph.serialise(settings.encoder.architecture, dict.fromkeys(taken, ("batch", "length")), OUTPUT, shape)
    (folder / GRAPH).write_bytes(model)


def _join(graph: GraphBuilder, names: list[str]) -> str:
    floats = [graph.node("Cast", [name], f"float_{number}", to=TensorProto.FLOAT) for number, name in enumerate(names)]
    if len(floats) == 1:
        return floats[0]
    axis = graph.constant("last_axis", np.array([-1], np.int64))
    columns = [graph.node("Unsqueeze", [name, axis], f"{name}_column") for name in floats]
    return graph.node("Concat", columns, "joined", axis=-1)


def verify(graph: Path, foreign: Foreign, settings: Settings, projections: dict[str, Weights]) -> Verification:
    """Ours in a padded batch against the original alone. ModelError if they differ, or if the original minds padding."""
    ours = load(graph)

    def run(batch: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return _explained(foreign.path, lambda: ours(batch, mask))

    original = _original(foreign.path, foreign.inputs, foreign.outputs)
    ids = random_ids(settings.encoder, LENGTHS)
    answers = run(*padded(ids, settings.pad_id))
    largest = padding = 0.0
    smallest = 1.0
    for row, one in enumerate(ids):
        types = None
        if settings.token_types:
            types = (np.arange(len(one)) >= len(one) // 2).astype(np.int32)[None, :]
        rows = original(one[None, :], types)
        joined = rows[0][0] if len(rows) == 1 else np.stack([each[0] for each in rows], axis=-1)
        expected = follow(settings, projections, joined.astype(np.float32))
        if not np.isfinite(expected).all():
            _unfit(
                foreign.path, f"{len(one)} tokens gave numbers that are not finite", "a graph whose weights hold no NaN"
            )
        together = answers[row, : len(one)] if settings.per_token else answers[row]
        alone = run(one[None, :], np.ones((1, len(one)), np.int32))[0]
        scale = max(float(np.abs(expected).max()), 1e-12 if settings.head is None else 1.0)
        largest = max(largest, float(np.abs(alone - expected).max()) / scale)
        padding = max(padding, float(np.abs(together - alone).max()) / scale)
        if settings.width > 1:
            smallest = min(smallest, cosine(alone, expected))
    if not largest <= LARGEST_DIFFERENCE:  # NaN too
        _unfit(foreign.path, f"wrapped it gives answers that differ by {largest:.2g} of the largest", "an fp32 export")
    if not padding <= LARGEST_DIFFERENCE:
        _unfit(foreign.path, f"padding changes its answers by {padding:.2g} of the largest", "one that minds its mask")
    if settings.encoder.positions <= LONGEST_TRIED:
        run(*padded(random_ids(settings.encoder, [settings.encoder.positions]), settings.pad_id))
    return Verification(len(ids), sum(len(one) for one in ids), largest, smallest, padding)


def _original(path: Path, inputs: dict[str, int], outputs: Sequence[str]) -> Original:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3

    session = _explained(
        path, lambda: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    )

    def run(ids: np.ndarray, types: np.ndarray | None) -> list[np.ndarray]:
        given = {IDS: ids, MASK: np.ones_like(ids), TYPES: np.zeros_like(ids) if types is None else types}
        feeds = {name: given[name].astype(_INTEGERS[kind]) for name, kind in inputs.items()}
        rows: list[np.ndarray] = _explained(path, lambda: session.run(list(outputs), feeds))
        return rows

    return run


def _explained(path: Path, work: Callable[[], T]) -> T:
    """What onnxruntime answers; its failures as a ModelError."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common base
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            "onnxruntime cannot run the graph", where=str(path), why=first_line, remedy="export the model again"
        ) from None


def _kind(number: int) -> str:
    return str(TensorProto.DataType.Name(number)).lower()


def _unfit(path: Path, why: str, wanted: str) -> NoReturn:
    raise ModelError("this graph cannot be served", where=str(path), why=why, remedy=f"wanted is {wanted}")
