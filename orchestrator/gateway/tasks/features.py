"""What becomes of the matrices of a feature-extraction model: one row per token, nested as `transformers.pipeline` nests them. Pure."""

from __future__ import annotations

import numpy as np

from orchestrator.client.link import Answered
from orchestrator.gateway.tasks import numbers
from orchestrator.gateway.tasks.numbers import Floats

NAMES = ("feature-extraction",)


def nested(answer: Answered) -> list[Floats]:
    """Per sequence an array of shape [1, tokens, width]: the pipeline computes each text as a batch of one."""
    return [array[np.newaxis] for array in numbers.matrices(answer)]
