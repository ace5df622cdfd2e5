"""How is a post-norm encoder (BERT and its kin) written as a graph? Pure, but for the builder it is given.

Theory of operation. An architecture file (`bert.py`, `albert.py`, …) says of a configuration which tensors there are, by name and
shape: that is an `Encoder`. `emit` writes the nodes. Their form was chosen by measuring, one core of a busy machine, MiniLM, variants in
turns, against the form of three projections, a mask and Add for every bias. Differences under 8 % are near the noise; none of these lost:
- tokens of all texts one below the other ([batch · length, width]), so that Gemm adds the bias: 6 % at 8×128, a tie below;
- attention without a mask where no text is padded (an `If` on the mask): 4 % at 1×128, 6 % at 1×384, nothing lost at 1×16;
- one packed projection with a Split behind it: 2 to 8 % slower than three;
- Add + LayerNormalization, because SkipLayerNormalization takes 270 µs at 128×384 instead of 31. Load the graph at ORT_ENABLE_BASIC or
  with SkipLayerNormFusion disabled: onnxruntime fuses the slow form back otherwise.

The row of token type 0 is added to every row of the position table, so that a graph for single texts needs no token types.

What differs between the members of the family is data: where positions start (`first_place`), tables narrower than the encoder
(`widened`), one layer used many times (ALBERT), a bias by distance that all layers add to their scores (`relative`, MPNet), scores
that depend on distance in each layer (`disentangled`, DeBERTa).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from orchestrator.models.build import disentangled as distances
from orchestrator.models.build.disentangled import Disentangled
from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Names of configurations → what is computed: gelu with erf, gelu with its tanh approximation, max(0, x), or x · sigmoid(x)."""

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
class RelativeBias:
    """A number per head and bucket of distances, added to the scores of every layer. T5's buckets: half of them for keys before the
    query and half for keys after it, exact up to a quarter of all and logarithmic from there to `farthest`."""

    name: str
    """The table, [buckets, heads]."""
    buckets: int
    farthest: int


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
    distance_key: Linear | None = None
    distance_query: Linear | None = None
    """Projections of the table of distances; None where `key` and `query` project it, or nothing does."""

    def linears(self) -> tuple[Linear, ...]:
        own = [linear for linear in (self.distance_key, self.distance_query) if linear is not None]
        return (self.query, self.key, self.value, self.attended, self.up, self.down, *own)


