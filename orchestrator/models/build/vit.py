"""Which tensors does a ViT have, and how is it written as a graph? Pure, but for the builder it is given.

An image is cut into patches, each a row, behind a row of its own that sums them up (CLS); norms stand before the parts.
Dosovitskiy et al., 2021, "An Image is Worth 16x16 Words". Names are those of the checkpoints on the hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from orchestrator.models.build.encoder import Encoder, Norm
from orchestrator.models.build.limits import Count, activation, contradiction, heads_fit
from orchestrator.models.build.nodes import activate_biased
from orchestrator.models.documents import convert
from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder

PATCHES = "embeddings.patch_embeddings.projection"
MOST_PIXELS = 4096 * 4096


class VitConfig(msgspec.Struct, frozen=True):
    """The fields of config.json that decide the graph."""

    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    image_size: Count | list[Count] = 224
    patch_size: Count | list[Count] = 16
    num_channels: Count = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    qkv_bias: bool = True


@dataclass(frozen=True, slots=True)
class Vit(Encoder):
    """An encoder of images. `positions` is how many rows an image becomes: its patches and CLS."""

    image: tuple[int, int] = (0, 0)
    patch: tuple[int, int] = (0, 0)
    """Height and width in pixels."""
    channels: int = 3
    qkv_bias: bool = True

    @property
    def pixels(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, *self.image

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that the graph needs, and its shape."""
        width = self.width
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.cls_token": (1, 1, width),
            "embeddings.position_embeddings": (1, self.positions, width),
            f"{PATCHES}.weight": (width, self.channels, *self.patch),
            f"{PATCHES}.bias": (width,),
        }
        norms = ["layernorm"]
        for number in range(self.stored_layers):
            at = f"{self.layer_prefix}{number}"
            norms += [f"{at}.layernorm_before", f"{at}.layernorm_after"]
            for name, outputs, inputs, biased in self.linears(number):
                shapes[f"{name}.weight"] = (outputs, inputs)
                if biased:
                    shapes[f"{name}.bias"] = (outputs,)
        for name in norms:
            shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
        return shapes

    def linears(self, number: int) -> Iterator[tuple[str, int, int, bool]]:
        """(name, outputs, inputs, whether it has a bias) of a layer: query, key, value, attended, up, down."""
        at, width, inner = f"{self.layer_prefix}{number}", self.width, self.inner
        for role in ("query", "key", "value"):
            yield f"{at}.attention.attention.{role}", width, width, self.qkv_bias
        yield f"{at}.attention.output.dense", width, width, True
        yield f"{at}.intermediate.dense", inner, width, True
        yield f"{at}.output.dense", width, inner, True


