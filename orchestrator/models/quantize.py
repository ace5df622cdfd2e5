"""How does an fp32 graph become an int8 one whose answers can be trusted?

Theory of operation. Works on the finished fp32 graph, so every architecture that can be built can be quantised. A *product* is a MatMul or
Gemm whose second operand is a constant matrix; products that read the same value make a *site* and share its treatment. An int8
product is one `com.microsoft.DynamicQuantizeMatMul`, those of an attention are part of it (quantize_attention.py): weights symmetric
per output channel, activations asymmetric with one scale per tensor, found at each call. That one scale is the weak point: a few
channels of a transformer's activations are tens of times larger than the rest, and take the whole range. So each input channel is
divided by a scale s and its row of the weights multiplied by it (SmoothQuant, Xiao et al. 2022, https://arxiv.org/abs/2211.10438):
s = max|x|^α / max|w|^(1−α). α is searched per site on calibration activations, by the error of the simulated product, 0 (no scale)
included. Where the value comes out of attention, the scale goes into the weights of the value projection at no cost; elsewhere it is
one Mul, because the residual connection reads the unscaled value.
What is moved into the weights makes their rounding the larger error, so weights are not rounded to nearest but one row after the other,
each row's error made good by the rows after it (GPTQ, Frantar et al. 2022, https://arxiv.org/abs/2210.17323), on the activations as they
are after their own rounding; and the mean error that is left is taken off the bias.

On CPUs without VNNI (and without Arm's dot product) the products add pairs of u8 × s8 in 16 bits, which saturates: there weights keep
7 bits, so that 2 · 255 · 64 < 2^15 (onnxruntime issue 6004).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from orchestrator.models import quantize_attention
from orchestrator.models.build.graph import INLINE_BYTES, DataFile
from orchestrator.models.manifest import DATA, GRAPH

EXACT_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""With any of these a product of u8 × s8 is summed in 32 bits from the start."""

ALPHAS = (0.0, 0.5, 0.7, 0.8, 0.9)
SMALLEST_PRODUCT = 32 * 32
"""Weights below this are not worth the quantisation of their input."""
SEARCH_TOKENS = 800
"""Rows of activations that α is searched on: more changes no choice of MiniLM's."""
MOST_CALIBRATION_BYTES = 256 << 20
"""Of activations in memory: all calls of MiniLM, a third of them of BERT-base."""
LARGEST_COMPENSATED = 1536
"""Inputs of a product whose rounding is compensated: the work grows with their cube (0.5 s at 1536, 5 s at 3072)."""
SHORT_WEIGHT = 0.25
"""A token of a text of n tokens counts as n^−0.25: at 0 the worst text of MiniLM has a cosine of 0.990, here 0.995, at 0.5 0.990 again."""
DAMPING = 0.01
"""Of the mean square of an input channel, added to each: the calibration has few tokens for many channels."""
_LARGEST = {8: 127.0, 7: 63.0}


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


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done at one site, in int8. The products of a site are one matrix here, one beside the other."""

    weights: np.ndarray
    """int8 [inputs, outputs]."""
    steps: np.ndarray
    """float32 [outputs]: what one step of the weights means."""
    alpha: float = 0.0
    scale: np.ndarray | None = None
    """float32 [inputs]: activations are divided by it. None: they are not."""
    correction: np.ndarray | None = None
    """float32 [outputs], added to the bias."""
    error: float = 0.0
    """Of the products on calibration activations: ‖int8 − fp32‖² / ‖fp32‖²."""


Treatments = Mapping[str, Treatment]
"""By a site's value. A site that is not named stays fp32."""


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


def weight_bits(cpu_features: Collection[str]) -> int:
    """8 where products are exact, 7 where they would saturate."""
    return 8 if EXACT_FEATURES & set(cpu_features) else 7


