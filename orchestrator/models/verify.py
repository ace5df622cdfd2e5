"""Does the graph compute what the weights say? An independent computation in numpy, against the engine on the finished file.

The reference shares with the graph the names of the tensors and nothing else: separate projections, plain softmax, masks as −inf,
token types added where they belong. It is for a few dozen tokens, not for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from orchestrator.models.build.encoder import Encoder, Layer, Linear, Norm
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import Verification
from orchestrator.models.settings import Normalise, Pool, PoolingMode, Project, Settings
from orchestrator.models.weights import Weights, take

LENGTHS = (3, 32, 1, 17)
"""Ragged, with a text of a single token in it."""

SMALLEST_COSINE = 0.99999
LARGEST_DIFFERENCE = 1e-4
"""Relative to the largest float of the row. Seen: 2e-6; gelu's tanh approximation in place of gelu gives 2.5e-4."""
LARGEST_PADDING_DIFFERENCE = 5e-5
"""Relative likewise. Seen: 1e-6."""

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(input_ids, attention_mask), both int32 [batch, length] → rows."""


def verify(graph: Path, settings: Settings, weights: Weights, projections: dict[str, Weights]) -> Verification:
    """Runs the graph on random ids and compares. ModelError if it does not compute what the weights say."""
    run = load(graph)
    ids = random_ids(settings.encoder, LENGTHS)
    batch, mask = padded(ids, settings.pad_id)
    answers = run(batch, mask)
    largest = padding = 0.0
    smallest = 1.0
    for row, (one, expected) in enumerate(zip(ids, reference(settings, weights, projections, ids), strict=True)):
        alone = run(one[None, :], np.ones((1, len(one)), np.int32))[0]
        together = answers[row, : len(one)] if settings.per_token else answers[row]
        scale = max(float(np.abs(expected).max()), 1e-12)
        largest = max(largest, float(np.abs(together - expected).max()) / scale)
        padding = max(padding, float(np.abs(together - alone).max()) / scale)
        smallest = min(smallest, _cosine(together, expected))
    result = Verification(len(ids), sum(len(one) for one in ids), largest, smallest, padding)
    if not (smallest >= SMALLEST_COSINE and largest <= LARGEST_DIFFERENCE and padding <= LARGEST_PADDING_DIFFERENCE):
        raise ModelError(
            "the graph does not compute what the weights say",
            where=str(graph),
            why=f"{result}",
            remedy="this is a fault of the orchestrator: please report it with the name of the model",
        )
    return result


def load(graph: Path) -> Run:
    """The graph in onnxruntime, as a worker loads it, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        rows: np.ndarray = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return rows

    return run


def random_ids(encoder: Encoder, lengths: Sequence[int], seed: int = 7) -> list[np.ndarray]:
    """One int32 array of ids per length; lengths beyond the positions are cut."""
    random = np.random.default_rng(seed)
    return [
        random.integers(0, encoder.vocab_size, min(length, encoder.positions), dtype=np.int32) for length in lengths
    ]


