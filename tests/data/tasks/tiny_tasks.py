"""Which tiny models with task heads do the tests use, and what are they asked? Directories with seeded weights, made on the spot.

Both sides write them with this file: `make_reference.py` for transformers.pipeline to read, the tests for ours. A request is the body of
POST /predict; its answer is what the pipeline gives for `inputs` and `parameters`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from orchestrator.models.build import heads
from orchestrator.models.settings import read_encoder
from orchestrator.models.synthetic import SyntheticWeights, tokenizer_document
from orchestrator.models.tasks import KINDS, choose_task, read_head

SPREAD = 6.0
"""Head weights are so many times larger than the encoder's, or every softmax would be flat and every answer a tie."""

BERT: dict[str, Any] = {
    "model_type": "bert", "vocab_size": 6000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 48, "type_vocab_size": 2, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
DISTILBERT: dict[str, Any] = {
    "model_type": "distilbert", "vocab_size": 6000, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64,
    "max_position_embeddings": 48, "activation": "gelu", "pad_token_id": 0, "sinusoidal_pos_embds": False,
}  # fmt: skip
ROBERTA: dict[str, Any] = BERT | {
    "model_type": "roberta", "vocab_size": 300, "type_vocab_size": 1, "max_position_embeddings": 130, "pad_token_id": 1,
    "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-5,
}  # fmt: skip
MPNET: dict[str, Any] = {**ROBERTA, "model_type": "mpnet", "relative_attention_num_buckets": 32}
ALBERT: dict[str, Any] = BERT | {"model_type": "albert", "embedding_size": 16, "hidden_act": "gelu_new"}
ELECTRA: dict[str, Any] = BERT | {"model_type": "electra", "embedding_size": 16}

NER = {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC", "4": "I-LOC"}
NLI = {
    "id2label": {"0": "CONTRADICTION", "1": "NEUTRAL", "2": "ENTAILMENT"},
    "label2id": {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2},
}

DEBERTA: dict[str, Any] = BERT | {
    "model_type": "deberta-v2", "type_vocab_size": 0, "layer_norm_eps": 1e-7, "relative_attention": True,
    "max_relative_positions": -1, "position_buckets": 16, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True, "norm_rel_ebd": "layer_norm",
}  # fmt: skip

MODERN: dict[str, Any] = {
    "model_type": "modernbert", "vocab_size": 6000, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 48, "hidden_activation": "gelu", "norm_eps": 1e-5,
    "local_attention": 8, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip

PREFIXES = {
    "bert": "bert.", "distilbert": "distilbert.", "roberta": "roberta.", "xlm-roberta": "roberta.", "mpnet": "mpnet.",
    "albert": "albert.", "deberta-v2": "deberta.", "modernbert": "model.", "electra": "electra.",
}  # fmt: skip

BYTE_LEVEL = ("roberta", "xlm-roberta", "mpnet")
"""Architectures whose tiny models have RoBERTa's kind of tokenizer."""

CASES: dict[str, dict[str, Any]] = {
    "bert-classes": BERT | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "poor", "1": "fair", "2": "good"}},
    "bert-several": BERT
    | {
        "architectures": ["BertForSequenceClassification"], "problem_type": "multi_label_classification",
        "id2label": {"0": "rain", "1": "wind", "2": "snow", "3": "fog"},
    },
    "bert-number": BERT
    | {"architectures": ["BertForSequenceClassification"], "problem_type": "regression", "id2label": {"0": "stars"}},
    "bert-relevance": BERT | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}},
    "bert-entailment": BERT | {"architectures": ["BertForSequenceClassification"], **NLI},
    "distilbert-sentiment": DISTILBERT
    | {"architectures": ["DistilBertForSequenceClassification"], "id2label": {"0": "NEGATIVE", "1": "POSITIVE"}},
    "roberta-classes": ROBERTA | {"architectures": ["RobertaForSequenceClassification"], "num_labels": 3},
    "albert-classes": ALBERT | {"architectures": ["AlbertForSequenceClassification"]},
    "electra-classes": ELECTRA | {"architectures": ["ElectraForSequenceClassification"]},
    "bert-entities": BERT | {"architectures": ["BertForTokenClassification"], "id2label": NER},
    "distilbert-entities": DISTILBERT | {"architectures": ["DistilBertForTokenClassification"], "id2label": NER},
    "roberta-entities": ROBERTA | {"architectures": ["RobertaForTokenClassification"], "id2label": NER},
    "bert-mask": BERT | {"architectures": ["BertForMaskedLM"]},
    "distilbert-mask": DISTILBERT | {"architectures": ["DistilBertForMaskedLM"]},
    "roberta-mask": ROBERTA | {"architectures": ["RobertaForMaskedLM"]},
    "albert-mask": ALBERT | {"architectures": ["AlbertForMaskedLM"]},
    "electra-mask": ELECTRA | {"architectures": ["ElectraForMaskedLM"]},
    "mpnet-classes": MPNET | {"architectures": ["MPNetForSequenceClassification"], "num_labels": 3},
    "mpnet-mask": MPNET | {"architectures": ["MPNetForMaskedLM"]},
    "xlm-roberta-classes": ROBERTA
    | {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"], "num_labels": 3},
    "electra-entities": ELECTRA | {"architectures": ["ElectraForTokenClassification"], "id2label": NER},
    "distilbert-answers": DISTILBERT | {"architectures": ["DistilBertForQuestionAnswering"]},
    "deberta-entailment": DEBERTA | {"architectures": ["DebertaV2ForSequenceClassification"], **NLI},
    "deberta-typed": DEBERTA
    | {"architectures": ["DebertaV2ForSequenceClassification"], "type_vocab_size": 2, "num_labels": 3},
    "deberta-entities": DEBERTA | {"architectures": ["DebertaV2ForTokenClassification"], "id2label": NER},
    "deberta-mask": DEBERTA | {"architectures": ["DebertaV2ForMaskedLM"]},
    "modern-classes": MODERN | {"architectures": ["ModernBertForSequenceClassification"], "num_labels": 3},
    "modern-relevance": MODERN
    | {
        "architectures": ["ModernBertForSequenceClassification"], "num_labels": 1, "classifier_pooling": "mean",
        "classifier_bias": True, "norm_bias": True, "classifier_activation": "silu",
    },
    "modern-entities": MODERN | {"architectures": ["ModernBertForTokenClassification"], "id2label": NER},
    "modern-mask": MODERN | {"architectures": ["ModernBertForMaskedLM"]},
    "albert-answers": ALBERT | {"architectures": ["AlbertForQuestionAnswering"]},
    "bert-answers": BERT | {"architectures": ["BertForQuestionAnswering"]},
    "roberta-answers": ROBERTA | {"architectures": ["RobertaForQuestionAnswering"]},
}  # fmt: skip
"""By name: config.json."""

