"""How do logits become probabilities? In float32, as transformers computes them. Pure."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from orchestrator.client.link import Answered
from orchestrator.gateway.errors import Refusal

Floats = npt.NDArray[np.float32]

Activation = Literal["softmax", "sigmoid", "none"]


def rows(answer: Answered) -> Floats:
    """One row per sequence, [sequences, width]. Refusal where the model gave numbers that are not finite."""
    matrix = answer.matrix()
    _require_finite(float(matrix.sum(dtype=np.float64)))
    return matrix


def matrices(answer: Answered) -> list[Floats]:
    """One matrix per sequence, [tokens, width]. Refusal likewise."""
    arrays = answer.arrays()
    for array in arrays:
        _require_finite(float(array.sum(dtype=np.float64)))
    return arrays


def _require_finite(total: float) -> None:
    if not math.isfinite(total):
        raise Refusal("model_error", "the model's answer holds numbers that are not finite")


def softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + e⁻ˣ), without overflow at either end."""
    power = np.exp(-np.abs(logits))
    probabilities: Floats = np.where(logits >= 0, np.float32(1), power) / (1 + power)
    return probabilities


def apply(activation: Activation, logits: Floats) -> Floats:
    if activation == "softmax":
        return softmax(logits)
    return sigmoid(logits) if activation == "sigmoid" else logits
