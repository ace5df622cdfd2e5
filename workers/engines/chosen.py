"""Which engine loads what a specification names? That one is imported, after binding, and no other."""

from __future__ import annotations

from workers.engines.base import Engine
from workers.spec import WorkerSpec


def load(spec: WorkerSpec) -> Engine:
    """LoadError, in the engine's words, if the artefact cannot be loaded. Without an artefact: the fake engine."""
    if spec.artefact is None:
        from workers import fake

        return fake.load(spec)
    if spec.artefact.engine == "openvino":
        from workers.engines import openvino

        return openvino.load(spec)
    from workers.engines import onnxruntime

    return onnxruntime.load(spec)