CLASSIFY: list[dict[str, Any]] = [
    {"inputs": "The river rose in the night."},
    {"inputs": ["a", "Wolves! 42 of them (or so they say) at the café door", "東京 is far"]},
    {"inputs": "The river rose in the night.", "parameters": {"top_k": 2}},
    {"inputs": ["The river rose.", "rain"], "parameters": {"top_k": None}},
    {"inputs": "rain", "parameters": {"top_k": 1}},
    {"inputs": "rain", "parameters": {"function_to_apply": "none", "top_k": None}},
    {"inputs": "rain", "parameters": {"function_to_apply": "SIGMOID", "top_k": None}},
    {"inputs": {"text": "How old is it?", "text_pair": "It is nine years old."}},
    {
        "inputs": [{"text": "How old is it?", "text_pair": "It rained."}, {"text": "rain"}],
        "parameters": {"top_k": None},
    },
    {"inputs": "word " * 60, "parameters": {"truncation": True}},
]
ZERO_SHOT: list[dict[str, Any]] = [
    {"inputs": "The river rose in the night.", "parameters": {"candidate_labels": ["weather", "sport", "money"]}},
    {"inputs": "rain", "parameters": {"candidate_labels": "weather, sport", "multi_label": True}},
    {"inputs": ["rain", "A goal!"], "parameters": {"candidate_labels": ["weather", "sport"]}},
    {"inputs": "rain", "parameters": {"candidate_labels": ["weather"], "hypothesis_template": "It is about {}!"}},
    {
        "inputs": "ba be bi " * 13,
        "parameters": {
            "candidate_labels": ["bo", "bu"],
            "hypothesis_template": "da de di do du " * 5 + "{}",
            "truncation": True,
        },
    },
]
SENTENCES = [
    "Ada Lovelace met Charles Babbage in London.",
    "Unbelievably, O'Neill's café in Zürich-West (42 seats) was sold to Müller & Söhne...",
    "a",
]
ENTITIES: list[dict[str, Any]] = [
    *({"inputs": SENTENCES[1], "parameters": {"aggregation_strategy": name}} for name in ("none", "simple", "first", "average", "max")),
    {"inputs": SENTENCES},
    {"inputs": SENTENCES, "parameters": {"aggregation_strategy": "simple"}},
    {"inputs": SENTENCES[0], "parameters": {"aggregation_strategy": "first", "ignore_labels": ["PER"]}},
    {"inputs": SENTENCES[0], "parameters": {"ignore_labels": []}},
    {"inputs": "Ωmega東京Ω 🙂rain🙂 Ада", "parameters": {"aggregation_strategy": "first", "ignore_labels": []}},
    {"inputs": " ".join(SENTENCES[:2] * 3), "parameters": {"aggregation_strategy": "simple", "stride": 8}},
]  # fmt: skip
MASKS: list[dict[str, Any]] = [
    {"inputs": "The river [MASK] in the night."},
    {"inputs": ["[MASK]", "It is a [MASK] café!"], "parameters": {"top_k": 3}},
    {"inputs": ["rain [MASK] snow"]},
    {"inputs": "The [MASK] rose in the [MASK].", "parameters": {"top_k": 2}},
    {"inputs": "The river [MASK].", "parameters": {"targets": ["ba", "bad", "x", "Ba"]}},
    {"inputs": "The river [MASK].", "parameters": {"targets": "zoo", "top_k": 4}},
]
CONTEXT = (
    "Ada Lovelace met Charles Babbage at a party in London in June 1833. He showed her his engine, which could not be finished; "
    "she wrote notes about what it might do. In 1843 the notes were printed."
)
QUESTIONS: list[dict[str, Any]] = [
    {"inputs": {"question": "Who met Babbage?", "context": "Ada Lovelace met Charles Babbage."}},
    {"inputs": {"question": "When were they printed?", "context": CONTEXT}},
    {"inputs": {"question": "Who?", "context": CONTEXT}, "parameters": {"top_k": 4, "doc_stride": 12}},
    {"inputs": {"question": "Who?", "context": CONTEXT}, "parameters": {"top_k": 3, "align_to_words": False}},
    {"inputs": {"question": "Who?", "context": CONTEXT}, "parameters": {"top_k": 3, "handle_impossible_answer": True}},
    {"inputs": {"question": "Who?", "context": CONTEXT}, "parameters": {"top_k": 16, "handle_impossible_answer": True}},
    {"inputs": {"question": "Who?", "context": CONTEXT}, "parameters": {"max_answer_len": 3, "max_seq_len": 30}},
    {
        "inputs": [
            {"question": "Where?", "context": "It was in Zürich-West, at O'Neill's."},
            {"question": "Who?", "context": "Ada Lovelace"},
        ]
    },
]

