"""How do encoder and pooling, or encoder and head, become one ONNX file?"""

from __future__ import annotations

from pathlib import Path

from orchestrator.models.build import heads, modernbert, pooling, postnorm
from orchestrator.models.build.graph import DataFile, GraphBuilder
from orchestrator.models.manifest import DATA, GRAPH
from orchestrator.models.settings import Pool, Project, Settings
from orchestrator.models.weights import Weights

IDS = "input_ids"
MASK = "attention_mask"
TYPES = "token_type_ids"
OUTPUT = "embedding"


def assemble(folder: Path, settings: Settings, weights: Weights, projections: dict[str, Weights]) -> None:
    """Writes model.onnx and its data file into the folder.

    Inputs: `input_ids`, `attention_mask` and, where the settings say so, `token_type_ids`, int32 [batch, length]. Output: `embedding`,
    float32 [batch, width], or [batch, length, width] where the answer is a row per token. `projections` holds the weights of each
    Project by its directory.
    """
    with DataFile(folder / DATA) as data:
        graph = GraphBuilder(data)
        ids, place, head = IDS, None, settings.head
        if head is not None and head.kind == "mask":
            ids, place = heads.find_asked(graph, settings.encoder, head.mask_id, IDS)
        types = TYPES if settings.token_types else None
        if isinstance(settings.encoder, modernbert.ModernBert):
            value = modernbert.emit(graph, settings.encoder, weights, ids, MASK)
        else:
            value = postnorm.emit(graph, settings.encoder, weights, ids, MASK, types)
        if head is not None:
            if head.pooled == "mean":
                value = pooling.emit(graph, Pool(("mean",)), "head.pool", value, MASK, None)
            value = heads.emit(graph, head, settings.encoder, weights, value, place)
        for number, step in enumerate(settings.steps):
            dense = projections[step.directory] if isinstance(step, Project) else None
            value = pooling.emit(graph, step, f"step{number}", value, MASK, dense)
        graph.node("Identity", [value], OUTPUT)
        shape = ("batch", "length", settings.width) if settings.per_token else ("batch", settings.width)
        inputs = dict.fromkeys((IDS, MASK, *([types] if types else [])), ("batch", "length"))
        model = graph.serialise(settings.encoder.architecture, inputs, OUTPUT, shape)
    (folder / GRAPH).write_bytes(model)
