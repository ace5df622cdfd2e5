"""How is a post-norm encoder (BERT and its kin) written as a graph? Pure, but for the builder it is given.

Theory of operation. An architecture file (`bert.py`, `distilbert.py`) says of a configuration which tensors there are, by name and
shape: that is an `Encoder`. `emit` writes the nodes. Their form was chosen by measuring, one core of a busy machine, MiniLM, variants in
turns, against the form of three projections, a mask and Add for every bias. Differences under 8 % are near the noise; none of these lost:
- tokens of all texts one below the other ([batch · length, width]), so that Gemm adds the bias: 6 % at 8×128, a tie below;
- attention without a mask where no text is padded (an `If` on the mask): 4 % at 1×128, 6 % at 1×384, nothing lost at 1×16;
- one packed projection with a Split behind it: 2 to 8 % slower than three;
- Add + LayerNormalization, because SkipLayerNormalization takes 270 µs at 128×384 instead of 31. Load the graph at ORT_ENABLE_BASIC or
  with SkipLayerNormFusion disabled: onnxruntime fuses the slow form back otherwise.

The row of token type 0 is added to every row of the position table, so that a graph for single texts needs no token types.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder

Activation = Literal["gelu", "gelu_tanh", "relu"]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Names of configurations → what is computed: gelu with erf, gelu with its tanh approximation, or max(0, x)."""

MASKED = float(np.finfo(np.float32).min)
"""Added to the score of a padding token. exp() of it is exactly 0, so padding cannot change an answer, whatever the weights are."""


