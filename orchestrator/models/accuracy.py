"""How far are a variant's answers from fp32's, and do they depend on what else is in the batch?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.models.manifest import Manifest
from orchestrator.models.variants import Accuracy
from workers.batching import rectangle
from workers.engines.base import Engine

EMBEDDINGS = ("feature-extraction", "sentence-embedding")
BATCH = 8


def answers(engine: Engine, ids: Sequence[np.ndarray], manifest: Manifest, *, batch: int = 1) -> list[np.ndarray]:
    """For each text its rows, float32 [rows, width]; texts go in batches of so many, in the order given."""
    found: list[np.ndarray] = []
    for at in range(0, len(ids), batch):
        some = ids[at : at + batch]
        grid, mask = rectangle(np.concatenate(some), [len(one) for one in some])
        rows = engine.run(grid, mask, np.zeros_like(grid) if manifest.token_types else None)
        for row, one in zip(rows, some, strict=True):
            found.append(np.array(row[: len(one)] if manifest.per_token else row[None]))
    return found


def compare(exact: Sequence[np.ndarray], engine: Engine, ids: Sequence[np.ndarray], manifest: Manifest) -> Accuracy:
    """`exact` are the answers of fp32 to the same texts."""
    coarse = answers(engine, ids, manifest)
    left, right = np.concatenate(exact).astype(np.float64), np.concatenate(coarse).astype(np.float64)
    cosine = _cosines(left, right)
    order = np.argsort([len(one) % 7 for one in ids], kind="stable")  # long and short ones in one batch
    mixed = answers(engine, [ids[at] for at in order], manifest, batch=BATCH)
    together = np.concatenate(mixed).astype(np.float64)
    alone = np.concatenate([coarse[at] for at in order]).astype(np.float64)
    exact_too = np.concatenate([exact[at] for at in order]).astype(np.float64)
    return Accuracy(
        texts=len(ids),
        mean_cosine=round(float(cosine.mean()), 6),
        min_cosine=round(float(cosine.min()), 6),
        rank_correlation=_ranks(exact, coarse, manifest),
        label_flips=_flips(exact, coarse, manifest),
        largest_difference=round(_difference(left, right), 6),
        mean_cosine_in_batches=round(float(_cosines(exact_too, together).mean()), 6),
        batch_difference=round(_difference(alone, together), 6),
    )


def _cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: np.ndarray = (left * right).sum(axis=1) / np.maximum(lengths, 1e-300)
    return cosines


def _difference(exact: np.ndarray, other: np.ndarray) -> float:
    scale = np.maximum(np.abs(exact).max(axis=1, keepdims=True), 1e-12)
    return float((np.abs(exact - other) / scale).max())


def _ranks(exact: Sequence[np.ndarray], coarse: Sequence[np.ndarray], manifest: Manifest) -> float | None:
    if manifest.per_token:
        return None
    left, right = np.concatenate(exact), np.concatenate(coarse)
    if left.shape[1] == 1:
        return spearman(left[:, 0], right[:, 0])
    if manifest.task not in EMBEDDINGS:
        return None
    pairs = np.triu_indices(len(left), 1)
    return spearman(*(_similarities(rows)[pairs] for rows in (left, right)))


def _similarities(rows: np.ndarray) -> np.ndarray:
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    products: np.ndarray = unit @ unit.T
    return products


def spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    """The correlation of ranks; None for fewer than three values."""
    if len(left) < 3:
        return None
    ranks: Any = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (left, right)]
    return round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 6)


def _flips(exact: Sequence[np.ndarray], coarse: Sequence[np.ndarray], manifest: Manifest) -> float | None:
    if manifest.task in EMBEDDINGS:
        return None
    if manifest.task == "question-answering":  # the label is where the answer starts and ends
        pairs = [(one.argmax(axis=0), other.argmax(axis=0)) for one, other in zip(exact, coarse, strict=True)]
        return float(np.mean([(one != other).any() for one, other in pairs]))
    left, right = np.concatenate(exact), np.concatenate(coarse)
    several = manifest.head is not None and manifest.head.activation == "sigmoid"
    if several or left.shape[1] == 1:
        return float(np.mean((left > 0) != (right > 0)))
    return float(np.mean(left.argmax(axis=1) != right.argmax(axis=1)))
