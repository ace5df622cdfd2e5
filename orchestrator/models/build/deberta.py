"""Which tensors does a DeBERTa v2 or v3 have? Those of a BERT, and a table of distances in place of one of positions. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import msgspec

from orchestrator.models.build.disentangled import Disentangled
from orchestrator.models.build.encoder import Encoder, Layer, LayerNames, Linear, Norm
from orchestrator.models.build.limits import Count, activation, heads_fit, refuse
from orchestrator.models.documents import convert

_LAYER = LayerNames(
    query="attention.self.query_proj",
    key="attention.self.key_proj",
    value="attention.self.value_proj",
    attended="attention.output.dense",
    attended_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)


class DebertaConfig(msgspec.Struct, frozen=True):
    """The fields of config.json that decide the graph."""

    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    type_vocab_size: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    position_biased_input: bool = True
    pos_att_type: str | list[str] | None = None
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    embedding_size: Count | None = None
    attention_head_size: Count | None = None
    conv_kernel_size: int = 0


def describe(document: dict[str, Any], where: str) -> Encoder:
    """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
    config = convert(document, DebertaConfig, where, "the configuration of a DeBERTa")
    width, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    heads_fit(where, width, heads)
    terms = _terms(config, where)
    if config.conv_kernel_size > 0:
        refuse(where, "conv_kernel_size", str(config.conv_kernel_size), ["0"])
    if config.embedding_size not in (None, width):
        refuse(where, "embedding_size", str(config.embedding_size), [f"{width}, the hidden_size"])
    if config.attention_head_size not in (None, width // heads):
        refuse(
            where, "attention_head_size", str(config.attention_head_size), [f"{width // heads}, hidden_size / heads"]
        )
    farthest = config.max_relative_positions if config.max_relative_positions >= 1 else config.max_position_embeddings
    buckets = max(config.position_buckets, 0)
    if buckets and not 2 <= buckets // 2 < farthest - 1:
        refuse(where, "position_buckets", str(buckets), [f"4 to {2 * (farthest - 2)}, or −1"])

    def layer(number: int) -> Layer:
        at = f"encoder.layer.{number}"
        shared = _LAYER.layer(at, width, inner)
        if config.share_att_key:
            return shared
        key, query = (Linear(f"{at}.attention.self.pos_{role}_proj", width, width) for role in ("key", "query"))
        return replace(
            shared, distance_key=key if "c2p" in terms else None, distance_query=query if "p2c" in terms else None
        )

    normalised = "layer_norm" in [word.strip() for word in config.norm_rel_ebd.lower().split("|")]
    return Encoder(
        architecture="deberta-v2",
        width=width,
        heads=heads,
        inner=inner,
        vocab_size=config.vocab_size,
        positions=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        epsilon=config.layer_norm_eps,
        activation=activation(where, "hidden_act", config.hidden_act),
        words="embeddings.word_embeddings.weight",
        places="embeddings.position_embeddings.weight" if config.position_biased_input else None,
        types="embeddings.token_type_embeddings.weight" if config.type_vocab_size else None,
        embedded_norm=Norm("embeddings.LayerNorm", width),
        layers=tuple(layer(number) for number in range(config.num_hidden_layers)),
        layer_prefix="encoder.layer.",
        disentangled=Disentangled(
            table="encoder.rel_embeddings.weight",
            norm=Norm("encoder.LayerNorm", width) if normalised else None,
            span=buckets or farthest,
            buckets=buckets,
            farthest=farthest,
            key_of_distance="c2p" in terms,
            query_of_distance="p2c" in terms,
        ),
    )


def _terms(config: DebertaConfig, where: str) -> list[str]:
    """`c2p`, `p2c` or both."""
    said = config.pos_att_type or []
    terms = [word.strip() for word in said.lower().split("|")] if isinstance(said, str) else said
    if not config.relative_attention:
        refuse(where, "relative_attention", "false", ["true"])
    if not terms or set(terms) - {"c2p", "p2c"}:
        refuse(where, "pos_att_type", repr(config.pos_att_type), ["c2p", "p2c", "c2p|p2c"])
    return terms
