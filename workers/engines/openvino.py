"""How does OpenVINO run the graph?

It reads the same weights as ONNX Runtime and multiplies them in the precision that it is told: bf16 on a CPU with AMX or AVX512-BF16.
Everything it would guess is said: the precision (it takes bf16 by itself where it can), the number of threads, one stream, and no pinning,
since this process is already on its cores and a second opinion about them could only be wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.engines.base import EngineError, Ids, LoadError, Pixels, Rows
from workers.spec import WorkerSpec

_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine:
    """One compiled model on the CPU with one stream and exactly the threads it was given."""

    def __init__(self, request: Any, tensor: Any) -> None:
        self._request = request
        self._tensor = tensor
        """The class of the library's tensors, which is imported where it is needed."""

    def run(self, input_ids: Ids, attention_mask: Ids, token_type_ids: Ids | None) -> Rows:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            feeds["token_type_ids"] = token_type_ids
        return self._run(feeds)

    def run_pixels(self, pixel_values: Pixels) -> Rows:
        return self._run({"pixel_values": pixel_values})

    def _run(self, feeds: dict[str, np.ndarray]) -> Rows:
        try:
            for name, value in feeds.items():
                # A view of what came over the wire cannot be written to, and is refused as memory of a tensor.
                own = value if value.flags.writeable and value.flags.c_contiguous else value.copy()
                self._request.set_tensor(name, self._tensor(own, shared_memory=True))
            self._request.infer(share_outputs=True)
            rows = self._request.get_output_tensor(0).data
        except RuntimeError as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error
        return np.array(rows, dtype=np.float32, order="C")  # the tensor is written anew by the next batch


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
    return OpenVinoEngine(compiled.create_infer_request(), openvino.Tensor)


def settings(precision: str, threads: int) -> dict[str, str | int | bool]:
    """The properties of the CPU plugin; source: docs.openvino.ai, CPU device, supported properties."""
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
        "PERFORMANCE_HINT": "LATENCY",
    }
