"""Which tensors does a ModernBERT have, and how is it written as a graph? Pure, but for the builder it is given.

Norms stand before the parts and not behind them; places are turned into queries and keys (rotary embedding); most layers let a token see
only its neighbours; the inner layer is gated. Warner et al., 2024, "Smarter, Better, Faster, Longer".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from orchestrator.models.build.encoder import Encoder, Norm
from orchestrator.models.build.limits import Count, activation, contradiction, heads_fit, refuse
from orchestrator.models.build.nodes import IDS_SHAPE, LENGTH, MASKED, activate_biased, emit_distances
from orchestrator.models.documents import convert
from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder

OUTSIDE = -1e30
"""Added to scores outside the window: exp() of it is 0, and its sum with that of padding is still a number."""

Sight = Literal["full_attention", "sliding_attention"]


class RotaryConfig(msgspec.Struct, frozen=True):
    rope_theta: float | None = None
    rope_type: str = "default"


class ModernBertConfig(msgspec.Struct, frozen=True):
    """The fields of config.json that decide the graph, of older and newer releases of transformers."""

    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    hidden_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: Count = 128
    layer_types: list[Sight] | None = None
    global_attn_every_n_layers: Count = 3
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    rope_parameters: dict[Sight, RotaryConfig] | None = None
    rope_scaling: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class ModernBert(Encoder):
    """An encoder whose layers are numbered and not listed: all have the same tensors, but for the first norm."""

    sights: tuple[Sight, ...] = ()
    """What each layer sees."""
    window: int = 0
    """The farthest neighbour that a layer with sliding attention sees."""
    thetas: tuple[tuple[Sight, float], ...] = ()
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the graph needs, and its shape."""
        width, inner = self.width, self.inner
        shapes: dict[str, tuple[int, ...]] = {self.words: (self.vocab_size, width)}
        norms = ["embeddings.norm", "final_norm"]
        for number in range(len(self.sights)):
            at = f"layers.{number}"
            norms += [f"{at}.mlp_norm"] + ([f"{at}.attn_norm"] if number else [])
            for name, outputs, inputs, biased in (
                (f"{at}.attn.Wqkv", 3 * width, width, self.attention_bias),
                (f"{at}.attn.Wo", width, width, self.attention_bias),
                (f"{at}.mlp.Wi", 2 * inner, width, self.mlp_bias),
                (f"{at}.mlp.Wo", width, inner, self.mlp_bias),
            ):
                shapes[f"{name}.weight"] = (outputs, inputs)
                if biased:
                    shapes[f"{name}.bias"] = (outputs,)
        for name in norms:
            shapes[f"{name}.weight"] = (width,)
            if self.norm_bias:
                shapes[f"{name}.bias"] = (width,)
        return shapes


