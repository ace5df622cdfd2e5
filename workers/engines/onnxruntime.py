"""How does ONNX Runtime run the graph?"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from workers.engines.base import EngineError, Ids, LoadError, Pixels, Rows
from workers.spec import WorkerSpec


class OnnxRuntimeEngine:
    """One session on the CPU provider with exactly the threads it was given."""

    def __init__(self, session: ort.InferenceSession, inputs: list[str]) -> None:
        self._session = session
        self._inputs = inputs

    def run(self, input_ids: Ids, attention_mask: Ids, token_type_ids: Ids | None) -> Rows:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            feeds["token_type_ids"] = token_type_ids
        return self._run(feeds)

    def run_pixels(self, pixel_values: Pixels) -> Rows:
        return self._run({"pixel_values": pixel_values})

    def _run(self, feeds: dict[str, Any]) -> Rows:
        try:
            rows = self._session.run(None, feeds)[0]
        except Exception as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error
        return np.ascontiguousarray(rows, dtype=np.float32)


def load(spec: WorkerSpec) -> OnnxRuntimeEngine:
    artefact = spec.artefact
    if artefact is None:
        raise LoadError("the specification names no artefact")
    options = ort.SessionOptions()
    options.intra_op_num_threads = spec.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The graph is built fused. BASIC folds constants and no more: a higher level would fuse Add + LayerNormalization
    # into SkipLayerNormalization, which takes 270 µs per call at 128×384 against 31.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # A bounded spin: none costs 45 % at 1×16 on two cores, the default burns a core that waits.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spec.spin_us else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(spec.spin_us))
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(artefact.path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise LoadError(f"{artefact.path}: {type(error).__name__}: {error}") from error
    inputs = [value.name for value in session.get_inputs()]
    wanted = ["input_ids", "attention_mask", *(["token_type_ids"] if artefact.token_types else [])]
    if artefact.pixels is not None:
        wanted = ["pixel_values"]
    if sorted(inputs) != sorted(wanted):
        raise LoadError(f"{artefact.path}: the graph takes {inputs}, expected {wanted}; build the artefact again")
    return OnnxRuntimeEngine(session, inputs)
