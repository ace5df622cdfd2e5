"""Does the graph compute what the weights say? An independent computation in numpy, against the engine on the finished file.

The computation is that of reference.py. It is for a few dozen tokens, not for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from orchestrator.models.build import heads
from orchestrator.models.build.encoder import Encoder
from orchestrator.models.build.vit import Vit
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import Verification
from orchestrator.models.reference import activate, encode, encode_images
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
"""(input_ids, attention_mask), both int32 [batch, length] → rows. A graph that takes token types is given those of `second_half`."""


def verify(graph: Path, settings: Settings, weights: Weights, projections: dict[str, Weights]) -> Verification:
    """Runs the graph on random ids and compares. ModelError if it does not compute what the weights say."""
    run = load(graph)
    ids = random_ids(settings.encoder, LENGTHS)
    head = settings.head
    if head is not None and head.kind == "mask":
        for one in ids:
            one[len(one) // 2] = heads.asked_id(settings.encoder)
    batch, mask = padded(ids, settings.pad_id)
    answers = run(batch, mask)
    largest = padding = 0.0
    smallest = 1.0
    for row, (one, expected) in enumerate(zip(ids, reference(settings, weights, projections, ids), strict=True)):
        alone = run(one[None, :], np.ones((1, len(one)), np.int32))[0]
        together = answers[row, : len(one)] if settings.per_token else answers[row]
        # Scores of labels may all be near nothing, and what comes of them does not depend on that.
        scale = max(float(np.abs(expected).max()), 1e-12 if head is None else 1.0)
        largest = max(largest, float(np.abs(together - expected).max()) / scale)
        padding = max(padding, float(np.abs(together - alone).max()) / scale)
        if settings.width > 1:  # a single number has no direction
            smallest = min(smallest, cosine(together, expected))
    return _judged(graph, Verification(len(ids), sum(len(one) for one in ids), largest, smallest, padding))


def _judged(graph: Path, result: Verification) -> Verification:
    if not (
        result.smallest_cosine >= SMALLEST_COSINE
        and result.largest_difference <= LARGEST_DIFFERENCE
        and result.padding_difference <= LARGEST_PADDING_DIFFERENCE
    ):
        raise ModelError(
            "the graph does not compute what the weights say",
            where=str(graph),
            why=f"{result}",
            remedy="this is a fault of the orchestrator: please report it with the name of the model",
        )
    return result


def verify_images(graph: Path, settings: Settings, encoder: Vit, weights: Weights) -> Verification:
    """The same for a model of images: random pixels, in a batch and alone."""
    head = settings.head
    if head is None:
        raise ValueError("a model of images without a head")
    run = load_images(graph)
    images = np.random.default_rng(7).uniform(-1.0, 1.0, (2, *encoder.pixels)).astype(np.float32)
    answers = run(images)
    largest = padding = 0.0
    smallest = 1.0
    for row, encoded in enumerate(encode_images(encoder, weights, images)):
        expected = heads.reference(head, weights, encoded, 0, activate)
        scale = max(float(np.abs(expected).max()), 1.0)
        largest = max(largest, float(np.abs(answers[row] - expected).max()) / scale)
        padding = max(padding, float(np.abs(answers[row] - run(images[row : row + 1])[0]).max()) / scale)
        if settings.width > 1:
            smallest = min(smallest, cosine(answers[row], expected))
    return _judged(graph, Verification(len(images), len(images) * encoder.positions, largest, smallest, padding))


def load(graph: Path) -> Run:
    """The graph in onnxruntime, as a worker loads it, on one thread."""
    session = _session(graph)
    typed = any(value.name == "token_type_ids" for value in session.get_inputs())

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        types = {"token_type_ids": second_half(mask)} if typed else {}
        rows: np.ndarray = session.run(None, {"input_ids": ids, "attention_mask": mask, **types})[0]
        return rows

    return run


def load_images(graph: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The same for a graph of images: float32 [batch, channels, height, width] → rows."""
    session = _session(graph)

    def run(images: np.ndarray) -> np.ndarray:
        rows: np.ndarray = session.run(None, {"pixel_values": images})[0]
        return rows

    return run


def _session(graph: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def second_half(mask: np.ndarray) -> np.ndarray:
    """Token types, int32 [batch, length]: 1 from the middle of each text on, 0 before it and in the padding."""
    middles = mask.sum(axis=1, keepdims=True) // 2
    types: np.ndarray = ((np.arange(mask.shape[1]) >= middles) & (mask == 1)).astype(np.int32)
    return types


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
    head, types, places = settings.head, None, [0] * len(ids)
    if settings.token_types:
        types = [second_half(np.ones((1, len(one)), np.int32))[0] for one in ids]
    if head is not None and head.kind == "mask":
        asked = heads.asked_id(settings.encoder)
        places = [int(np.argmax(one == asked)) for one in ids]
        ids = [np.where(one == asked, np.int32(head.mask_id), one) for one in ids]
    encoded = encode(settings.encoder, weights, ids, types)
    if head is not None:
        return [
            heads.reference(head, weights, rows, place, activate) for rows, place in zip(encoded, places, strict=True)
        ]
    return [follow(settings, projections, rows) for rows in encoded]


def follow(settings: Settings, projections: dict[str, Weights], rows: np.ndarray) -> np.ndarray:
    """What the steps after the encoder make of one text's rows [length, width], in numpy."""
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


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """The smallest over rows; of a single row its own."""
    one: Any = np.atleast_2d(left).astype(np.float64)
    other: Any = np.atleast_2d(right).astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / np.maximum(lengths, 1e-300)).min())
