"""How are the parts that all encoders are made of written as nodes? Pure, but for the builder it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import numpy as np

from orchestrator.models.build.encoder import Activation, Linear, Norm
from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder

MASKED = float(np.finfo(np.float32).min)
"""Added to the score of a padding token. exp() of it is exactly 0, so padding cannot change an answer, whatever the weights are."""


IDS_SHAPE = "ids_shape"
LENGTH = "length"
"""Names of values that `emit_distances` makes on its way: the shape of the ids, and their length as a scalar, int64."""


def emit_distances(graph: GraphBuilder, ids: str, positions: int) -> str:
    """int64 [length, length]: place of the key − place of the query, + positions − 1, so that the smallest possible is 0."""
    zero, one = (graph.constant(f"place_{name}", np.array(n, np.int64)) for name, n in (("first", 0), ("step", 1)))
    length = graph.node("Gather", [graph.node("Shape", [ids], IDS_SHAPE), one], LENGTH, axis=0)
    places = graph.node("Range", [zero, length, one], "places_here")
    row = graph.node("Unsqueeze", [places, graph.constant("row_axis", np.array([0], np.int64))], "key_places")
    column = graph.node("Unsqueeze", [places, graph.constant("column_axis", np.array([1], np.int64))], "query_places")
    offset = graph.constant("place_offset", np.array(positions - 1, np.int64))
    return graph.node("Add", [graph.node("Sub", [row, column], "distance"), offset], "distance_index")


def gemm(graph: GraphBuilder, weights: Weights, linear: Linear, value: str, at: str) -> str:
    return graph.node("Gemm", [value, matrix(graph, weights, linear), vector(graph, weights, linear)], at)


def add_and_normalise(
    graph: GraphBuilder, weights: Weights, left: str, right: str, norm: Norm, at: str, epsilon: float
) -> str:
    total = graph.node("Add", [left, right], f"{at}.sum")
    return graph.node("LayerNormalization", [total, *norm_of(graph, weights, norm)], at, axis=-1, epsilon=epsilon)


def activate(graph: GraphBuilder, activation: Activation, value: str, bias: str, at: str) -> str:
    """With the bias in the same node where there is one that takes it."""
    if activation == "gelu":
        return graph.node("BiasGelu", [value, bias], at, domain="com.microsoft")
    if activation == "gelu_tanh":
        return graph.node("FastGelu", [value, bias], at, domain="com.microsoft")
    return activate_biased(graph, activation, graph.node("Add", [value, bias], f"{at}.biased"), at)


def activate_biased(graph: GraphBuilder, activation: Activation, value: str, at: str) -> str:
    """Of a value that has its bias, or none."""
    match activation:
        case "gelu":
            return graph.node("Gelu", [value], at, domain="com.microsoft")
        case "gelu_tanh":
            return graph.node("FastGelu", [value], at, domain="com.microsoft")
        case "relu":
            return graph.node("Relu", [value], at)
        case "silu":
            return graph.node("Mul", [value, graph.node("Sigmoid", [value], f"{at}.gate")], at)
        case _:
            assert_never(activation)


def weight_of(weights: Weights, linear: Linear) -> np.ndarray:
    """[inputs, outputs], as MatMul wants it."""
    return np.ascontiguousarray(take(weights, f"{linear.name}.weight", (linear.outputs, linear.inputs)).T)


def bias_of(weights: Weights, linear: Linear) -> np.ndarray:
    return take(weights, f"{linear.name}.bias", (linear.outputs,))


def matrix(graph: GraphBuilder, weights: Weights, linear: Linear) -> str:
    return graph.shared(f"{linear.name}.weight", lambda: weight_of(weights, linear))


def vector(graph: GraphBuilder, weights: Weights, linear: Linear) -> str:
    return graph.shared(f"{linear.name}.bias", lambda: bias_of(weights, linear))


def norm_of(graph: GraphBuilder, weights: Weights, norm: Norm) -> list[str]:
    def shared(name: str) -> str:
        return graph.shared(name, lambda: take(weights, name, (norm.width,)))

    return [shared(f"{norm.name}.weight"), shared(f"{norm.name}.bias")]