def describe(document: dict[str, Any], where: str) -> Vit:
    """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
    config = convert(document, VitConfig, where, "the configuration of a ViT")
    heads_fit(where, config.hidden_size, config.num_attention_heads)
    image, patch = _pair(where, "image_size", config.image_size), _pair(where, "patch_size", config.patch_size)
    if image[0] % patch[0] or image[1] % patch[1] or image[0] * image[1] > MOST_PIXELS:
        contradiction(
            where, f"an image of {image[0]} × {image[1]} pixels cannot be cut into patches of {patch[0]} × {patch[1]}"
        )
    if config.num_channels != 3:
        contradiction(where, f"num_channels is {config.num_channels}, and images are read in three (RGB)")
    return Vit(
        architecture="vit",
        width=config.hidden_size,
        heads=config.num_attention_heads,
        inner=config.intermediate_size,
        vocab_size=1,
        positions=(image[0] // patch[0]) * (image[1] // patch[1]) + 1,
        type_vocab_size=0,
        epsilon=config.layer_norm_eps,
        activation=activation(where, "hidden_act", config.hidden_act),
        words="",
        places=None,
        types=None,
        embedded_norm=Norm("layernorm", config.hidden_size),
        layers=(),
        layer_prefix="encoder.layer.",
        numbered_layers=config.num_hidden_layers,
        image=image,
        patch=patch,
        channels=config.num_channels,
        qkv_bias=config.qkv_bias,
    )


def _pair(where: str, field: str, size: int | list[int]) -> tuple[int, int]:
    """Height and width. A list, since msgspec 0.22 reads past its memory for a bounded int or a tuple of two."""
    if isinstance(size, int):
        return size, size
    if len(size) != 2:
        contradiction(where, f"{field} has {len(size)} numbers, expected one, or height and width")
    return size[0], size[1]


def emit(graph: GraphBuilder, encoder: Vit, weights: Weights, pixels: str) -> str:
    """Writes the encoder; `pixels` is float32 [batch, channels, height, width]. Returns its output, float32 [batch, positions, width]."""
    shapes = encoder.tensors()

    def tensor(name: str) -> np.ndarray:
        return take(weights, name, shapes[name])

    def norm(name: str, value: str) -> str:
        both = [graph.constant(f"{name}.{part}", tensor(f"{name}.{part}")) for part in ("weight", "bias")]
        return graph.node("LayerNormalization", [value, *both], name, axis=-1, epsilon=encoder.epsilon)

    def linear(name: str, value: str) -> str:
        matrix = graph.constant(f"{name}.weight", np.ascontiguousarray(tensor(f"{name}.weight").T))
        product = graph.node("MatMul", [value, matrix], f"{name}.product")
        if f"{name}.bias" not in shapes:
            return product
        return graph.node("Add", [product, graph.constant(f"{name}.bias", tensor(f"{name}.bias"))], name)

    hidden = _emit_patches(graph, encoder, tensor, pixels)
    for number in range(encoder.stored_layers):
        at = f"{encoder.layer_prefix}{number}"
        query, key, value, attended, up, down = (name for name, *_ in encoder.linears(number))
        seen = norm(f"{at}.layernorm_before", hidden)
        context = graph.node(
            "MultiHeadAttention",
            [linear(query, seen), linear(key, seen), linear(value, seen)],
            f"{at}.context",
            domain="com.microsoft",
            num_heads=encoder.heads,
        )
        hidden = graph.node("Add", [hidden, linear(attended, context)], f"{at}.attended")
        inner = activate_biased(
            graph, encoder.activation, linear(up, norm(f"{at}.layernorm_after", hidden)), f"{at}.active"
        )
        hidden = graph.node("Add", [hidden, linear(down, inner)], f"{at}.out")
    return norm("layernorm", hidden)


def _emit_patches(graph: GraphBuilder, encoder: Vit, tensor: Callable[[str], np.ndarray], pixels: str) -> str:
    """float32 [batch, positions, width]: CLS and the patches, row by row, with their places added."""
    width = encoder.width
    strides = list(encoder.patch)
    weight = graph.constant(f"{PATCHES}.weight", tensor(f"{PATCHES}.weight"))
    bias = graph.constant(f"{PATCHES}.bias", tensor(f"{PATCHES}.bias"))
    grid = graph.node("Conv", [pixels, weight, bias], "patches.grid", strides=strides, kernel_shape=strides)
    deep = graph.constant("patches.shape", np.array([0, width, encoder.positions - 1], np.int64))  # 0: as it was
    rows = graph.node(
        "Transpose", [graph.node("Reshape", [grid, deep], "patches.columns")], "patches.rows", perm=[0, 2, 1]
    )
    places = tensor("embeddings.position_embeddings")
    first = graph.constant("cls", tensor("embeddings.cls_token") + places[:, :1])
    rest = graph.constant("places", np.ascontiguousarray(places[:, 1:]))
    placed = graph.node("Add", [rows, rest], "patches.placed")
    zero, one = (graph.constant(f"cls.{name}", np.array([n], np.int64)) for name, n in (("zero", 0), ("one", 1)))
    batch = graph.node("Slice", [graph.node("Shape", [pixels], "pixels.shape"), zero, one], "batch_size")
    shape = graph.node(
        "Concat", [batch, graph.constant("cls.rest", np.array([1, width], np.int64))], "cls.shape", axis=0
    )
    return graph.node("Concat", [graph.node("Expand", [first, shape], "cls.rows"), placed], "embedded", axis=1)
