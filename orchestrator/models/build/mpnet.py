"""Which tensors does an MPNet have? Those of a BERT without token types, and one bias by distance for all layers. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.models.build.encoder import Encoder, LayerNames, Norm, RelativeBias
from orchestrator.models.build.limits import Count, activation, heads_fit, places_left, refuse
from orchestrator.models.documents import convert

FIRST_PLACE = 2
"""The padding id is 1 in the architecture, whatever config.json says."""
BUCKETS = 32
FARTHEST = 128
"""Both fixed in the architecture: config.json sizes the table and no more."""

_LAYER = LayerNames(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attended="attention.attn.o",
    attended_norm="attention.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)


class MPNetConfig(msgspec.Struct, frozen=True):
    """The fields of config.json that decide the graph."""

    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    relative_attention_num_buckets: Count = BUCKETS


def describe(document: dict[str, Any], where: str) -> Encoder:
    """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
    config = convert(document, MPNetConfig, where, "the configuration of an MPNet")
    if config.relative_attention_num_buckets != BUCKETS:
        refuse(where, "relative_attention_num_buckets", str(config.relative_attention_num_buckets), [str(BUCKETS)])
    heads_fit(where, config.hidden_size, config.num_attention_heads)
    width, inner = config.hidden_size, config.intermediate_size

    return Encoder(
        architecture="mpnet",
        width=width,
        heads=config.num_attention_heads,
        inner=inner,
        vocab_size=config.vocab_size,
        positions=places_left(where, config.max_position_embeddings, FIRST_PLACE),
        type_vocab_size=0,
        epsilon=config.layer_norm_eps,
        activation=activation(where, "hidden_act", config.hidden_act),
        words="embeddings.word_embeddings.weight",
        places="embeddings.position_embeddings.weight",
        types=None,
        embedded_norm=Norm("embeddings.LayerNorm", width),
        layers=tuple(
            _LAYER.layer(f"encoder.layer.{number}", width, inner) for number in range(config.num_hidden_layers)
        ),
        layer_prefix="encoder.layer.",
        first_place=FIRST_PLACE,
        relative=RelativeBias("encoder.relative_attention_bias.weight", BUCKETS, FARTHEST),
    )