def describe(document: dict[str, Any], where: str) -> ModernBert:
    """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
    config = convert(document, ModernBertConfig, where, "the configuration of a ModernBERT")
    heads_fit(where, config.hidden_size, config.num_attention_heads)
    head_width = config.hidden_size // config.num_attention_heads
    if head_width % 2:
        contradiction(where, f"heads of {head_width} floats, and rotary embeddings turn pairs")
    if config.rope_scaling:
        refuse(where, "rope_scaling", str(config.rope_scaling), ["null"])
    layers, every = config.num_hidden_layers, config.global_attn_every_n_layers
    sights: Sequence[Sight] = config.layer_types or [
        "sliding_attention" if number % every else "full_attention" for number in range(layers)
    ]
    if len(sights) != layers:
        contradiction(where, f"layer_types names {len(sights)} layers, num_hidden_layers is {layers}")
    return ModernBert(
        architecture="modernbert",
        width=config.hidden_size,
        heads=config.num_attention_heads,
        inner=config.intermediate_size,
        vocab_size=config.vocab_size,
        positions=config.max_position_embeddings,
        type_vocab_size=0,
        epsilon=config.norm_eps,
        activation=activation(where, "hidden_activation", config.hidden_activation),
        words="embeddings.tok_embeddings.weight",
        places=None,
        types=None,
        embedded_norm=Norm("embeddings.norm", config.hidden_size),
        layers=(),
        layer_prefix="layers.",
        numbered_layers=layers,
        sights=tuple(sights),
        window=config.local_attention // 2,
        thetas=_thetas(config, where),
        norm_bias=config.norm_bias,
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
    )


def _thetas(config: ModernBertConfig, where: str) -> tuple[tuple[Sight, float], ...]:
    thetas: dict[Sight, float] = {
        "full_attention": config.global_rope_theta,
        "sliding_attention": config.local_rope_theta,
    }
    for sight, said in (config.rope_parameters or {}).items():
        if said.rope_type != "default":
            refuse(where, f"rope_type of {sight}", said.rope_type, ["default"])
        thetas[sight] = thetas[sight] if said.rope_theta is None else said.rope_theta
    return tuple(thetas.items())


@dataclass(frozen=True, slots=True)
class _Shared:
    """Names of values that all layers share."""

    mask: str
    unpadded: str
    near: str
    """What is added to the scores of a layer that sees only neighbours."""
    pairs: str
    """The shape [batch, length, heads, 2, half of a head]."""
    flat: str
    """The shape [batch, length, width]."""
    turns: dict[Sight, tuple[str, str]]
    """Cosines and sines of this batch's places, [length, 1, half of a head]."""


def emit(graph: GraphBuilder, encoder: ModernBert, weights: Weights, ids: str, mask: str) -> str:
    """Writes the encoder; returns the name of its output, float32 [batch, length, width]. `ids` and `mask` as in postnorm.py."""
    shapes = encoder.tensors()

    def tensor(name: str) -> np.ndarray:
        return take(weights, name, shapes[name])

    def norm(name: str, value: str) -> str:
        scale = graph.constant(f"{name}.weight", tensor(f"{name}.weight"))
        bias = [graph.constant(f"{name}.bias", tensor(f"{name}.bias"))] if encoder.norm_bias else []
        return graph.node("LayerNormalization", [value, scale, *bias], name, axis=-1, epsilon=encoder.epsilon)

    def linear(name: str, part: str, rows: slice, value: str) -> str:
        matrix = np.ascontiguousarray(tensor(f"{name}.weight")[rows].T)
        product = graph.node("MatMul", [value, graph.constant(f"{name}{part}.weight", matrix)], f"{name}{part}")
        if f"{name}.bias" not in shapes:
            return product
        bias = graph.constant(f"{name}{part}.bias", tensor(f"{name}.bias")[rows])
        return graph.node("Add", [product, bias], f"{name}{part}.biased")

    shared = _emit_shared(graph, encoder, ids, mask)
    words = graph.node("Gather", [graph.constant("words", tensor(encoder.words)), ids], "embedded_words")
    hidden = norm("embeddings.norm", words)
    width, inner, everything = encoder.width, encoder.inner, slice(None)
    for number, sight in enumerate(encoder.sights):
        at = f"layers.{number}"
        seen = norm(f"{at}.attn_norm", hidden) if number else hidden
        roles = {
            role: linear(f"{at}.attn.Wqkv", f".{role}", slice(part * width, (part + 1) * width), seen)
            for part, role in enumerate(("query", "key", "value"))
        }
        for role in ("query", "key"):
            roles[role] = _turn(graph, shared, f"{at}.{role}", roles[role], *shared.turns[sight])
        three = [*roles.values(), ""]
        near = [shared.near] if sight == "sliding_attention" else []
        context = graph.either(
            shared.unpadded,
            f"{at}.context",
            "MultiHeadAttention",
            [*three, "", *near] if near else three[:3],
            [*three, shared.mask, *near],
            domain="com.microsoft",
            num_heads=encoder.heads,
            mask_filter_value=MASKED,
        )
        hidden = graph.node("Add", [hidden, linear(f"{at}.attn.Wo", "", everything, context)], f"{at}.attended")
        seen = norm(f"{at}.mlp_norm", hidden)
        up = linear(f"{at}.mlp.Wi", ".up", slice(0, inner), seen)
        gate = linear(f"{at}.mlp.Wi", ".gate", slice(inner, None), seen)
        gated = graph.node("Mul", [activate_biased(graph, encoder.activation, up, f"{at}.active"), gate], f"{at}.gated")
        hidden = graph.node("Add", [hidden, linear(f"{at}.mlp.Wo", "", everything, gated)], f"{at}.out")
    return norm("final_norm", hidden)


