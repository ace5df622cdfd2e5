"""Where can an fp32 graph compute in int8, and what values come by there?"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from orchestrator.models.manifest import DATA

SMALLEST_PRODUCT = 32 * 32
"""Weights below this are not worth the quantisation of their input."""
MOST_CALIBRATION_BYTES = 256 << 20
"""Of activations in memory: all calls of MiniLM, a third of them of BERT-base."""


@dataclass(frozen=True, slots=True)
class Product:
    """One MatMul or Gemm with a constant matrix [inputs, outputs]."""

    name: str
    value: str
    weight: str
    bias: str | None


@dataclass(frozen=True, slots=True)
class Site:
    """A value and the products that read it."""

    value: str
    products: tuple[Product, ...]
    source: Product | None = None
    """The value projection whose columns can take the scale; None where a Mul is needed."""
    source_bias: str | None = None
    """The constant that holds the projection's bias in its last `inputs` entries."""


class Graph:
    """An fp32 graph with its constants; weights are read from the mapped data file when they are needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = onnx.load(str(path), load_external_data=False)
        self._constants = {tensor.name: tensor for tensor in self.model.graph.initializer}
        data = path.with_name(DATA)
        self.constants: Collection[str] = self._constants.keys()
        self._data: Any = np.memmap(data, np.uint8, "r") if data.exists() else np.zeros(0, np.uint8)

    def constant(self, name: str) -> np.ndarray:
        tensor = self._constants[name]
        if tensor.data_location != TensorProto.EXTERNAL:
            return np.asarray(numpy_helper.to_array(tensor))
        where = {entry.key: entry.value for entry in tensor.external_data}
        at, length = int(where["offset"]), int(where["length"])
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        value: np.ndarray = np.asarray(self._data[at : at + length]).view(kind).reshape(tuple(tensor.dims))
        return value

    def sites(self) -> list[Site]:
        """Every place where int8 can be put, in the order of the graph."""
        by_value: dict[str, list[Product]] = {}
        for node in self.model.graph.node:
            product = self._product(node)
            if product is not None:
                by_value.setdefault(product.value, []).append(product)
        return [self._with_source(value, tuple(products)) for value, products in by_value.items()]

    def _product(self, node: Any) -> Product | None:
        if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx") or node.attribute:
            return None
        weight = self._constants.get(node.input[1])
        if weight is None or len(weight.dims) != 2 or math.prod(weight.dims) < SMALLEST_PRODUCT:
            return None
        if node.input[0] in self._constants or weight.data_type != TensorProto.FLOAT:
            return None
        bias = node.input[2] if len(node.input) > 2 else None
        if bias is not None and (bias not in self._constants or len(self._constants[bias].dims) != 1):
            return None
        return Product(node.output[0], node.input[0], node.input[1], bias)

    def _with_source(self, value: str, products: tuple[Product, ...]) -> Site:
        """Follows value ← Reshape ← attention ← Reshape ← MatMul of the value projection."""
        made = {node.output[0]: node for node in self.model.graph.node}
        attention = made.get(value)
        while attention is not None and attention.op_type == "Reshape":
            attention = made.get(attention.input[0])
        if attention is not None and attention.op_type == "If":
            attention = next(a for a in attention.attribute if a.name == "then_branch").g.node[0]
        if attention is None or attention.op_type != "MultiHeadAttention" or len(attention.input) < 4:
            return Site(value, products)
        source, bias = made.get(attention.input[2]), attention.input[3]
        while source is not None and source.op_type == "Reshape":
            source = made.get(source.input[0])
        projection = self._product(source) if source is not None else None
        if projection is None or bias not in self._constants:
            return Site(value, products)
        if sum(projection.weight in node.input for node in self.model.graph.node) > 1:
            return Site(value, products)  # layers that share their weights (ALBERT) cannot each scale them
        return Site(value, products, projection, bias)


def activations(graph: Graph, feeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    """What each site's value is in each run of the fp32 graph: by value, one float32 array [tokens, inputs] per run."""
    import onnxruntime

    values = [site.value for site in graph.sites()]
    probe = onnx.ModelProto()
    probe.CopyFrom(graph.model)
    probe.graph.output.extend(helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in values)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    # A graph that comes as bytes finds its data file by this.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.path.parent))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    seen: dict[str, list[np.ndarray]] = {value: [] for value in values}
    per_token = 4 * sum(graph.constant(site.products[0].weight).shape[0] for site in graph.sites())
    total = sum(feed["input_ids"].size for feed in feeds) * per_token
    for feed in feeds[:: math.ceil(total / MOST_CALIBRATION_BYTES)]:
        for value, array in zip(values, session.run(values, dict(feed)), strict=True):
            seen[value].append(array.reshape(-1, array.shape[-1]))
    return seen
