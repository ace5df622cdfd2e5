"""Which tokenizer.json serves a model, and what must it not do on its own?

What a checkpoint's tokenizer.json carries of truncation and padding is somebody's last training run (128 tokens for
all-MiniLM-L6-v2, whose own limit is 256): both are stripped. Limits belong to the gateway, padding to the worker.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.models.documents import parse, read, read_bytes
from orchestrator.models.errors import ModelError

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
"""What a tokenizer may be made of; all that are there count for the digest of the model."""

_VOCABULARIES = ("vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")

PROBE = "The quick brown fox; jumps over 13 lazy dogs — naïve café, 東京."


class Prepared(msgspec.Struct, frozen=True):
    data: bytes
    """tokenizer.json, ready to be written."""
    special_tokens: int
    """How many it adds to one text ([CLS] and [SEP]: 2)."""


class TokenizerConfig(msgspec.Struct, frozen=True):
    """tokenizer_config.json"""

    tokenizer_class: str | None = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None


def vocabulary_size(tokenizer_json: bytes) -> int:
    """One more than the largest id it can give."""
    from tokenizers import Tokenizer

    return 1 + max(Tokenizer.from_buffer(tokenizer_json).get_vocab(with_added_tokens=True).values())


class SpecialTokens(msgspec.Struct, frozen=True):
    """The ids of the tokens that have a meaning beyond their text; None where the tokenizer has none."""

    mask: int | None
    cls: int | None
    pad: int | None
    unk: int | None


_USUAL = {"mask": ("[MASK]", "<mask>"), "cls": ("[CLS]", "<s>"), "pad": ("[PAD]", "<pad>"), "unk": ("[UNK]", "<unk>")}


def special_tokens(directory: Path, tokenizer_json: bytes) -> SpecialTokens:
    """As tokenizer_config.json or special_tokens_map.json name them, else by the names that are usual."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            said |= read(directory / name, dict[str, Any], "the special tokens")
    ids: dict[str, int | None] = {}
    for role, usual in _USUAL.items():
        token = said.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        candidates = [token] if isinstance(token, str) else usual
        ids[role] = next((found for one in candidates if (found := tokenizer.token_to_id(one)) is not None), None)
    return msgspec.convert(ids, SpecialTokens)


_PLAIN_CLASSES = {"PreTrainedTokenizerFast", "TokenizersBackend"}
"""Classes that take tokenizer.json as it is. BERT's own class overrides its normaliser by tokenizer_config.json."""


def prepare_tokenizer(directory: Path, *, vocab_size: int, lowercase: bool) -> Prepared:
    """From tokenizer.json, or converted from vocabulary files. ModelError if there is none or it does not fit the model."""
    path = directory / "tokenizer.json"
    if path.is_file():
        document = parse(read_bytes(path, "the tokenizer"), dict[str, Any], path, "the tokenizer")
        document = _follow_config(document, directory / "tokenizer_config.json")
    else:
        path, document = _convert(directory)
    return finish(document, path, vocab_size=vocab_size, lowercase=lowercase)


def finish(document: dict[str, Any], path: Path, *, vocab_size: int, lowercase: bool) -> Prepared:
    """A parsed tokenizer.json without truncation and padding, tried out. ModelError if it gives ids that the model has no row for."""
    from tokenizers import Tokenizer

    document = {**document, "truncation": None, "padding": None}
    if lowercase:
        steps = [{"type": "Lowercase"}, *([document["normalizer"]] if document.get("normalizer") else [])]
        document["normalizer"] = {"type": "Sequence", "normalizers": steps}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 - the Rust side raises bare Exception for whatever is wrong
        raise ModelError(
            "cannot understand the tokenizer", where=str(path), why=str(error), remedy="download the model again"
        ) from None
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ModelError("the tokenizer is empty", where=str(path), why="it has no tokens", remedy="download it again")
    token, largest = max(vocabulary.items(), key=lambda entry: entry[1])
    if largest >= vocab_size:
        raise ModelError(
            "the tokenizer does not fit the model",
            where=str(path),
            why=f"token {token!r} has the id {largest}, the model has rows for 0 to {vocab_size - 1}",
            remedy="use the tokenizer that came with the model",
        )
    if not tokenizer.encode(PROBE, add_special_tokens=False).ids:
        raise ModelError(
            "the tokenizer gives nothing",
            where=str(path),
            why=f"no token came out of {PROBE!r}",
            remedy="use the tokenizer that came with the model",
        )
    return Prepared(text.encode("utf-8"), int(tokenizer.num_special_tokens_to_add(False)))


def _follow_config(document: dict[str, Any], path: Path) -> dict[str, Any]:
    """What tokenizer_config.json says of letters goes before what tokenizer.json says, as in transformers."""
    normalizer = document.get("normalizer")
    if not path.is_file() or not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return document
    config = read(path, TokenizerConfig, "the configuration of the tokenizer")
    if config.tokenizer_class in _PLAIN_CLASSES:
        return document
    said = {
        "lowercase": config.do_lower_case,
        "strip_accents": config.strip_accents,
        "handle_chinese_chars": config.tokenize_chinese_chars,
    }
    return {**document, "normalizer": normalizer | {rule: value for rule, value in said.items() if value is not None}}


def _convert(directory: Path) -> tuple[Path, dict[str, Any]]:
    """By transformers, which knows the classes of tokenizers; slow to import, hence only here."""
    found = [name for name in _VOCABULARIES if (directory / name).is_file()]
    if not found:
        raise ModelError(
            "no tokenizer",
            where=str(directory),
            why=f"there is neither tokenizer.json nor one of {', '.join(_VOCABULARIES)}",
            remedy="download the tokenizer files of the model into this directory",
        )
    from transformers import AutoTokenizer

    path = directory / found[0]
    try:
        loaded = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        backend = loaded.backend_tokenizer
    except Exception as error:  # noqa: BLE001 - any class of tokenizer, any kind of failure
        raise ModelError(
            "cannot convert the tokenizer",
            where=str(path),
            why=f"transformers says {type(error).__name__}: {error}",
            remedy="save the model with a tokenizer.json (save_pretrained of a fast tokenizer writes it)",
        ) from None
    document: dict[str, Any] = json.loads(backend.to_str())
    return path, document