def quantise_weight(weight: np.ndarray, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """float32 [inputs, outputs] → (int8 of the same shape, float32 scale [outputs]); symmetric."""
    scale = np.abs(weight).max(axis=0) / np.float32(_LARGEST[bits])
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def rounded(values: np.ndarray) -> np.ndarray:
    """What is left of activations of one call after quantisation to 8 bits, as onnxruntime does it: zero is exact."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    step = (high - low) / 255.0 or 1.0
    zero = np.rint(-low / step)
    kept: np.ndarray = (np.clip(np.rint(values / np.float32(step)) + zero, 0, 255) - zero) * np.float32(step)
    return kept.astype(np.float32)


def plain(graph: Graph, bits: int) -> dict[str, Treatment]:
    """Weights rounded to nearest, no scale, nothing searched: what the common tools give."""
    return {site.value: Treatment(*quantise_weight(_matrix(graph, site), bits)) for site in graph.sites()}


def calibrated(
    graph: Graph,
    seen: Mapping[str, Sequence[np.ndarray]],
    bits: int,
    on_site: Callable[[int, int], None] | None = None,
) -> dict[str, Treatment]:
    """The best treatment of each site. `seen`: by value, one array [tokens, inputs] per call, as `activations` gives them.

    `on_site` is told after each site how many of how many are done.
    """
    sites = graph.sites()
    treatments: dict[str, Treatment] = {}
    for site in sites:
        treatments[site.value] = _treat(_matrix(graph, site), seen[site.value], bits, site)
        if on_site is not None:
            on_site(len(treatments), len(sites))
    return treatments


def _matrix(graph: Graph, site: Site) -> np.ndarray:
    return np.concatenate([graph.constant(product.weight) for product in site.products], axis=1)


def _treat(weights: np.ndarray, calls: Sequence[np.ndarray], bits: int, site: Site) -> Treatment:
    alpha, scale = _search(weights, calls, bits, free=site.source is not None)
    scaled = weights if scale is None else weights * scale[:, None]
    coarse = np.concatenate([rounded(call if scale is None else call / scale) for call in calls])
    kept, steps = quantise_weight(scaled, bits)
    share = np.concatenate([np.full((len(call), 1), len(call) ** -SHORT_WEIGHT, np.float32) for call in calls])
    if len(weights) <= LARGEST_COMPENSATED:
        heavy = coarse * share
        kept = compensated(scaled, steps, heavy.T @ heavy, bits)
    exact = np.concatenate(calls) @ weights
    difference = exact - coarse @ (kept.astype(np.float32) * steps)
    correction = (difference * share * share).sum(axis=0) / (share * share).sum()
    difference -= correction
    error = float((difference * difference).sum()) / max(float((exact * exact).sum()), 1e-30)
    return Treatment(kept, steps, alpha, scale, correction, error)


def _search(
    weights: np.ndarray, calls: Sequence[np.ndarray], bits: int, *, free: bool
) -> tuple[float, np.ndarray | None]:
    """(α, scale) of the least error. `free`: the scale costs nothing at run time."""
    largest = np.maximum.reduce([np.abs(call).max(axis=0) for call in calls])
    few = thinned(calls, SEARCH_TOKENS)
    exact = np.concatenate(few) @ weights
    best: tuple[float, float, np.ndarray | None] | None = None
    for alpha in ALPHAS:
        scale = smoothing_scale(largest, weights, alpha)
        kept, steps = quantise_weight(weights if scale is None else weights * scale[:, None], bits)
        coarse = np.concatenate([rounded(call if scale is None else call / scale) for call in few])
        difference = coarse @ (kept.astype(np.float32) * steps) - exact
        error = float((difference * difference).sum())
        # A scale that costs a Mul must earn it.
        if best is None or error < best[0] * (0.8 if best[2] is None and not free else 1.0):
            best = (error, alpha, scale)
    assert best is not None
    return best[1], best[2]


def thinned(calls: Sequence[np.ndarray], tokens: int) -> list[np.ndarray]:
    """Every n-th call, so that about so many tokens are left, short and long ones alike."""
    total = sum(len(call) for call in calls)
    return list(calls[:: max(1, round(total / tokens))])


def compensated(weights: np.ndarray, steps: np.ndarray, gram: np.ndarray, bits: int = 8, block: int = 64) -> np.ndarray:
    """int8 [inputs, outputs] with the least error over activations whose Gram matrix [inputs, inputs] is given; GPTQ."""
    inputs = len(weights)
    order = np.argsort(-np.diag(gram), kind="stable")
    curve = gram[np.ix_(order, order)].astype(np.float64)
    curve[np.diag_indices(inputs)] += DAMPING * max(float(np.diag(gram).mean()), 1e-12)
    upper = np.linalg.cholesky(np.linalg.inv(curve)).T.astype(np.float32)
    left = weights[order].astype(np.float32)
    kept = np.zeros(weights.shape, np.int8)
    most = _LARGEST[bits]
    for start in range(0, inputs, block):
        end = min(start + block, inputs)
        errors = np.zeros((end - start, weights.shape[1]), np.float32)
        for row in range(start, end):
            chosen = np.clip(np.rint(left[row] / steps), -most, most)
            kept[order[row]] = chosen
            errors[row - start] = (left[row] - chosen * steps) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], errors[row - start])
        left[end:] -= upper[start:end, end:].T @ errors
    return kept


def smoothing_scale(largest: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray | None:
    """float32 [inputs] from the largest activation of each channel; None for α = 0. Its geometric mean is 1."""
    if alpha == 0.0:
        return None
    x = np.maximum(largest, largest.max() * 1e-5 + 1e-12).astype(np.float64)
    w = np.maximum(np.abs(weights).max(axis=1), 1e-12).astype(np.float64)
    logs = alpha * np.log(x) - (1.0 - alpha) * np.log(w)
    scale: np.ndarray = np.exp(logs - logs.mean()).astype(np.float32)
    return scale


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
            _tensor(data, name, replaced[name] if name in replaced else graph.constant(name))
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


def _tensor(data: DataFile, name: str, value: np.ndarray) -> Any:
    tensor = TensorProto()
    tensor.name = name
    tensor.dims.extend(value.shape)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
    if value.nbytes <= INLINE_BYTES:
        tensor.raw_data = np.ascontiguousarray(value).tobytes()
        return tensor
    offset, length = data.append(value)
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", data.name), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, text
    return tensor
