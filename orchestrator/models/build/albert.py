"""Which tensors does an ALBERT have? Few: its layers share them, and its embeddings are narrow. Pure.

Layers come in groups; layer i of n belongs to group ⌊i · groups / n⌋ and runs the group's inner layers one after the other.
The graph holds each shared tensor once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.models.build.bert import BertConfig, encoder_of
from orchestrator.models.build.encoder import Encoder, Layer, Linear, Norm
from orchestrator.models.build.limits import Count, contradiction
from orchestrator.models.documents import convert


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

    def layer(group: int, number: int) -> Layer:
        at = f"encoder.albert_layer_groups.{group}.albert_layers.{number}"
        return Layer(
            query=Linear(f"{at}.attention.query", width, width),
            key=Linear(f"{at}.attention.key", width, width),
            value=Linear(f"{at}.attention.value", width, width),
            attended=Linear(f"{at}.attention.dense", width, width),
            attended_norm=Norm(f"{at}.attention.LayerNorm", width),
            up=Linear(f"{at}.ffn", width, inner),
            down=Linear(f"{at}.ffn_output", inner, width),
            norm=Norm(f"{at}.full_layer_layer_norm", width),
        )

    groups = [number * config.num_hidden_groups // layers for number in range(layers)]
    return replace(
        encoder_of(config, where, "albert"),
        embedded_norm=Norm("embeddings.LayerNorm", config.embedding_size),
        widened=Linear("encoder.embedding_hidden_mapping_in", config.embedding_size, width),
        layers=tuple(layer(group, number) for group in groups for number in range(config.inner_group_num)),
        layer_prefix="encoder.albert_layer_groups.",
        numbered_layers=config.num_hidden_groups,
    )
