"""Which tensors does a DistilBERT have? Pure.

Half of BERT's layers, no token types; sinusoidal positions, where the configuration asks for them, are stored as a table like learnt ones.
"""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.models.build.encoder import Encoder, Layer, Linear, Norm
from orchestrator.models.build.limits import Count, activation, heads_fit, refuse
from orchestrator.models.documents import convert


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

    def layer(number: int) -> Layer:
        at = f"transformer.layer.{number}"
        return Layer(
            query=Linear(f"{at}.attention.q_lin", width, width),
            key=Linear(f"{at}.attention.k_lin", width, width),
            value=Linear(f"{at}.attention.v_lin", width, width),
            attended=Linear(f"{at}.attention.out_lin", width, width),
            attended_norm=Norm(f"{at}.sa_layer_norm", width),
            up=Linear(f"{at}.ffn.lin1", width, inner),
            down=Linear(f"{at}.ffn.lin2", inner, width),
            norm=Norm(f"{at}.output_layer_norm", width),
        )

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
        layers=tuple(layer(number) for number in range(config.n_layers)),
        layer_prefix="transformer.layer.",
    )
