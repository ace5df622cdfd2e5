"""What must an engine be able to do? Imported after binding: numpy touches memory."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Rows = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.float32]


class Engine(Protocol):
    def run(self, input_ids: Ids, attention_mask: Ids, token_type_ids: Ids | None) -> Rows:
        """One batch. Inputs int32 [batch, length]; output float32 [batch, width] or [batch, length, width].

        Raises EngineError if the library fails on this batch.
        """
        ...


@runtime_checkable
class PixelEngine(Protocol):
    """An engine whose graph may read images."""

    def run_pixels(self, pixel_values: Pixels) -> Rows:
        """One batch, float32 [batch, channels, height, width] → [batch, width]. EngineError as above."""
        ...


def run_pixels(engine: Engine, pixel_values: Pixels) -> Rows:
    """EngineError where this engine reads no images."""
    if not isinstance(engine, PixelEngine):
        raise EngineError(f"{type(engine).__name__} reads token ids and no images")
    return engine.run_pixels(pixel_values)


class EngineError(Exception):
    """The engine failed on a batch, in its own words."""


class LoadError(Exception):
    """The artefact cannot be loaded: names the file and what is wrong with it."""