PIPELINES = {
    "text-classification": "text-classification",
    "reranking": "text-classification",
    "zero-shot-classification": "zero-shot-classification",
    "token-classification": "token-classification",
    "fill-mask": "fill-mask",
    "question-answering": "question-answering",
}
"""Our task → the pipeline's name."""


def requests(name: str) -> list[dict[str, Any]]:
    """What the model of this name is asked, with the pipeline that answers it."""
    task = choose_task(None, CASES[name], False, name)
    asked = {
        "text-classification": CLASSIFY, "reranking": CLASSIFY, "token-classification": ENTITIES, "fill-mask": MASKS,
        "question-answering": QUESTIONS,
    }[task]  # fmt: skip
    listed = [{"pipeline": PIPELINES[task], **one} for one in asked]
    if name in ("bert-entailment", "deberta-entailment"):
        listed += [{"pipeline": "zero-shot-classification", **one} for one in ZERO_SHOT]
    if name in ("roberta-mask", "mpnet-mask"):
        text = json.dumps(listed).replace("[MASK]", "<mask>")
        listed = json.loads(text)
    return listed


def write(directory: Path, name: str, *, seed: int = 3) -> Path:
    """The directory of one case."""
    config = CASES[name]
    kind = config["model_type"]
    directory.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", config)
    byte_level = kind in BYTE_LEVEL
    _write_json(directory / "tokenizer.json", byte_level_document() if byte_level else tokenizer_document())
    special = (
        {"cls_token": "<s>", "bos_token": "<s>", "sep_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
         "mask_token": "<mask>"}
        if byte_level
        else {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    )  # fmt: skip
    names = ["input_ids", "attention_mask"]
    if kind not in (*BYTE_LEVEL, "distilbert", "modernbert"):
        names.insert(1, "token_type_ids")
    limit = config["max_position_embeddings"] - (2 if byte_level else 0)
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": limit,
            "model_input_names": names,
            **special,
        },
    )
    encoder = read_encoder(config, name)
    weights = SyntheticWeights(encoder, seed)
    tensors = {PREFIXES[kind] + tensor: weights.read(tensor) for tensor in weights.names()}
    task = choose_task(None, config, False, name)
    outputs = {"question-answering": 2, "fill-mask": encoder.vocab_size}.get(task)
    head = heads.describe(config, encoder, KINDS[task], outputs or len(read_head(config, task, name).labels), name)
    generator = np.random.Generator(np.random.PCG64(seed))
    for tensor, shape in head.tensors(weights).items():
        if tensor == encoder.words:
            continue  # shared
        value = generator.standard_normal(shape).astype(np.float32)
        if head.norm is not None and tensor == f"{head.norm.name}.weight":
            value = 1 + value / 10
        elif len(shape) == 2:
            value *= SPREAD / np.sqrt(shape[1])
        inside = tensor.startswith("pooler") and kind != "deberta-v2"
        tensors[(PREFIXES[kind] if inside else "") + tensor] = value.astype(np.float32)
    save_file(tensors, directory / "model.safetensors")
    return directory


def byte_level_document() -> dict[str, Any]:
    """A tokenizer.json as RoBERTa's: byte-level pairs, blanks kept in the tokens, offsets trimmed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spelled = {byte: chr(byte) for byte in printable}
    for shift, byte in enumerate(byte for byte in range(256) if byte not in spelled):
        spelled[byte] = chr(256 + shift)
    blank = spelled[32]
    merges = ["t h", "th e", f"{blank} the", "i n", "e r", f"{blank} in", "a n", "o n", f"{blank} a", "r i", "n g"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(spelled.values()), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<mask>"])}
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": vocabulary[token], "content": token, "single_word": False, "lstrip": token == "<mask>", "rstrip": False,
             "normalized": False, "special": True}
            for token in special
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": {
            "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": merges,
        },
    }  # fmt: skip


def _write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
