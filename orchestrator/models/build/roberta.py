"""Which tensors does a RoBERTa have? Those of a BERT, with positions counted from the padding id + 1. Pure.

XLM-RoBERTa and CamemBERT are RoBERTas of another vocabulary. transformers numbers positions over tokens that are not the padding
token, so a text that spells out `<pad>` in the middle is counted differently there; no tokenizer writes one by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from orchestrator.models.build.bert import BertConfig, encoder_of
from orchestrator.models.build.encoder import Encoder
from orchestrator.models.build.limits import places_left
from orchestrator.models.documents import convert


class RobertaConfig(BertConfig, frozen=True):
    pad_token_id: Annotated[int, msgspec.Meta(ge=0)] | None = 1


def _describe(architecture: str, name: str) -> Callable[[dict[str, Any], str], Encoder]:
    def describe(document: dict[str, Any], where: str) -> Encoder:
        """The encoder that config.json (parsed) describes. ModelError names the field that is not supported."""
        config = convert(document, RobertaConfig, where, f"the configuration of {name}")
        first = (1 if config.pad_token_id is None else config.pad_token_id) + 1
        positions = places_left(where, config.max_position_embeddings, first)
        return replace(encoder_of(config, where, architecture), positions=positions, first_place=first)

    return describe


describe = _describe("roberta", "a RoBERTa")
describe_xlm = _describe("xlm-roberta", "an XLM-RoBERTa")
describe_camembert = _describe("camembert", "a CamemBERT")
