"""What becomes of the matrices of a feature-extraction model: one row per token, nested as `transformers.pipeline` nests them. Pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from orchestrator.client.link import Answered
from orchestrator.gateway.errors import Refusal

NAMES = ("feature-extraction",)


def nested(answer: Answered) -> list[npt.NDArray[np.float32]]:
    """Per sequence an array of shape [1, tokens, width]: the pipeline computes each text as a batch of one."""
    arrays = [array[np.newaxis] for array in answer.arrays()]
    if not all(math.isfinite(float(array.sum())) for array in arrays):
        raise Refusal("model_error", "the model's answer holds numbers that are not finite")
    return arrays
