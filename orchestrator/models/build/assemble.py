"""How do encoder and pooling become one ONNX file?"""

from __future__ import annotations

from pathlib import Path

from orchestrator.models.build import encoder, pooling
from orchestrator.models.build.graph import DataFile, GraphBuilder
from orchestrator.models.manifest import DATA, GRAPH
from orchestrator.models.settings import Project, Settings
from orchestrator.models.weights import Weights

IDS = "input_ids"
MASK = "attention_mask"
OUTPUT = "embedding"


def assemble(folder: Path, settings: Settings, weights: Weights, projections: dict[str, Weights]) -> None:
    """Writes model.onnx and its data file into the folder.

    Inputs: `input_ids` and `attention_mask`, int32 [batch, length]. Output: `embedding`, float32 [batch, width], or
    [batch, length, width] where the answer is a row per token. `projections` holds the weights of each Project by its directory.
    """
    with DataFile(folder / DATA) as data:
        graph = GraphBuilder(data)
        value = encoder.emit(graph, settings.encoder, weights, IDS, MASK)
        for number, step in enumerate(settings.steps):
            dense = projections[step.directory] if isinstance(step, Project) else None
            value = pooling.emit(graph, step, f"step{number}", value, MASK, dense)
        graph.node("Identity", [value], OUTPUT)
        shape = ("batch", "length", settings.width) if settings.per_token else ("batch", settings.width)
        inputs = {IDS: ("batch", "length"), MASK: ("batch", "length")}
        model = graph.serialise(settings.encoder.architecture, inputs, OUTPUT, shape)
    (folder / GRAPH).write_bytes(model)
