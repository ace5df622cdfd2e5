"""Which tensors does an ELECTRA have? Those of a BERT, with narrower embeddings that a matrix widens. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.models.build.bert import BertConfig, encoder_of
from orchestrator.models.build.encoder import Encoder, Linear, Norm
from orchestrator.models.build.limits import Count
from orchestrator.models.documents import convert


class ElectraConfig(BertConfig, frozen=True):
    embedding_size: Count = 128


def describe(document: dict[str, Any], where: str) -> Encoder:
    """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
    config = convert(document, ElectraConfig, where, "the configuration of an ELECTRA")
    encoder = encoder_of(config, where, "electra")
    if config.embedding_size == config.hidden_size:
        return encoder
    return replace(
        encoder,
        embedded_norm=Norm("embeddings.LayerNorm", config.embedding_size),
        widened=Linear("embeddings_project", config.embedding_size, config.hidden_size),
    )