@dataclass(frozen=True, slots=True)
class Linear:
    """`NAME.weight` [outputs, inputs] and `NAME.bias` [outputs], as torch.nn.Linear stores them."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Norm:
    """`NAME.weight` and `NAME.bias`, both [width]."""

    name: str
    width: int


@dataclass(frozen=True, slots=True)
class Layer:
    query: Linear
    key: Linear
    value: Linear
    attended: Linear
    attended_norm: Norm
    up: Linear
    down: Linear
    norm: Norm

    def linears(self) -> tuple[Linear, ...]:
        return (self.query, self.key, self.value, self.attended, self.up, self.down)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Which tensors an encoder has, and its numbers. Names are as in the checkpoint, without the prefix of a task model."""

    architecture: str
    width: int
    heads: int
    inner: int
    vocab_size: int
    positions: int
    type_vocab_size: int
    epsilon: float
    activation: Activation
    words: str
    places: str
    types: str | None
    """The table of token types, None where the architecture has none."""
    embedded_norm: Norm
    layers: tuple[Layer, ...]
    layer_prefix: str
    """What names of layer tensors start with, followed by the number of the layer."""

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the graph needs, and its shape."""
        shapes: dict[str, tuple[int, ...]] = {
            self.words: (self.vocab_size, self.width),
            self.places: (self.positions, self.width),
        }
        if self.types is not None:
            shapes[self.types] = (self.type_vocab_size, self.width)
        shapes.update(_norm_shapes(self.embedded_norm))
        for layer in self.layers:
            for linear in layer.linears():
                shapes[f"{linear.name}.weight"] = (linear.outputs, linear.inputs)
                shapes[f"{linear.name}.bias"] = (linear.outputs,)
            shapes.update(_norm_shapes(layer.attended_norm))
            shapes.update(_norm_shapes(layer.norm))
        return shapes


def _norm_shapes(norm: Norm) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{norm.name}.weight", (norm.width,)
    yield f"{norm.name}.bias", (norm.width,)


def place_table(encoder: Encoder, weights: Weights) -> np.ndarray:
    """Position embeddings with the embedding of token type 0 added, float32 [positions, width]."""
    shapes = encoder.tensors()
    places = take(weights, encoder.places, shapes[encoder.places])
    if encoder.types is None:
        return places
    folded: np.ndarray = places + take(weights, encoder.types, shapes[encoder.types])[0]
    return folded


def emit(graph: GraphBuilder, encoder: Encoder, weights: Weights, ids: str, mask: str) -> str:
    """Writes the encoder; returns the name of its output, float32 [batch, length, width].

    `ids` and `mask` name int32 inputs [batch, length]; mask is 1 for a token and 0 for padding.
    """
    words = graph.constant("words", take(weights, encoder.words, (encoder.vocab_size, encoder.width)))
    places = graph.constant("places", place_table(encoder, weights))
    embedded = graph.node(
        "EmbedLayerNormalization",
        [ids, "", words, places, "", *_norm(graph, weights, encoder.embedded_norm, "embedded")],
        "embedded",
        domain="com.microsoft",
        spare_outputs=1,
        epsilon=encoder.epsilon,
    )
    shapes = Shapes(
        flat=graph.constant("flat", np.array([-1, encoder.width], np.int64)),
        deep=graph.node("Shape", [embedded], "deep"),
        mask=mask,
        unpadded=graph.node(
            "Equal",
            [graph.node("ReduceMin", [mask], "mask_min", keepdims=0), graph.constant("token", np.array(1, np.int32))],
            "unpadded",
        ),
    )
    hidden = graph.node("Reshape", [embedded, shapes.flat], "embedded_flat")
    for number, layer in enumerate(encoder.layers):
        hidden = _emit_layer(graph, encoder, weights, layer, f"layer{number}", hidden, shapes)
    return graph.node("Reshape", [hidden, shapes.deep], "hidden")


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


def _emit_layer(
    graph: GraphBuilder, encoder: Encoder, weights: Weights, layer: Layer, at: str, hidden: str, shapes: Shapes
) -> str:
    """One layer, from float32 [batch · length, width] to the same."""
    projections = {"query": layer.query, "key": layer.key, "value": layer.value}
    heads = []
    for role, linear in projections.items():
        product = graph.node("MatMul", [hidden, _matrix(graph, weights, linear)], f"{at}.{role}")
        heads.append(graph.node("Reshape", [product, shapes.deep], f"{at}.{role}_deep"))
    biases = [_bias(weights, linear) for linear in projections.values()]
    heads.append(graph.constant(f"{at}.qkv_bias", np.concatenate(biases)))
    context = graph.either(
        shapes.unpadded,
        f"{at}.context",
        "MultiHeadAttention",
        heads,
        [*heads, shapes.mask],
        domain="com.microsoft",
        num_heads=encoder.heads,
        mask_filter_value=MASKED,
    )
    context = graph.node("Reshape", [context, shapes.flat], f"{at}.context_flat")
    attended = _gemm(graph, weights, layer.attended, context, f"{at}.attended")
    hidden = _add_and_normalise(
        graph, weights, attended, hidden, layer.attended_norm, f"{at}.attended_norm", encoder.epsilon
    )
    inner = graph.node("MatMul", [hidden, _matrix(graph, weights, layer.up)], f"{at}.up")
    inner = _activate(graph, encoder.activation, inner, _vector(graph, weights, layer.up), f"{at}.active")
    lowered = _gemm(graph, weights, layer.down, inner, f"{at}.down")
    return _add_and_normalise(graph, weights, lowered, hidden, layer.norm, f"{at}.norm", encoder.epsilon)


def _gemm(graph: GraphBuilder, weights: Weights, linear: Linear, value: str, at: str) -> str:
    return graph.node("Gemm", [value, _matrix(graph, weights, linear), _vector(graph, weights, linear)], at)


def _add_and_normalise(
    graph: GraphBuilder, weights: Weights, left: str, right: str, norm: Norm, at: str, epsilon: float
) -> str:
    total = graph.node("Add", [left, right], f"{at}.sum")
    return graph.node("LayerNormalization", [total, *_norm(graph, weights, norm, at)], at, axis=-1, epsilon=epsilon)


def _activate(graph: GraphBuilder, activation: Activation, value: str, bias: str, at: str) -> str:
    if activation == "gelu":
        return graph.node("BiasGelu", [value, bias], at, domain="com.microsoft")
    if activation == "gelu_tanh":
        return graph.node("FastGelu", [value, bias], at, domain="com.microsoft")
    return graph.node("Relu", [graph.node("Add", [value, bias], f"{at}.biased")], at)


def _weight(weights: Weights, linear: Linear) -> np.ndarray:
    """[inputs, outputs], as MatMul wants it."""
    return np.ascontiguousarray(take(weights, f"{linear.name}.weight", (linear.outputs, linear.inputs)).T)


def _bias(weights: Weights, linear: Linear) -> np.ndarray:
    return take(weights, f"{linear.name}.bias", (linear.outputs,))


def _matrix(graph: GraphBuilder, weights: Weights, linear: Linear) -> str:
    return graph.constant(f"{linear.name}.weight", _weight(weights, linear))


def _vector(graph: GraphBuilder, weights: Weights, linear: Linear) -> str:
    return graph.constant(f"{linear.name}.bias", _bias(weights, linear))


def _norm(graph: GraphBuilder, weights: Weights, norm: Norm, at: str) -> list[str]:
    return [
        graph.constant(f"{at}.gamma", take(weights, f"{norm.name}.weight", (norm.width,))),
        graph.constant(f"{at}.beta", take(weights, f"{norm.name}.bias", (norm.width,))),
    ]
