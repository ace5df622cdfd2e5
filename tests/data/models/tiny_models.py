"""Which tiny models do the tests use? Directories in the layout of Hugging Face, with seeded weights, made on the spot.

Both sides write them with this file: `make_reference.py` for transformers and sentence-transformers to read, the tests for ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from orchestrator.models.settings import read_encoder
from orchestrator.models.synthetic import SyntheticWeights, tokenizer_document

BERT: dict[str, Any] = {
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
DISTILBERT: dict[str, Any] = {
    "model_type": "distilbert",
    "architectures": ["DistilBertModel"],
    "vocab_size": 6000,
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 64,
    "max_position_embeddings": 48,
    "activation": "gelu",
    "pad_token_id": 0,
    "sinusoidal_pos_embds": False,
}

TEXTS = [
    "The river rose in the night.",
    "a",
    "",
    "Wolves! 42 of them, howling (or so they say) at the café door... naïve, isn't it?",
    "東京 is far",
]

TRANSFORMER = "sentence_transformers.models.Transformer"
POOLING = "sentence_transformers.models.Pooling"
NORMALIZE = "sentence_transformers.models.Normalize"
DENSE = "sentence_transformers.models.Dense"

CASES: dict[str, dict[str, Any]] = {
    "bert": {"config": BERT},
    "bert-gelu-new": {"config": BERT | {"hidden_act": "gelu_new"}},
    "bert-relu": {"config": BERT | {"hidden_act": "relu", "layer_norm_eps": 1e-5}},
    "distilbert": {"config": DISTILBERT},
    "bert-mean-normalised": {"config": BERT, "pooling": ["mean"], "normalise": True},
    "bert-cls": {"config": BERT, "pooling": ["cls"]},
    "bert-max": {"config": BERT, "pooling": ["max"]},
    "bert-last": {"config": BERT, "pooling": ["lasttoken"]},
    "bert-root": {"config": BERT, "pooling": ["mean_sqrt_len_tokens"]},
    "bert-concatenated": {"config": BERT, "pooling": ["cls", "mean"], "dense": 16, "normalise": True},
    "distilbert-mean": {"config": DISTILBERT, "pooling": ["mean"]},
}
"""By name: the configuration, and what sentence-transformers does after the encoder; nothing: a bare encoder."""

FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def write_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def write(directory: Path, case: dict[str, Any], *, prefix: str = "", seed: int = 1) -> Path:
    """The directory of one case; `prefix` is put before the names of tensors, as task models do."""
    config = case["config"]
    write_json(directory / "config.json", config)
    write_json(directory / "tokenizer.json", tokenizer_document())
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "model_max_length": 48},
    )
    weights = SyntheticWeights(read_encoder(config, "a test"), seed)
    save_file({prefix + name: weights.read(name) for name in weights.names()}, directory / "model.safetensors")
    if "pooling" not in case:
        return directory
    width = 32 * len(case["pooling"])
    modules = [(TRANSFORMER, ""), (POOLING, "1_Pooling")]
    flags = {flag: mode in case["pooling"] for mode, flag in FLAGS.items()}
    write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **flags})
    if "dense" in case:
        modules.append((DENSE, "2_Dense"))
        document = {"in_features": width, "out_features": case["dense"], "bias": True}
        document["activation_function"] = "torch.nn.modules.activation.Tanh"
        write_json(directory / "2_Dense" / "config.json", document)
        save_file(
            {
                "linear.weight": weights.read(weights_like("query"))[: case["dense"], :].repeat(width // 32, axis=1),
                "linear.bias": weights.read("embeddings.LayerNorm.bias")[: case["dense"]],
            },
            directory / "2_Dense" / "model.safetensors",
        )
    if case.get("normalise"):
        modules.append((NORMALIZE, "3_Normalize"))
    write_json(
        directory / "modules.json",
        [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (kind, path) in enumerate(modules)],
    )
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": 44, "do_lower_case": False})
    return directory


def weights_like(role: str) -> str:
    """A square matrix of the BERT encoder, borrowed for the dense layer."""
    return f"encoder.layer.0.attention.self.{role}.weight"
