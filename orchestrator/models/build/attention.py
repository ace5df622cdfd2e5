"""How do tokens look at one another: plainly, with a bias by distance, or with scores that depend on distance? Pure, but for the builder.

All three are one MultiHeadAttention of com.microsoft, which takes a mask of padding and something to add to the scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.models.build import disentangled as distances
from orchestrator.models.build.disentangled import Disentangled
from orchestrator.models.build.encoder import Encoder, Layer, Linear, RelativeBias
from orchestrator.models.build.nodes import MASKED, bias_of, emit_distances, gemm, matrix, weight_of
from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder


@dataclass(frozen=True, slots=True)
class Shapes:
    """Names of values that all layers share."""

    flat: str
    """The shape [batch · length, width]."""
    deep: str
    """The shape [batch, length, width]."""
    mask: str
    unpadded: str
    """bool: no row of this batch has padding."""
    relative: str
    """Added to the scores of every layer, or nothing."""
    distances: distances.Distances | None


def emit(
    graph: GraphBuilder, encoder: Encoder, weights: Weights, layer: Layer, at: str, hidden: str, shapes: Shapes
) -> str:
    """float32 [batch · length, width] → [batch, length, width], by the way that the encoder has."""
    if encoder.disentangled is None or shapes.distances is None:
        return _emit_attention(graph, encoder, weights, layer, at, hidden, shapes)
    return _emit_disentangled(
        graph, encoder, encoder.disentangled, weights, layer, at, hidden, shapes, shapes.distances
    )


def _emit_attention(
    graph: GraphBuilder, encoder: Encoder, weights: Weights, layer: Layer, at: str, hidden: str, shapes: Shapes
) -> str:
    """float32 [batch · length, width] → [batch, length, width]."""
    projections = {"query": layer.query, "key": layer.key, "value": layer.value}
    heads = []
    for role, linear in projections.items():
        product = graph.node("MatMul", [hidden, matrix(graph, weights, linear)], f"{at}.{role}")
        heads.append(graph.node("Reshape", [product, shapes.deep], f"{at}.{role}_deep"))
    biases = [bias_of(weights, linear) for linear in projections.values()]
    heads.append(graph.shared(f"{layer.query.name}.qkv_bias", lambda: np.concatenate(biases)))
    masked = [*heads, shapes.mask]
    if shapes.relative:
        heads, masked = [*heads, "", shapes.relative], [*masked, shapes.relative]
    return graph.either(
        shapes.unpadded,
        f"{at}.context",
        "MultiHeadAttention",
        heads,
        masked,
        domain="com.microsoft",
        num_heads=encoder.heads,
        mask_filter_value=MASKED,
    )


def _emit_disentangled(
    graph: GraphBuilder,
    encoder: Encoder,
    disentangled: Disentangled,
    weights: Weights,
    layer: Layer,
    at: str,
    hidden: str,
    shapes: Shapes,
    shared: distances.Distances,
) -> str:
    """Attention whose scores depend on distance too. What divides them is folded into the projection of queries."""
    head_width = encoder.width // encoder.heads
    scale = np.float32(1.0 / np.sqrt(head_width * disentangled.terms))
    table = take(weights, disentangled.table, (2 * disentangled.span, encoder.width))
    if disentangled.norm is not None:
        name, shape = disentangled.norm.name, (encoder.width,)
        weight, bias = take(weights, f"{name}.weight", shape), take(weights, f"{name}.bias", shape)
        table = normalised(table, weight, bias, encoder.epsilon)

    def of_distance(linear: Linear, factor: np.float32) -> np.ndarray:
        projected = (table @ weight_of(weights, linear) + bias_of(weights, linear)) * factor
        split = projected.reshape(-1, encoder.heads, head_width).transpose(1, 2, 0)
        return np.ascontiguousarray(split.astype(np.float32))

    key_table = query_table = None
    if disentangled.key_of_distance:
        key_table = of_distance(layer.distance_key or layer.key, np.float32(1.0))
    if disentangled.query_of_distance:
        query_table = of_distance(layer.distance_query or layer.query, scale)
    matrix = graph.shared(f"{layer.query.name}.scaled_weight", lambda: weight_of(weights, layer.query) * scale)
    vector = graph.shared(f"{layer.query.name}.scaled_bias", lambda: bias_of(weights, layer.query) * scale)
    flat = [
        graph.node("Gemm", [hidden, matrix, vector], f"{at}.query"),
        gemm(graph, weights, layer.key, hidden, f"{at}.key"),
        gemm(graph, weights, layer.value, hidden, f"{at}.value"),
    ]
    added = distances.emit_bias(graph, shared, f"{at}.distance", flat[0], flat[1], key_table, query_table)
    heads = [graph.node("Reshape", [value, shapes.deep], f"{value}_deep") for value in flat]
    return graph.either(
        shapes.unpadded,
        f"{at}.context",
        "MultiHeadAttention",
        [*heads, "", "", added],
        [*heads, "", shapes.mask, added],
        domain="com.microsoft",
        num_heads=encoder.heads,
        mask_filter_value=MASKED,
        scale=1.0,
    )


def normalised(rows: np.ndarray, weight: np.ndarray, bias: np.ndarray, epsilon: float) -> np.ndarray:
    """LayerNorm of constants, at build time."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    result: np.ndarray = centred / deviation * weight + bias
    return result


def emit_relative(graph: GraphBuilder, encoder: Encoder, relative: RelativeBias, weights: Weights, ids: str) -> str:
    """The bias of this batch, float32 [1, heads, length, length]: one table over all distances, looked up once for all layers."""
    table = take(weights, relative.name, (relative.buckets, encoder.heads))
    distances = np.arange(1 - encoder.positions, encoder.positions)
    by_distance = np.ascontiguousarray(table[buckets_of(relative, distances)].T)
    index = emit_distances(graph, ids, encoder.positions)
    bias = graph.node("Gather", [graph.constant("by_distance", by_distance), index], "bias_of_heads", axis=1)
    return graph.node("Unsqueeze", [bias, graph.constant("bias_axis", np.array([0], np.int64))], "bias")


def buckets_of(relative: RelativeBias, distances: np.ndarray) -> np.ndarray:
    """The bucket of each distance (place of the key − place of the query), by the rule of T5 (Raffel et al., 2020)."""
    half = relative.buckets // 2
    exact = half // 2
    far = np.abs(distances)
    with np.errstate(divide="ignore"):
        growth = np.log(far.astype(np.float32) / exact) / np.float32(np.log(relative.farthest / exact)) * (half - exact)
    far_bucket = np.minimum(exact + np.where(far < exact, 0, growth).astype(np.int64), half - 1)
    buckets: np.ndarray = np.where(far < exact, far, far_bucket) + np.where(distances > 0, half, 0)
    return buckets
