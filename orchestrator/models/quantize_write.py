"""How is a graph with its treatments written down as an int8 one?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from orchestrator.models import quantize_attention
from orchestrator.models.build.graph import DataFile
from orchestrator.models.manifest import DATA, GRAPH
from orchestrator.models.quantize import Treatment, Treatments
from orchestrator.models.quantize_graph import Graph, Site


def write(graph: Graph, treatments: Treatments, folder: Path) -> None:
    """model.onnx and its data file with these treatments, into the folder."""
    writer = _Writer(graph, treatments)
    _save(graph, writer.nodes(), writer.constants, folder)


class _Writer:
    """The nodes of the int8 graph, and the constants that are new in it or other than before."""

    def __init__(self, graph: Graph, treatments: Treatments) -> None:
        self._graph = graph
        self.constants: dict[str, np.ndarray] = {}
        self._int8: dict[str, tuple[Site, Treatment, slice]] = {}
        self._bias_of: dict[str, str | None] = {}
        self._column_scales: dict[str, np.ndarray] = {}
        for site in graph.sites():
            if (treatment := treatments.get(site.value)) is None:
                continue
            at = 0
            for product in site.products:
                width = graph.constant(product.weight).shape[1]
                self._int8[product.name] = (site, treatment, slice(at, at + width))
                self._bias_of[product.name] = product.bias
                at += width
            if site.source is not None and site.source_bias is not None and treatment.scale is not None:
                self._column_scales[site.source.name] = treatment.scale
                bias = self.constants.get(site.source_bias, graph.constant(site.source_bias)).copy()
                bias[-len(treatment.scale) :] /= treatment.scale
                self.constants[site.source_bias] = bias
        self._joined = quantize_attention.joined(
            graph.model.graph.node,
            {name: (site.value, of.stop - of.start) for name, (site, _, of) in self._int8.items()},
            graph.constants,
        )

    def nodes(self) -> list[Any]:
        readers: dict[str, list[Any]] = {}
        for node in self._graph.model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        swallowed: set[str] = set()
        """Products that have taken the bias of the activation behind them."""
        nodes: list[Any] = []
        gone = quantize_attention.gone(self._joined)
        for node in self._graph.model.graph.node:
            if node.output[0] in gone:
                continue
            if (attention := self._joined.get(node.output[0])) is not None:
                nodes += self._attention(attention)
                continue
            if node.input and node.input[0] in swallowed:
                nodes.append(_without_bias(node))
                continue
            if node.output[0] not in self._int8:
                self._divide_columns(node)
                nodes.append(node)
                continue
            bias = node.input[2] if len(node.input) > 2 else None
            reader = readers.get(node.output[0], [])
            if bias is None and len(reader) == 1 and _without_bias(reader[0]) is not None:
                bias = reader[0].input[1]
                swallowed.add(node.output[0])
            nodes += self._product(node, bias)
        return nodes

    def _divide_columns(self, node: Any) -> None:
        """An fp32 value projection whose reader is int8."""
        scale = self._column_scales.get(node.output[0])
        for name in node.input[1:] if scale is not None else ():
            self.constants[name] = self._graph.constant(name) / scale

    def _product(self, node: Any, bias_name: str | None) -> list[Any]:
        name = node.output[0]
        weights, steps, bias = self._constants_of(name, bias_name)
        value, made = self._evened(name)
        inputs = [value, f"{name}.int8", f"{name}.steps"]  # by product: what layers share is rounded for each of them
        self.constants[inputs[1]] = weights
        self.constants[inputs[2]] = steps
        if bias is not None:
            inputs += ["", f"{name}.bias8"]
            self.constants[inputs[4]] = bias.astype(np.float32)
        made.append(helper.make_node("DynamicQuantizeMatMul", inputs, [name], name=name, domain="com.microsoft"))
        return made

    def _attention(self, attention: quantize_attention.Joined) -> list[Any]:
        """Its three products in one, and the bias of attention with theirs."""
        name = attention.node.output[0]
        weights, steps, biases = zip(
            *(self._constants_of(one, self._bias_of[one]) for one in attention.products), strict=True
        )
        bias = self.constants.get(attention.bias, self._graph.constant(attention.bias)).copy()
        at = 0
        for own, columns in zip(biases, steps, strict=True):
            if own is not None:
                bias[at : at + len(columns)] += own
            at += len(columns)
        names = [f"{name}.{part}" for part in ("int8", "steps", "bias8")]
        self.constants |= zip(names, (np.concatenate(weights, axis=1), np.concatenate(steps), bias), strict=True)
        value, made = self._evened(attention.products[0])
        return [*made, *quantize_attention.write(attention, value, *names)]

    def _constants_of(self, name: str, bias_name: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Of a product: int8 [inputs, outputs], steps [outputs], and a bias [outputs] if there is any."""
        _, treatment, columns = self._int8[name]
        steps = treatment.steps[columns]
        bias = None if bias_name is None else self._graph.constant(bias_name)
        if treatment.correction is not None:
            bias = treatment.correction[columns] + (0 if bias is None else bias)
        if (scale := self._column_scales.get(name)) is not None:
            steps, bias = steps / scale, None if bias is None else bias / scale
        return np.ascontiguousarray(treatment.weights[:, columns]), steps, bias

    def _evened(self, name: str) -> tuple[str, list[Any]]:
        """What a product reads: the value of its site with the scale divided out, and the node that does so where none has yet."""
        site, treatment, _ = self._int8[name]
        if treatment.scale is None or site.source is not None:
            return site.value, []
        value = f"{site.value}.even"
        if f"{value}.scale" in self.constants:
            return value, []
        self.constants[f"{value}.scale"] = np.float32(1) / treatment.scale
        return value, [helper.make_node("Mul", [site.value, f"{value}.scale"], [value], name=value)]


def _without_bias(node: Any) -> Any | None:
    """The same activation without its bias; None for any other node."""
    if node.domain == "com.microsoft" and node.op_type in ("BiasGelu", "FastGelu") and len(node.input) == 2:
        plain = "Gelu" if node.op_type == "BiasGelu" else "FastGelu"
        return helper.make_node(plain, [node.input[0]], list(node.output), name=node.name, domain="com.microsoft")
    return None


def _save(graph: Graph, nodes: Sequence[Any], replaced: Mapping[str, np.ndarray], folder: Path) -> None:
    used = {name for node in nodes for name in _reads(node)}
    with DataFile(folder / DATA) as data:
        kept = {tensor.name for tensor in graph.model.graph.initializer} - set(replaced)
        tensors = [
            data.tensor(name, replaced[name] if name in replaced else graph.constant(name))
            for name in [*(t.name for t in graph.model.graph.initializer if t.name in kept), *replaced]
            if name in used
        ]
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        del model.graph.node[:]
        del model.graph.initializer[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(tensors)
    (folder / GRAPH).write_bytes(model.SerializeToString())


def _reads(node: Any) -> Iterable[str]:
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from _reads(inner)
