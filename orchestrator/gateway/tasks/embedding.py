"""What becomes of the rows of an embedding model: vectors, shortened where asked, or their similarity? Pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from orchestrator.client.link import Answered
from orchestrator.gateway.errors import Refusal

NAMES = ("sentence-embedding",)

Matrix = npt.NDArray[np.float32]


def require(task: str) -> None:
    """The routes that give one vector per text need a model that does."""
    if task not in NAMES:
        raise Refusal(
            "unprocessable", f"this model's task is {task}, it gives no embeddings of texts; use POST /predict"
        )


def vectors(answer: Answered, dimensions: int | None) -> Matrix:
    """[sequences, dimensions or width], rows of length one.

    `dimensions` keeps the first so many and normalises again, as a model trained for it allows.
    Source: Matryoshka Representation Learning, arXiv 2205.13147.
    """
    matrix = answer.matrix()
    if not math.isfinite(float(matrix.sum())):
        raise Refusal("model_error", "the model's answer holds numbers that are not finite")
    if dimensions is None or dimensions == answer.width:
        return matrix
    short = matrix[:, :dimensions]
    length = np.linalg.norm(short, axis=1, keepdims=True)
    return np.ascontiguousarray(short / np.where(length == 0, np.float32(1), length), dtype=np.float32)


def similarities(answer: Answered) -> Matrix:
    """[sequences - 1]: the cosine of the first sequence to each of the others."""
    matrix = vectors(answer, None)
    cosines: Matrix = matrix[1:] @ matrix[0]
    return cosines


def check_dimensions(asked: int | None, width: int) -> int | None:
    if asked is not None and not 1 <= asked <= width:
        raise Refusal("unprocessable", f"dimensions: {asked}, this model gives 1 to {width}")
    return asked
