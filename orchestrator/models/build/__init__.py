"""How is an architecture written as a graph, from its safetensors?"""

from __future__ import annotations

BUILDER_VERSION = 5
"""Part of the key of every cached artefact: count it up whenever a graph, its data file or its tokenizer comes out differently."""

OPSET = 18
"""ai.onnx. 17 has LayerNormalization, 18 the axes of reductions as inputs; onnxruntime 1.14 and OpenVINO 2023 read it."""

ARCHITECTURE_NAMES = (
    "bert", "distilbert", "roberta", "xlm-roberta", "camembert", "albert", "electra", "mpnet", "deberta-v2", "modernbert",
    "vit",
)  # fmt: skip
"""The keys of settings.ARCHITECTURES; here so that a start from the cache need not import numpy."""
