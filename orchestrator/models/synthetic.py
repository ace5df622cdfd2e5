"""What are the weights of a model that nobody trained? Architectures with seeded random weights, for benchmarks and tests.

The numbers come from the raw stream of PCG64, which numpy guarantees not to change, and from exact arithmetic on it: the same on
every machine and in every release. Their spread is 1/√inputs, so that attention scores differ as they do in a trained model; with the usual
0.02 every token would attend to all others alike, and a wrong mask or head would hardly show.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from orchestrator.models.build.encoder import Encoder

VERSION = 1
"""Part of the digest: count it up whenever weights or tokenizer come out differently."""

SEED = 20240229


class SyntheticWeights:
    """Every tensor of an encoder, made when it is read."""

    def __init__(self, encoder: Encoder, seed: int = SEED, more: Mapping[str, tuple[int, ...]] | None = None) -> None:
        """`more` are tensors of a head."""
        self._shapes = encoder.tensors() | dict(more or {})
        self._seed = seed

    def names(self) -> Iterable[str]:
        return self._shapes

    def where(self, name: str) -> str:
        return f"{name} of the synthetic weights"

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._shapes.get(name)

    def read(self, name: str) -> np.ndarray:
        shape = self._shapes[name]
        unit = _uniform(f"{self._seed}:{name}", math.prod(shape)).reshape(shape)
        if len(shape) in (2, 4):  # 4: a ViT's patches
            return unit * np.float32(math.sqrt(3.0 / math.prod(shape[1:])))
        if name.endswith("weight"):  # a norm's
            return np.float32(1.0) + unit * np.float32(0.1)
        return unit * np.float32(0.1)


def _uniform(label: str, count: int) -> np.ndarray:
    """float32 in [−1, 1), `count` of them; the same for the same label for ever."""
    seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
    unit: np.ndarray = (raw >> 8).astype(np.float32)
    unit *= np.float32(2.0**-23)
    unit -= np.float32(1.0)
    return unit


def tokenizer_document() -> dict[str, Any]:
    """A tokenizer.json: WordPiece over letters, digits, punctuation and syllables, with BERT's normalisation and special tokens."""
    vocabulary = {token: number for number, token in enumerate(_pieces())}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    added = [
        {
            "id": vocabulary[token], "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }
        for token in special
    ]  # fmt: skip

    def mark(token: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": segment}}

    def text(name: str, segment: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": segment}}

    one = [mark("[CLS]", 0), text("A", 0), mark("[SEP]", 0)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": one,
            "pair": [*one, text("B", 1), mark("[SEP]", 1)],
            "special_tokens": {
                token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    }  # fmt: skip


def _pieces() -> Iterator[str]:
    """About 5,000: fewer than any model's rows, enough that texts differ in their tokens."""
    yield from ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    letters = "abcdefghijklmnopqrstuvwxyz"
    vowels = "aeiou"
    consonants = [letter for letter in letters if letter not in vowels]
    singles = [*letters, *"0123456789"]
    yield from (chr(code) for code in range(33, 127) if not chr(code).isalnum())
    syllables = [c + v for c in consonants for v in vowels]
    syllables += [v + c for c in consonants for v in vowels]
    syllables += [c + v + d for c in consonants for v in vowels for d in consonants]
    for piece in (*singles, *syllables):
        yield piece
        yield "##" + piece


def _bert(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "bert", "vocab_size": 30522, "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": 4 * width, "max_position_embeddings": 512,
        "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
    }  # fmt: skip


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "minilm-l6": _bert(384, 6, 12),
    "bert-base": _bert(768, 12, 12),
    "bert-large": _bert(1024, 24, 16),
    "distilbert": {
        "model_type": "distilbert", "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072,
        "max_position_embeddings": 512, "activation": "gelu", "pad_token_id": 0,
    },
    "roberta-base": _bert(768, 12, 12) | {
        "model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1,
        "layer_norm_eps": 1e-5, "pad_token_id": 1,
    },
    "albert-base": _bert(768, 12, 12) | {
        "model_type": "albert", "vocab_size": 30000, "embedding_size": 128, "hidden_act": "gelu_new",
    },
    "mpnet-base": _bert(768, 12, 12) | {
        "model_type": "mpnet", "vocab_size": 30527, "max_position_embeddings": 514, "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    },
    "electra-small": _bert(256, 12, 4) | {"model_type": "electra", "embedding_size": 128},
    "deberta-v3-base": _bert(768, 12, 12) | {
        "model_type": "deberta-v2", "vocab_size": 128100, "type_vocab_size": 0, "layer_norm_eps": 1e-7,
        "relative_attention": True, "position_buckets": 256, "max_relative_positions": -1,
        "position_biased_input": False, "pos_att_type": ["p2c", "c2p"], "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
    },
    "vit-base": {
        "model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "image_size": 224,
        "patch_size": 16, "num_channels": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True,
        "num_labels": 1000,
    },
}  # fmt: skip
"""By the name after `synthetic:`; the fields are those of config.json."""


def describe_bytes(name: str) -> bytes:
    """What the digest of a synthetic model is made of."""
    return json.dumps(
        {"version": VERSION, "seed": SEED, "configuration": CONFIGURATIONS[name]}, sort_keys=True
    ).encode()
