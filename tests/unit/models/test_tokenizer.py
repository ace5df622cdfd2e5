"""Does the tokenizer do what the model needs, and nothing that a training run left in it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from orchestrator.models.errors import ModelError
from orchestrator.models.synthetic import tokenizer_document
from orchestrator.models.tokenizer import Prepared, prepare_tokenizer


def write(directory: Path, document: object) -> None:
    (directory / "tokenizer.json").write_text(json.dumps(document))


def prepare(directory: Path, vocab_size: int = 6000, lowercase: bool = False) -> Prepared:
    return prepare_tokenizer(directory, vocab_size=vocab_size, lowercase=lowercase)


def with_leftovers() -> dict[str, Any]:
    tokenizer = Tokenizer.from_str(json.dumps(tokenizer_document()))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    return document


def test_truncation_and_padding_are_stripped(tmp_path: Path) -> None:
    write(tmp_path, with_leftovers())
    tokenizer = Tokenizer.from_str(prepare(tmp_path).data.decode())
    assert tokenizer.truncation is None
    assert tokenizer.padding is None
    assert len(tokenizer.encode("a").ids) == 3
    assert len(tokenizer.encode("a " * 40).ids) == 42


def test_special_tokens_of_one_text_are_counted(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_document())
    assert prepare(tmp_path).special_tokens == 2
    write(tmp_path, tokenizer_document() | {"post_processor": None})
    assert prepare(tmp_path).special_tokens == 0


def test_lowercasing_comes_before_the_rules_of_the_tokenizer(tmp_path: Path) -> None:
    document = tokenizer_document()
    document["normalizer"]["lowercase"] = False
    write(tmp_path, document)
    kept = Tokenizer.from_str(prepare(tmp_path).data.decode())
    lowered = Tokenizer.from_str(prepare(tmp_path, lowercase=True).data.decode())
    assert "[UNK]" in kept.encode("HELLO").tokens
    assert lowered.encode("HELLO").ids == kept.encode("hello").ids


def test_lowercasing_needs_no_rules_before_it(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_document() | {"normalizer": None})
    lowered = Tokenizer.from_str(prepare(tmp_path, lowercase=True).data.decode())
    assert lowered.encode("ABC").ids == lowered.encode("abc").ids


def test_an_id_beyond_the_rows_of_the_model_is_refused_with_its_token(tmp_path: Path) -> None:
    document = tokenizer_document()
    document["model"]["vocab"]["beyond"] = 7000
    write(tmp_path, document)
    with pytest.raises(ModelError, match="token 'beyond' has the id 7000, the model has rows for 0 to 5999"):
        prepare(tmp_path)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "cannot understand the tokenizer"),
        ({"version": "1.0", "model": {"type": "Nonsense"}}, "cannot understand the tokenizer"),
        ([], "cannot understand the tokenizer"),
        (tokenizer_document() | {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}, "no tokens"),
    ],
)
def test_a_tokenizer_that_is_none_is_refused_by_file(tmp_path: Path, document: object, words: str) -> None:
    if isinstance(document, dict):
        document = {**document}
    write(tmp_path, document)
    with pytest.raises(ModelError, match=words) as raised:
        prepare(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(raised.value)


def test_a_tokenizer_that_gives_no_tokens_is_refused(tmp_path: Path) -> None:
    document = tokenizer_document()
    document["normalizer"] = {"type": "Replace", "pattern": {"Regex": ".*"}, "content": ""}
    write(tmp_path, document)
    with pytest.raises(ModelError, match="no token came out of"):
        prepare(tmp_path)


def test_a_directory_without_any_tokenizer_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither tokenizer\.json nor one of vocab\.txt, vocab\.json"):
        prepare(tmp_path)


@pytest.mark.parametrize(
    ("config", "text", "same_as"),
    [
        ({"do_lower_case": False}, "HELLO", "[UNK]"),
        ({"do_lower_case": True}, "HELLO", "hello"),
        ({}, "HELLO", "hello"),
        ({"strip_accents": False}, "naïve", "[UNK]"),
        ({"do_lower_case": None, "strip_accents": None}, "NAÏVE", "naive"),
        ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"}, "HELLO", "hello"),
    ],
)
def test_the_configuration_of_the_tokenizer_decides_about_letters_as_in_transformers(
    tmp_path: Path, config: dict[str, Any], text: str, same_as: str
) -> None:
    write(tmp_path, tokenizer_document())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"} | config))
    tokenizer = Tokenizer.from_str(prepare(tmp_path).data.decode())
    assert tokenizer.encode(text).ids == tokenizer.encode(same_as).ids


def test_a_configuration_of_the_tokenizer_that_is_none_is_refused_by_file(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_document())
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": "yes"}')
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: cannot understand.*\$\.do_lower_case"):
        prepare(tmp_path)
