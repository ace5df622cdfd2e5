"""Which tensors does an encoder have, and what are its numbers? Pure.

An architecture file (`bert.py`, `albert.py`, …) says it of a configuration: that is an `Encoder`. What differs between the members of
the family is data: where positions start (`first_place`), tables narrower than the encoder (`widened`), one layer used many times
(ALBERT), a bias by distance that all layers add to their scores (`relative`, MPNet), scores that depend on distance in each layer
(`disentangled`, DeBERTa). `postnorm.py` writes its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from orchestrator.models.build.disentangled import Disentangled

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
class LayerNames:
    """What the tensors of a layer are called in a family's checkpoints, without the prefix of the layer."""

    query: str
    key: str
    value: str
    attended: str
    attended_norm: str
    up: str
    down: str
    norm: str

    def layer(self, at: str, width: int, inner: int) -> Layer:
        """The layer whose names start with `at`; its feed-forward is `inner` wide."""

        def linear(name: str, inputs: int, outputs: int) -> Linear:
            return Linear(f"{at}.{name}", inputs, outputs)

        return Layer(
            query=linear(self.query, width, width),
            key=linear(self.key, width, width),
            value=linear(self.value, width, width),
            attended=linear(self.attended, width, width),
            attended_norm=Norm(f"{at}.{self.attended_norm}", width),
            up=linear(self.up, width, inner),
            down=linear(self.down, inner, width),
            norm=Norm(f"{at}.{self.norm}", width),
        )


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
