"""Which tensors does a BERT have? Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.models.build.encoder import Encoder, LayerNames, Norm
from orchestrator.models.build.limits import Count, activation, heads_fit, refuse
from orchestrator.models.documents import convert

_LAYER = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attended="attention.output.dense",
    attended_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    norm="output.LayerNorm",
)


class BertConfig(msgspec.Struct, frozen=True):
    """The fields of config.json that decide the graph. Those without a default here must be there: no guess about dimensions."""

    vocab_size: Count
    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    type_vocab_size: Count = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    position_embedding_type: str = "absolute"
    is_decoder: bool = False
    pruned_heads: dict[str, Any] = {}


def describe(document: dict[str, Any], where: str) -> Encoder:
    """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
    return encoder_of(convert(document, BertConfig, where, "the configuration of a BERT"), where, "bert")


def encoder_of(config: BertConfig, where: str, architecture: str) -> Encoder:
    """Of a BERT by any name; what a relative changes is changed in what this returns."""
    if config.position_embedding_type != "absolute":
        refuse(where, "position_embedding_type", config.position_embedding_type, ["absolute"])
    if config.is_decoder:
        refuse(where, "is_decoder", "true", ["false"])
    if config.pruned_heads:
        refuse(where, "pruned_heads", str(config.pruned_heads), ["none"])
    heads_fit(where, config.hidden_size, config.num_attention_heads)
    width, inner = config.hidden_size, config.intermediate_size
    return Encoder(
        architecture=architecture,
        width=width,
        heads=config.num_attention_heads,
        inner=inner,
        vocab_size=config.vocab_size,
        positions=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        epsilon=config.layer_norm_eps,
        activation=activation(where, "hidden_act", config.hidden_act),
        words="embeddings.word_embeddings.weight",
        places="embeddings.position_embeddings.weight",
        types="embeddings.token_type_embeddings.weight",
        embedded_norm=Norm("embeddings.LayerNorm", width),
        layers=tuple(
            _LAYER.layer(f"encoder.layer.{number}", width, inner) for number in range(config.num_hidden_layers)
        ),
        layer_prefix="encoder.layer.",
    )
