"""How is a post-norm encoder (BERT and its kin) written as a graph? Pure, but for the builder it is given.

Theory of operation. encoder.py says which tensors there are; `emit` writes the nodes. Their form was chosen by measuring, one core of
a busy machine, MiniLM, variants in turns, against the form of three projections, a mask and Add for every bias. Differences under 8 %
are near the noise; none of these lost:
- tokens of all texts one below the other ([batch · length, width]), so that Gemm adds the bias: 6 % at 8×128, a tie below;
- attention without a mask where no text is padded (an `If` on the mask): 4 % at 1×128, 6 % at 1×384, nothing lost at 1×16;
- one packed projection with a Split behind it: 2 to 8 % slower than three;
- Add + LayerNormalization, because SkipLayerNormalization takes 270 µs at 128×384 instead of 31. Load the graph at ORT_ENABLE_BASIC or
  with SkipLayerNormFusion disabled: onnxruntime fuses the slow form back otherwise.

The row of token type 0 is added to every row of the position table, so that a graph for single texts needs no token types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from orchestrator.models.build import attention
from orchestrator.models.build import disentangled as distances
from orchestrator.models.build.attention import Shapes
from orchestrator.models.build.encoder import Encoder, Layer
from orchestrator.models.build.nodes import activate, add_and_normalise, gemm, matrix, norm_of, vector
from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder


FLAT, FLAT_NARROW, DEEP = "flat", "flat_narrow", "deep"
"""Shapes by name: tokens one below the other (of the encoder's width, and of the tables'), and [batch, length, width]."""


def emit(graph: GraphBuilder, encoder: Encoder, weights: Weights, ids: str, mask: str, types: str | None = None) -> str:
    """Writes the encoder; returns the name of its output, float32 [batch, length, width].

    `ids`, `mask` and `types` name int32 inputs [batch, length]; mask is 1 for a token and 0 for padding. Without `types` every token
    is of type 0; an encoder without token types takes none.
    """
    if types is not None and encoder.types is None:
        raise ValueError(f"{encoder.architecture} has no token types")
    embedded = (_embed_without_places if encoder.places is None else _embed)(graph, encoder, weights, ids, types)
    flat = graph.constant(FLAT, np.array([-1, encoder.width], np.int64))
    if encoder.widened is None:
        deep = graph.node("Shape", [embedded], DEEP)
        hidden = graph.node("Reshape", [embedded, flat], "embedded_flat")
    else:
        narrow = graph.constant(FLAT_NARROW, np.array([-1, encoder.table_width], np.int64))
        batch = graph.node("Shape", [embedded], "batch_shape", end=2)
        deep = graph.node("Concat", [batch, graph.constant("width", np.array([encoder.width], np.int64))], DEEP, axis=0)
        narrowed = graph.node("Reshape", [embedded, narrow], "embedded_flat")
        hidden = gemm(graph, weights, encoder.widened, narrowed, "widened")
    shapes = Shapes(
        flat=flat,
        deep=deep,
        mask=mask,
        unpadded=graph.node(
            "Equal",
            [graph.node("ReduceMin", [mask], "mask_min", keepdims=0), graph.constant("token", np.array(1, np.int32))],
            "unpadded",
        ),
        relative=""
        if encoder.relative is None
        else attention.emit_relative(graph, encoder, encoder.relative, weights, ids),
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
        [ids, types or "", words, places, segments, *norm_of(graph, weights, encoder.embedded_norm)],
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
    norm = norm_of(graph, weights, encoder.embedded_norm)
    return graph.node("LayerNormalization", [embedded, *norm], "embedded", axis=-1, epsilon=encoder.epsilon)


def _type_table(graph: GraphBuilder, encoder: Encoder, weights: Weights) -> str:
    name = encoder.types or ""
    return graph.constant("types", take(weights, name, (encoder.type_vocab_size, encoder.table_width)))


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


def _emit_layer(
    graph: GraphBuilder, encoder: Encoder, weights: Weights, layer: Layer, at: str, hidden: str, shapes: Shapes
) -> str:
    """One layer, from float32 [batch · length, width] to the same."""
    context = attention.emit(graph, encoder, weights, layer, at, hidden, shapes)
    context = graph.node("Reshape", [context, shapes.flat], f"{at}.context_flat")
    attended = gemm(graph, weights, layer.attended, context, f"{at}.attended")
    hidden = add_and_normalise(
        graph, weights, attended, hidden, layer.attended_norm, f"{at}.attended_norm", encoder.epsilon
    )
    inner = graph.node("MatMul", [hidden, matrix(graph, weights, layer.up)], f"{at}.up")
    inner = activate(graph, encoder.activation, inner, vector(graph, weights, layer.up), f"{at}.active")
    lowered = gemm(graph, weights, layer.down, inner, f"{at}.down")
    return add_and_normalise(graph, weights, lowered, hidden, layer.norm, f"{at}.norm", encoder.epsilon)
