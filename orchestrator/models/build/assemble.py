"""How do encoder and pooling, or encoder and head, become one ONNX file?"""

from __future__ import annotations

from pathlib import Path

from orchestrator.models.build import heads, modernbert, pooling, postnorm, vit
from orchestrator.models.build.graph import DataFile, GraphBuilder
from orchestrator.models.manifest import DATA, GRAPH
from orchestrator.models.settings import Pool, Project, Settings
from orchestrator.models.weights import Weights

IDS = "input_ids"
MASK = "attention_mask"
TYPES = "token_type_ids"
PIXELS = "pixel_values"
OUTPUT = "embedding"


def assemble(folder: Path, settings: Settings, weights: Weights, projections: dict[str, Weights]) -> None:
    """Writes model.onnx and its data file into the folder.

    Inputs: `input_ids`, `attention_mask` and, where the settings say so, `token_type_ids`, int32 [batch, length]. Output: `embedding`,
    float32 [batch, width], or [batch, length, width] where the answer is a row per token. A model of images has the one input
    `pixel_values`, float32 [batch, channels, height, width]. `projections` holds the weights of each
    Project by its directory.
    """
    with DataFile(folder / DATA) as data:
        graph = GraphBuilder(data)
        ids, place, head = IDS, None, settings.head
        if head is not None and head.kind == "mask":
            ids, place = heads.find_asked(graph, settings.encoder, head.mask_id, IDS)
        types = TYPES if settings.token_types else None
        if isinstance(settings.encoder, vit.Vit):
            value = vit.emit(graph, settings.encoder, weights, PIXELS)
        elif isinstance(settings.encoder, modernbert.ModernBert):
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
        inputs: dict[str, tuple[str | int, ...]]
        if isinstance(settings.encoder, vit.Vit):
            inputs, floats = {PIXELS: ("batch", *settings.encoder.pixels)}, True
        else:
            inputs, floats = dict.fromkeys((IDS, MASK, *([types] if types else [])), ("batch", "length")), False
        model = graph.serialise(settings.encoder.architecture, inputs, OUTPUT, shape, floats=floats)
    (folder / GRAPH).write_bytes(model)