def padded(ids: Sequence[np.ndarray], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """(input_ids, attention_mask), int32 [batch, longest], padding on the right."""
    batch = np.full((len(ids), max(len(one) for one in ids)), pad_id, np.int32)
    mask = np.zeros_like(batch)
    for row, one in enumerate(ids):
        batch[row, : len(one)] = one
        mask[row, : len(one)] = 1
    return batch, mask


def reference(
    settings: Settings, weights: Weights, projections: dict[str, Weights], ids: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The answer for each text, computed without padding: float32 [width], or [length, width] where it is a row per token."""
    return [_follow(settings, projections, rows) for rows in encode(settings.encoder, weights, ids)]


def _follow(settings: Settings, projections: dict[str, Weights], rows: np.ndarray) -> np.ndarray:
    for step in settings.steps:
        match step:
            case Pool(modes):
                rows = np.concatenate([_pool(mode, rows) for mode in modes])
            case Project(directory, inputs, outputs, bias, activation):
                dense = projections[directory]
                rows = take(dense, "linear.weight", (outputs, inputs)) @ rows
                if bias:
                    rows = rows + take(dense, "linear.bias", (outputs,))
                rows = np.tanh(rows) if activation == "tanh" else rows
            case Normalise():
                rows = rows / max(float(np.sqrt((rows * rows).sum())), 1e-12)
            case _:
                assert_never(step)
    return rows


def encode(encoder: Encoder, weights: Weights, ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The encoder's last hidden state for each text, float32 [length, width].

    The tokens of all texts stand one below the other, so that each tensor is read once; only attention goes text by text.
    """
    shapes = encoder.tensors()
    ends = np.cumsum([len(one) for one in ids])
    texts = [slice(end - len(one), end) for end, one in zip(ends, ids, strict=True)]

    def tensor(name: str) -> np.ndarray:
        return take(weights, name, shapes[name])

    def linear(one: Linear, value: np.ndarray) -> np.ndarray:
        product: np.ndarray = value @ tensor(f"{one.name}.weight").T + tensor(f"{one.name}.bias")
        return product

    def norm(one: Norm, value: np.ndarray) -> np.ndarray:
        centred = value - value.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled: np.ndarray = centred / np.sqrt(variance + np.float32(encoder.epsilon))
        shifted: np.ndarray = scaled * tensor(f"{one.name}.weight") + tensor(f"{one.name}.bias")
        return shifted

    def attend(layer: Layer, value: np.ndarray) -> np.ndarray:
        mixed = np.empty_like(value)
        query, key, content = (linear(one, value) for one in (layer.query, layer.key, layer.value))
        for text in texts:
            q, k, v = (
                one[text].reshape(-1, encoder.heads, encoder.width // encoder.heads) for one in (query, key, content)
            )
            scores = np.einsum("ihd,jhd->hij", q, k) / np.float32(np.sqrt(encoder.width / encoder.heads))
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            shares = scores / scores.sum(axis=-1, keepdims=True)
            mixed[text] = np.einsum("hij,jhd->ihd", shares, v).reshape(-1, encoder.width)
        return linear(layer.attended, mixed)

    words, places = tensor(encoder.words), tensor(encoder.places)
    value = np.concatenate([words[one] + places[: len(one)] for one in ids])
    if encoder.types is not None:
        value = value + tensor(encoder.types)[0]
    value = norm(encoder.embedded_norm, value)
    for layer in encoder.layers:
        value = norm(layer.attended_norm, value + attend(layer, value))
        inner = _ACTIVATE[encoder.activation](linear(layer.up, value))
        value = norm(layer.norm, value + linear(layer.down, inner))
    return [value[text].astype(np.float32, copy=False) for text in texts]


def _pool(mode: PoolingMode, rows: np.ndarray) -> np.ndarray:
    pooled: np.ndarray
    match mode:
        case "cls":
            pooled = rows[0]
        case "lasttoken":
            pooled = rows[-1]
        case "max":
            pooled = rows.max(axis=0)
        case "mean":
            pooled = rows.mean(axis=0)
        case "mean_sqrt_len_tokens":
            pooled = rows.sum(axis=0) / np.float32(np.sqrt(len(rows)))
        case _:
            assert_never(mode)
    return pooled


def _gelu(value: np.ndarray) -> np.ndarray:
    """x · Φ(x). The error function by Abramowitz and Stegun 7.1.26, in float64: wrong by at most 1.5e-7."""
    x = value.astype(np.float64) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1.0 - series * np.exp(-x * x))
    active: np.ndarray = (value * 0.5 * (1.0 + erf)).astype(np.float32)
    return active


def _gelu_tanh(value: np.ndarray) -> np.ndarray:
    inner = np.sqrt(2.0 / np.pi) * (value + 0.044715 * value.astype(np.float64) ** 3)
    active: np.ndarray = (0.5 * value * (1.0 + np.tanh(inner))).astype(np.float32)
    return active


def _relu(value: np.ndarray) -> np.ndarray:
    active: np.ndarray = np.maximum(value, np.float32(0))
    return active


_ACTIVATE: dict[str, Callable[[np.ndarray], np.ndarray]] = {"gelu": _gelu, "gelu_tanh": _gelu_tanh, "relu": _relu}


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    """The smallest over rows; of a single row its own."""
    one: Any = np.atleast_2d(left).astype(np.float64)
    other: Any = np.atleast_2d(right).astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(lengths, 1e-300)).min())