@dataclass(frozen=True, slots=True)
class Encoder:
    """Which tensors an encoder has, and its numbers. Names are as in the checkpoint, without the prefix of a task model."""

    architecture: str
    width: int
    heads: int
    inner: int
    vocab_size: int
    positions: int
    """The longest sequence: rows of the position table from `first_place` on."""
    type_vocab_size: int
    epsilon: float
    activation: Activation
    words: str
    places: str | None
    """The table of positions, None where the architecture has none."""
    types: str | None
    """The table of token types, None where the architecture has none."""
    embedded_norm: Norm
    layers: tuple[Layer, ...]
    layer_prefix: str
    """What names of layer tensors start with, followed by the number of the layer."""
    first_place: int = 0
    """The row of the position table that the first token takes: RoBERTa and MPNet count from the padding id + 1."""
    widened: Linear | None = None
    """From the width of the tables to that of the encoder, where the two differ (ALBERT, ELECTRA)."""
    relative: RelativeBias | None = None
    disentangled: Disentangled | None = None
    numbered_layers: int | None = None
    """How many numbers follow `layer_prefix` in the checkpoint, where that is not the number of layers."""

    @property
    def table_width(self) -> int:
        """Floats per row of the embedding tables."""
        return self.width if self.widened is None else self.widened.inputs

    @property
    def stored_layers(self) -> int:
        return len(self.layers) if self.numbered_layers is None else self.numbered_layers

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the graph needs, and its shape."""
        shapes: dict[str, tuple[int, ...]] = {
            self.words: (self.vocab_size, self.table_width),
        }
        if self.places is not None:
            shapes[self.places] = (self.first_place + self.positions, self.table_width)
        if self.types is not None:
            shapes[self.types] = (self.type_vocab_size, self.table_width)
        shapes.update(_norm_shapes(self.embedded_norm))
        if self.widened is not None:
            shapes.update(_linear_shapes(self.widened))
        if self.relative is not None:
            shapes[self.relative.name] = (self.relative.buckets, self.heads)
        if self.disentangled is not None:
            shapes[self.disentangled.table] = (2 * self.disentangled.span, self.width)
            if self.disentangled.norm is not None:
                shapes.update(_norm_shapes(self.disentangled.norm))
        for layer in self.layers:
            for linear in layer.linears():
                shapes.update(_linear_shapes(linear))
            shapes.update(_norm_shapes(layer.attended_norm))
            shapes.update(_norm_shapes(layer.norm))
        return shapes


def _norm_shapes(norm: Norm) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{norm.name}.weight", (norm.width,)
    yield f"{norm.name}.bias", (norm.width,)


def _linear_shapes(linear: Linear) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{linear.name}.weight", (linear.outputs, linear.inputs)
    yield f"{linear.name}.bias", (linear.outputs,)


def place_table(encoder: Encoder, weights: Weights, *, typed: bool = False) -> np.ndarray:
    """Position embeddings, float32 [positions, table width]; the embedding of token type 0 is added unless the graph is `typed`."""
    if encoder.places is None:
        raise ValueError(f"{encoder.architecture} has no positions")
    shapes = encoder.tensors()
    places = take(weights, encoder.places, shapes[encoder.places])[encoder.first_place :]
    if encoder.types is None or typed:
        return places
    folded: np.ndarray = places + take(weights, encoder.types, shapes[encoder.types])[0]
    return folded


def emit(graph: GraphBuilder, encoder: Encoder, weights: Weights, ids: str, mask: str, types: str | None = None) -> str:
    """Writes the encoder; returns the name of its output, float32 [batch, length, width].

    `ids`, `mask` and `types` name int32 inputs [batch, length]; mask is 1 for a token and 0 for padding. Without `types` every token
    is of type 0; an encoder without token types takes none.
    """
    if types is not None and encoder.types is None:
        raise ValueError(f"{encoder.architecture} has no token types")
    embedded = (_embed_without_places if encoder.places is None else _embed)(graph, encoder, weights, ids, types)
    flat = graph.constant("flat", np.array([-1, encoder.width], np.int64))
    if encoder.widened is None:
        deep = graph.node("Shape", [embedded], "deep")
        hidden = graph.node("Reshape", [embedded, flat], "embedded_flat")
    else:
        narrow = graph.constant("flat_narrow", np.array([-1, encoder.table_width], np.int64))
        batch = graph.node("Shape", [embedded], "batch_shape", end=2)
        deep = graph.node(
            "Concat", [batch, graph.constant("width", np.array([encoder.width], np.int64))], "deep", axis=0
        )
        narrowed = graph.node("Reshape", [embedded, narrow], "embedded_flat")
        hidden = _gemm(graph, weights, encoder.widened, narrowed, "widened")
    shapes = Shapes(
        flat=flat,
        deep=deep,
        mask=mask,
        unpadded=graph.node(
            "Equal",
            [graph.node("ReduceMin", [mask], "mask_min", keepdims=0), graph.constant("token", np.array(1, np.int32))],
            "unpadded",
        ),
        relative="" if encoder.relative is None else _emit_relative(graph, encoder, encoder.relative, weights, ids),
        distances=None
        if encoder.disentangled is None
        else distances.emit_distances(
            graph, encoder.disentangled, ids, encoder.positions, encoder.heads, encoder.width // encoder.heads
        ),
    )
    for number, layer in enumerate(encoder.layers):
        hidden = _emit_layer(graph, encoder, weights, layer, f"layer{number}", hidden, shapes)
    return graph.node("Reshape", [hidden, shapes.deep], "hidden")


def _embed(graph: GraphBuilder, encoder: Encoder, weights: Weights, ids: str, types: str | None) -> str:
    words = graph.constant("words", take(weights, encoder.words, (encoder.vocab_size, encoder.table_width)))
    places = graph.constant("places", place_table(encoder, weights, typed=types is not None))
    segments = "" if types is None else _type_table(graph, encoder, weights)
    return graph.node(
        "EmbedLayerNormalization",
        [ids, types or "", words, places, segments, *_norm(graph, weights, encoder.embedded_norm)],
        "embedded",
        domain="com.microsoft",
        spare_outputs=1,
        epsilon=encoder.epsilon,
    )


def _embed_without_places(graph: GraphBuilder, encoder: Encoder, weights: Weights, ids: str, types: str | None) -> str:
    table = take(weights, encoder.words, (encoder.vocab_size, encoder.table_width))
    if encoder.types is not None and types is None:
        table = table + take(weights, encoder.types, (encoder.type_vocab_size, encoder.table_width))[0]
    embedded = graph.node("Gather", [graph.constant("words", table), ids], "embedded_words")
    if types is not None:
        typed = graph.node("Gather", [_type_table(graph, encoder, weights), types], "embedded_types")
        embedded = graph.node("Add", [embedded, typed], "embedded_sum")
    norm = _norm(graph, weights, encoder.embedded_norm)
    return graph.node("LayerNormalization", [embedded, *norm], "embedded", axis=-1, epsilon=encoder.epsilon)


def _type_table(graph: GraphBuilder, encoder: Encoder, weights: Weights) -> str:
    name = encoder.types or ""
    return graph.constant("types", take(weights, name, (encoder.type_vocab_size, encoder.table_width)))


def _emit_relative(graph: GraphBuilder, encoder: Encoder, relative: RelativeBias, weights: Weights, ids: str) -> str:
    """The bias of this batch, float32 [1, heads, length, length]: one table over all distances, looked up once for all layers."""
    table = take(weights, relative.name, (relative.buckets, encoder.heads))
    distances = np.arange(1 - encoder.positions, encoder.positions)
    by_distance = np.ascontiguousarray(table[buckets_of(relative, distances)].T)
    index = emit_distances(graph, ids, encoder.positions)
    bias = graph.node("Gather", [graph.constant("by_distance", by_distance), index], "bias_of_heads", axis=1)
    return graph.node("Unsqueeze", [bias, graph.constant("bias_axis", np.array([0], np.int64))], "bias")


def emit_distances(graph: GraphBuilder, ids: str, positions: int) -> str:
    """int64 [length, length]: place of the key − place of the query, + positions − 1, so that the smallest possible is 0."""
    zero, one = (graph.constant(f"place_{name}", np.array(n, np.int64)) for name, n in (("first", 0), ("step", 1)))
    length = graph.node("Gather", [graph.node("Shape", [ids], "ids_shape"), one], "length", axis=0)
    places = graph.node("Range", [zero, length, one], "places_here")
    row = graph.node("Unsqueeze", [places, graph.constant("row_axis", np.array([0], np.int64))], "key_places")
    column = graph.node("Unsqueeze", [places, graph.constant("column_axis", np.array([1], np.int64))], "query_places")
    offset = graph.constant("place_offset", np.array(positions - 1, np.int64))
    return graph.node("Add", [graph.node("Sub", [row, column], "distance"), offset], "distance_index")


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


def _emit_layer(
    graph: GraphBuilder, encoder: Encoder, weights: Weights, layer: Layer, at: str, hidden: str, shapes: Shapes
) -> str:
    """One layer, from float32 [batch · length, width] to the same."""
    if encoder.disentangled is not None and shapes.distances is not None:
        context = _emit_disentangled(
            graph, encoder, encoder.disentangled, weights, layer, at, hidden, shapes, shapes.distances
        )
    else:
        context = _emit_attention(graph, encoder, weights, layer, at, hidden, shapes)
    context = graph.node("Reshape", [context, shapes.flat], f"{at}.context_flat")
    attended = _gemm(graph, weights, layer.attended, context, f"{at}.attended")
    hidden = _add_and_normalise(
        graph, weights, attended, hidden, layer.attended_norm, f"{at}.attended_norm", encoder.epsilon
    )
    inner = graph.node("MatMul", [hidden, _matrix(graph, weights, layer.up)], f"{at}.up")
    inner = _activate(graph, encoder.activation, inner, _vector(graph, weights, layer.up), f"{at}.active")
    lowered = _gemm(graph, weights, layer.down, inner, f"{at}.down")
    return _add_and_normalise(graph, weights, lowered, hidden, layer.norm, f"{at}.norm", encoder.epsilon)


def _emit_attention(
    graph: GraphBuilder, encoder: Encoder, weights: Weights, layer: Layer, at: str, hidden: str, shapes: Shapes
) -> str:
    """float32 [batch · length, width] → [batch, length, width]."""
    projections = {"query": layer.query, "key": layer.key, "value": layer.value}
    heads = []
    for role, linear in projections.items():
        product = graph.node("MatMul", [hidden, _matrix(graph, weights, linear)], f"{at}.{role}")
        heads.append(graph.node("Reshape", [product, shapes.deep], f"{at}.{role}_deep"))
    biases = [_bias(weights, linear) for linear in projections.values()]
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
        projected = (table @ _weight(weights, linear) + _bias(weights, linear)) * factor
        split = projected.reshape(-1, encoder.heads, head_width).transpose(1, 2, 0)
        return np.ascontiguousarray(split.astype(np.float32))

    key_table = query_table = None
    if disentangled.key_of_distance:
        key_table = of_distance(layer.distance_key or layer.key, np.float32(1.0))
    if disentangled.query_of_distance:
        query_table = of_distance(layer.distance_query or layer.query, scale)
    matrix = graph.shared(f"{layer.query.name}.scaled_weight", lambda: _weight(weights, layer.query) * scale)
    vector = graph.shared(f"{layer.query.name}.scaled_bias", lambda: _bias(weights, layer.query) * scale)
    flat = [
        graph.node("Gemm", [hidden, matrix, vector], f"{at}.query"),
        _gemm(graph, weights, layer.key, hidden, f"{at}.key"),
        _gemm(graph, weights, layer.value, hidden, f"{at}.value"),
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


def _gemm(graph: GraphBuilder, weights: Weights, linear: Linear, value: str, at: str) -> str:
    return graph.node("Gemm", [value, _matrix(graph, weights, linear), _vector(graph, weights, linear)], at)


def _add_and_normalise(
    graph: GraphBuilder, weights: Weights, left: str, right: str, norm: Norm, at: str, epsilon: float
) -> str:
    total = graph.node("Add", [left, right], f"{at}.sum")
    return graph.node("LayerNormalization", [total, *_norm(graph, weights, norm)], at, axis=-1, epsilon=epsilon)


def _activate(graph: GraphBuilder, activation: Activation, value: str, bias: str, at: str) -> str:
    if activation == "gelu":
        return graph.node("BiasGelu", [value, bias], at, domain="com.microsoft")
    if activation == "gelu_tanh":
        return graph.node("FastGelu", [value, bias], at, domain="com.microsoft")
    biased = graph.node("Add", [value, bias], f"{at}.biased")
    if activation == "relu":
        return graph.node("Relu", [biased], at)
    return graph.node("Mul", [biased, graph.node("Sigmoid", [biased], f"{at}.gate")], at)


def _weight(weights: Weights, linear: Linear) -> np.ndarray:
    """[inputs, outputs], as MatMul wants it."""
    return np.ascontiguousarray(take(weights, f"{linear.name}.weight", (linear.outputs, linear.inputs)).T)


def _bias(weights: Weights, linear: Linear) -> np.ndarray:
    return take(weights, f"{linear.name}.bias", (linear.outputs,))


def _matrix(graph: GraphBuilder, weights: Weights, linear: Linear) -> str:
    return graph.shared(f"{linear.name}.weight", lambda: _weight(weights, linear))


def _vector(graph: GraphBuilder, weights: Weights, linear: Linear) -> str:
    return graph.shared(f"{linear.name}.bias", lambda: _bias(weights, linear))


def _norm(graph: GraphBuilder, weights: Weights, norm: Norm) -> list[str]:
    def shared(name: str) -> str:
        return graph.shared(name, lambda: take(weights, name, (norm.width,)))

    return [shared(f"{norm.name}.weight"), shared(f"{norm.name}.bias")]
