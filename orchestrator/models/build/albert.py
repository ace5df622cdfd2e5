"""Which tensors does an ALBERT have? Few: its layers share them, and its embeddings are narrow. Pure.

Layers come in groups; layer i of n belongs to group ⌊i · groups / n⌋ and runs the group's inner layers one after the other.
The graph holds each shared tensor once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.models.build.bert import BertConfig, encoder_of
from orchestrator.models.build.encoder import Encoder, LayerNames, Linear, Norm
from orchestrator.models.build.limits import Count, contradiction
from orchestrator.models.documents import convert

_LAYER = LayerNames(
    query="attention.query",
    key="attention.key",
    value="attention.value",
    attended="attention.dense",
    attended_norm="attention.LayerNorm",
    up="ffn",
    down="ffn_output",
    norm="full_layer_layer_norm",
)


class AlbertConfig(BertConfig, frozen=True):
    embedding_size: Count = 128
    hidden_act: str = "gelu_new"
    num_hidden_groups: Count = 1
    inner_group_num: Count = 1


def describe(document: dict[str, Any], where: str) -> Encoder:
    """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
    config = convert(document, AlbertConfig, where, "the configuration of an ALBERT")
    if config.num_hidden_groups > config.num_hidden_layers:
        contradiction(where, f"{config.num_hidden_groups} groups of {config.num_hidden_layers} layers")
    width, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers

    groups = [number * config.num_hidden_groups // layers for number in range(layers)]
    return replace(
        encoder_of(config, where, "albert"),
        embedded_norm=Norm("embeddings.LayerNorm", config.embedding_size),
        widened=Linear("encoder.embedding_hidden_mapping_in", config.embedding_size, width),
        layers=tuple(
            _LAYER.layer(f"encoder.albert_layer_groups.{group}.albert_layers.{number}", width, inner)
            for group in groups
            for number in range(config.inner_group_num)
        ),
        layer_prefix="encoder.albert_layer_groups.",
        numbered_layers=config.num_hidden_groups,
    )
