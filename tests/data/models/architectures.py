"""Which tiny model of each architecture do the tests use, and which token ids do they give it?

Seeded weights, made by numpy: the same on every machine. Ids and not texts, so that no tokenizer stands between the two sides; none
of them is a padding id, which some architectures do not count as a position.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from orchestrator.models.settings import read_encoder
from orchestrator.models.synthetic import SyntheticWeights, tokenizer_document

SEED = 5
LENGTHS = (9, 40, 1, 17)
FIRST_ID = 2
"""0 and 1 are the padding ids of the cases."""

_BERT: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 6000,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_ROBERTA = _BERT | {
    "model_type": "roberta",
    "architectures": ["RobertaModel"],
    "pad_token_id": 1,
    "max_position_embeddings": 50,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
_MPNET = {key: value for key, value in _ROBERTA.items() if key != "type_vocab_size"} | {
    "model_type": "mpnet",
    "architectures": ["MPNetModel"],
    "max_position_embeddings": 302,
    "relative_attention_num_buckets": 32,
}
_ALBERT = _BERT | {"model_type": "albert", "architectures": ["AlbertModel"], "embedding_size": 16}
_ELECTRA = _BERT | {"model_type": "electra", "architectures": ["ElectraModel"]}
_DEBERTA = _BERT | {
    "model_type": "deberta-v2",
    "architectures": ["DebertaV2Model"],
    "max_position_embeddings": 300,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 16,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
}
_MODERN: dict[str, Any] = {
    "model_type": "modernbert",
    "architectures": ["ModernBertModel"],
    "vocab_size": 6000,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 48,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "local_attention": 8,
    "pad_token_id": 0,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "bos_token_id": 2,
    "eos_token_id": 3,
}

CASES: dict[str, dict[str, Any]] = {
    "bert": {"config": _BERT},
    "bert-silu": {"config": _BERT | {"hidden_act": "silu", "layer_norm_eps": 1e-3}},
    "roberta": {"config": _ROBERTA},
    "xlm-roberta": {"config": _ROBERTA | {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"]}},
    "camembert": {"config": _ROBERTA | {"model_type": "camembert", "architectures": ["CamembertModel"]}},
    "roberta-pad-0": {"config": _ROBERTA | {"pad_token_id": 0, "type_vocab_size": 2, "hidden_act": "gelu_new"}},
    "mpnet": {"config": _MPNET, "lengths": (9, 300, 1, 130)},
    "electra-narrow": {"config": _ELECTRA | {"embedding_size": 16}},
    "electra": {"config": _ELECTRA | {"embedding_size": 32, "hidden_act": "relu"}},
    "albert": {"config": _ALBERT | {"num_hidden_layers": 3, "hidden_act": "gelu_new"}},
    "albert-groups": {
        "config": _ALBERT
        | {"num_hidden_layers": 5, "num_hidden_groups": 2, "inner_group_num": 2, "num_attention_heads": 2}
    },
    "deberta-v3": {"config": _DEBERTA, "lengths": (9, 130, 1, 40)},
    "deberta-v2": {
        "config": _DEBERTA
        | {
            "type_vocab_size": 2, "position_biased_input": True, "pos_att_type": "p2c|c2p", "share_att_key": False,
            "norm_rel_ebd": "none",
        }
    },
    "deberta-c2p": {"config": _DEBERTA | {"pos_att_type": "c2p", "position_buckets": -1, "max_relative_positions": 12}},
    "modernbert": {
        "config": _MODERN
        | {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    },
    "modernbert-biases": {
        "config": _MODERN
        | {
            "norm_bias": True, "attention_bias": True, "mlp_bias": True, "hidden_activation": "silu",
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_theta": 500.0, "rope_type": "default"},
                "sliding_attention": {"rope_theta": 20.0, "rope_type": "default"},
            },
        }
    },
    "deberta-p2c": {"config": _DEBERTA | {"pos_att_type": "p2c", "share_att_key": False}},
}  # fmt: skip
"""By name. `lengths` where the ids are not of LENGTHS."""


def ids_of(name: str) -> list[np.ndarray]:
    """int32 ids of each sequence."""
    lengths = CASES[name].get("lengths", LENGTHS)
    random = np.random.default_rng(SEED)
    return [random.integers(FIRST_ID, CASES[name]["config"]["vocab_size"], n, dtype=np.int32) for n in lengths]


def write(directory: Path, name: str, *, prefix: str = "") -> Path:
    """The directory of a case, as save_pretrained would write it; `prefix` is put before the names of tensors."""
    config = CASES[name]["config"]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer_document(), ensure_ascii=False), encoding="utf-8")
    weights = SyntheticWeights(read_encoder(config, "a test"), SEED)
    save_file({prefix + key: weights.read(key) for key in weights.names()}, directory / "model.safetensors")
    return directory