def _emit_shared(graph: GraphBuilder, encoder: ModernBert, ids: str, mask: str) -> _Shared:
    lowest = graph.node("ReduceMin", [mask], "mask_min", keepdims=0)
    distances = np.abs(np.arange(1 - encoder.positions, encoder.positions))
    seen = np.where(distances <= encoder.window, 0.0, OUTSIDE).astype(np.float32)
    near = graph.node(
        "Gather", [graph.constant("near_all", seen), emit_distances(graph, ids, encoder.positions)], "near"
    )
    axes = graph.constant("near_axes", np.array([0, 1], np.int64))
    half = encoder.width // encoder.heads // 2
    places = np.arange(encoder.positions, dtype=np.float64)[:, None]
    zero = graph.constant("turns_first", np.array([0], np.int64))
    end = graph.node("Unsqueeze", [LENGTH, zero], "turns_end")
    turns: dict[Sight, tuple[str, str]] = {}
    for sight, theta in encoder.thetas:
        if sight in encoder.sights:
            angles = places / theta ** (np.arange(half) / half)
            tables = {"cosines": np.cos(angles), "sines": np.sin(angles)}
            cosines, sines = (
                graph.node(
                    "Slice",
                    [graph.constant(f"{name}.{sight}.all", table[:, None, :].astype(np.float32)), zero, end],
                    f"{name}.{sight}",
                )
                for name, table in tables.items()
            )
            turns[sight] = cosines, sines
    batch = graph.node("Slice", [IDS_SHAPE, zero, graph.constant("two", np.array([2], np.int64))], "batch_length")
    rest = graph.constant("pairs_rest", np.array([encoder.heads, 2, half], np.int64))
    width = graph.constant("width", np.array([encoder.width], np.int64))
    return _Shared(
        mask=mask,
        unpadded=graph.node("Equal", [lowest, graph.constant("token", np.array(1, np.int32))], "unpadded"),
        near=graph.node("Unsqueeze", [near, axes], "near_heads"),
        pairs=graph.node("Concat", [batch, rest], "pairs_shape", axis=0),
        flat=graph.node("Concat", [batch, width], "flat_shape", axis=0),
        turns=turns,
    )


def _turn(graph: GraphBuilder, shared: _Shared, at: str, value: str, cosines: str, sines: str) -> str:
    """Each pair of floats (i, i + half of a head) turned by the angle of its place.

    In plain nodes: OpenVINO reads com.microsoft's RotaryEmbedding and computes something else.
    """
    pairs = graph.node("Reshape", [value, shared.pairs], f"{at}.pairs")
    zero = graph.shared("pair_left", lambda: np.array(0, np.int64))
    one = graph.shared("pair_right", lambda: np.array(1, np.int64))
    left = graph.node("Gather", [pairs, zero], f"{at}.left", axis=3)
    right = graph.node("Gather", [pairs, one], f"{at}.right", axis=3)

    def times(one_side: str, turn: str, name: str) -> str:
        return graph.node("Mul", [one_side, turn], f"{at}.{name}")

    turned_left = graph.node(
        "Sub", [times(left, cosines, "left_cosine"), times(right, sines, "right_sine")], f"{at}.turned_left"
    )
    turned_right = graph.node(
        "Add", [times(right, cosines, "right_cosine"), times(left, sines, "left_sine")], f"{at}.turned_right"
    )
    joined = graph.node("Concat", [turned_left, turned_right], f"{at}.turned_pairs", axis=-1)
    return graph.node("Reshape", [joined, shared.flat], f"{at}.turned")
