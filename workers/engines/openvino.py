"""How does OpenVINO run the graph?

It reads the same weights as ONNX Runtime and multiplies them in the precision that it is told: bf16 on a CPU with AMX or AVX512-BF16.
A batch of another shape than the one before costs more than the same shape again (0.6 ms on MiniLM, a third at 1×32), and AMX multiplies
sixteen rows at a time. So texts are filled up to a multiple of sixteen tokens, which the mask hides: random lengths of 5 to 32, 33 to 128
or 129 to 384 tokens, single or up to eight together, take 0.83 to 0.92 of the time.

Everything it would guess is said: the precision (it takes bf16 by itself where it can), the number of threads, one stream, and no pinning,
since this process is already on its cores and a second opinion about them could only be wrong.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from workers.engines.base import EngineError, Ids, LoadError, Pixels, Rows
from workers.spec import WorkerSpec

_HINTS = {"fp32": "f32", "bf16": "bf16"}

LENGTH_STEP = 16
"""Tokens. With 8 half of the gain is lost; 32 gains no more, and loses it in batches of short texts."""


class OpenVinoEngine:
    """One compiled model on the CPU with one stream and exactly the threads it was given."""

    def __init__(self, request: Any, tensor: Any, positions: int) -> None:
        self._request = request
        self._tensor = tensor
        """The class of the library's tensors, which is imported where it is needed."""
        self._positions = positions

    def run(self, input_ids: Ids, attention_mask: Ids, token_type_ids: Ids | None) -> Rows:
        length = input_ids.shape[1]
        missing = missing_tokens(length, self._positions)
        # Ids are filled with the last one of each row, as in batching.py.
        feeds = {"input_ids": filled(input_ids, missing, "edge"), "attention_mask": filled(attention_mask, missing)}
        if token_type_ids is not None:
            feeds["token_type_ids"] = filled(token_type_ids, missing)
        return self._run(feeds, length)

    def run_pixels(self, pixel_values: Pixels) -> Rows:
        return self._run({"pixel_values": pixel_values}, None)

    def _run(self, feeds: dict[str, np.ndarray], length: int | None) -> Rows:
        """`length` of a row per token are kept."""
        try:
            for name, value in feeds.items():
                # A view of what came over the wire cannot be written to, and is refused as memory of a tensor.
                own = value if value.flags.writeable and value.flags.c_contiguous else value.copy()
                self._request.set_tensor(name, self._tensor(own, shared_memory=True))
            self._request.infer(share_outputs=True)
            rows = self._request.get_output_tensor(0).data
        except RuntimeError as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error
        if length is not None and rows.ndim == 3:
            rows = rows[:, :length]
        return np.array(rows, dtype=np.float32, order="C")  # the tensor is written anew by the next batch


def missing_tokens(length: int, positions: int) -> int:
    """Up to the next full step, but never beyond the positions of the model."""
    return min(-length % LENGTH_STEP, max(positions - length, 0))


def filled(rows: Ids, missing: int, end: Literal["edge", "zero"] = "zero") -> Ids:
    """int32 [batch, length] → [batch, length + missing]; the new columns repeat the last one, or are 0."""
    if not missing:
        return rows
    batch, length = rows.shape
    wide = np.zeros((batch, length + missing), np.int32)
    wide[:, :length] = rows
    if end == "edge":
        wide[:, length:] = rows[:, -1:]
    return wide


def load(spec: WorkerSpec) -> OpenVinoEngine:
    """LoadError where the package, the file or the precision is none that works here."""
    artefact = spec.artefact
    if artefact is None:
        raise LoadError("the specification names no artefact")
    if artefact.precision not in _HINTS:
        raise LoadError(f"{artefact.path}: openvino runs {', '.join(_HINTS)}, not {artefact.precision}")
    try:
        import openvino
    except ImportError as error:
        raise LoadError(
            f"openvino is not installed ({error}); install it: pip install 'orchestrator[openvino]'"
        ) from None
    try:
        compiled = openvino.Core().compile_model(artefact.path, "CPU", settings(artefact.precision, spec.threads))
    except RuntimeError as error:
        raise LoadError(f"{artefact.path}: {error}") from error
    got = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
    if got != _HINTS[artefact.precision]:
        raise LoadError(
            f"{artefact.path}: asked for {artefact.precision}, this CPU gives {got}; choose --precision fp32"
        )
    inputs = sorted(value.any_name for value in compiled.inputs)
    wanted = ["attention_mask", "input_ids", *(["token_type_ids"] if artefact.token_types else [])]
    if artefact.pixels is not None:
        wanted = ["pixel_values"]
    if inputs != wanted:
        raise LoadError(f"{artefact.path}: the graph takes {inputs}, expected {wanted}; build the artefact again")
    return OpenVinoEngine(compiled.create_infer_request(), openvino.Tensor, artefact.positions)


def settings(precision: str, threads: int) -> dict[str, str | int | bool]:
    """The properties of the CPU plugin; source: docs.openvino.ai, CPU device, supported properties."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
    }
