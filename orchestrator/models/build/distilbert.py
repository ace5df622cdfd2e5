"""Which tensors does a DistilBERT have? Pure.

Half of BERT's layers, no token types; sinusoidal positions, where the configuration asks for them, are stored as a table like learnt ones.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.models.build.encoder import Encoder, LayerNames, Norm
from orchestrator.models.build.limits import Count, activation, heads_fit, refuse
from orchestrator.models.documents import convert

_LAYER = LayerNames(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attended="attention.out_lin",
    attended_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    norm="output_layer_norm",
)


class DistilBertConfig(msgspec.Struct, frozen=True):
    """The fields of config.json that decide the graph."""

    vocab_size: Count
    dim: Count
    n_layers: Count
    n_heads: Count
    hidden_dim: Count
    max_position_embeddings: Count
    activation: str = "gelu"
    pruned_heads: dict[str, Any] = {}


def describe(document: dict[str, Any], where: str) -> Encoder:
    """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
    config = convert(document, DistilBertConfig, where, "the configuration of a DistilBERT")
    if config.pruned_heads:
        refuse(where, "pruned_heads", str(config.pruned_heads), ["none"])
    heads_fit(where, config.dim, config.n_heads)
    width, inner = config.dim, config.hidden_dim

    return Encoder(
        architecture="distilbert",
        width=width,
        heads=config.n_heads,
        inner=inner,
        vocab_size=config.vocab_size,
        positions=config.max_position_embeddings,
        type_vocab_size=0,
        epsilon=1e-12,  # fixed in the architecture, not a field of its configuration
        activation=activation(where, "activation", config.activation),
        words="embeddings.word_embeddings.weight",
        places="embeddings.position_embeddings.weight",
        types=None,
        embedded_norm=Norm("embeddings.LayerNorm", width),
        layers=tuple(_LAYER.layer(f"transformer.layer.{number}", width, inner) for number in range(config.n_layers)),
        layer_prefix="transformer.layer.",
    )
