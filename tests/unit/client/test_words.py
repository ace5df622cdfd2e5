"""Are words remembered, few enough of them, and only where a text is no more than its words?"""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from orchestrator.client import words
from orchestrator.client.words import Words

LIKE, LOVE, YOU, DOT, UNKNOWN = 4, 5, 6, 8, 1


class Asked:
    """A tokenizer that notes what it has to read."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.read: list[str] = []

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.read += texts
        return self._tokenizer.encode_batch_fast(texts, **options)


def plain(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.fixture
def asked(tokenizer_json: Path) -> Asked:
    return Asked(plain(tokenizer_json))


@pytest.fixture
def remembered(asked: Asked) -> Words:
    return Words(asked, b"", b"", ["[MASK]"], lower=True)  # type: ignore[arg-type]


def ids(packed: bytes | None) -> list[int] | None:
    return None if packed is None else list(array("i", packed))


def test_a_word_is_read_once_however_it_is_written(asked: Asked, remembered: Words) -> None:
    assert [ids(one) for one in remembered.read(["I love you.", "LOVE\nyou you"])] == [[7, 5, 6, 8], [5, 6, 6]]
    assert sorted(asked.read) == [".", "i", "love", "you"]
    assert ids(remembered.read(["you Love"])[0]) == [YOU, LOVE]
    assert len(asked.read) == 4


def test_a_text_of_nothing_has_no_ids_and_one_with_control_characters_is_left_to_the_tokenizer(
    asked: Asked, remembered: Words
) -> None:
    assert remembered.read(["", " \t", "love\x00you", "love\u00a0you"]) == [b"", b"", None, None]
    assert asked.read == []


def test_a_token_that_is_more_than_a_word_is_not_torn(asked: Asked, remembered: Words) -> None:
    remembered.read(["love [mask]."])
    assert sorted(asked.read) == ["[mask].", "love"]


def test_words_that_come_again_stay_and_others_are_forgotten(
    asked: Asked, remembered: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", 2)
    for text in ("love", "like", "you", "love", "a", "b", "love", "c", "d", "love"):
        remembered.read([text])
    assert asked.read.count("love") == 1
    assert ids(remembered.read(["like"])[0]) == [LIKE]
    assert asked.read.count("like") == 2


def test_a_long_word_is_not_kept(asked: Asked, remembered: Words) -> None:
    long = "x" * (words.LONGEST_WORD + 1)
    assert [ids(remembered.read([long])[0]) for _ in range(2)] == [[UNKNOWN], [UNKNOWN]]
    assert asked.read == [long, long]


def test_of_a_text_with_very_many_new_words_some_are_learned_and_the_tokenizer_reads_it(
    asked: Asked, remembered: Words
) -> None:
    text = " ".join(f"w{number}" for number in range(words.MOST_NEW + 1))
    assert remembered.read([text]) == [None]
    assert len(asked.read) == words.MOST_NEW
    assert ids(remembered.read([text])[0]) == [UNKNOWN] * (words.MOST_NEW + 1)


def test_what_is_not_to_learn_leaves_a_text_with_a_new_word(asked: Asked, remembered: Words) -> None:
    remembered.read(["love"])
    assert [ids(one) for one in remembered.read(["love", "you love"], learn=False)] == [[LOVE], None]
    assert asked.read == ["love"]


def test_what_stands_around_a_text_is_found_out(tokenizer_json: Path) -> None:
    found = Words.of(plain(tokenizer_json))
    assert found is not None
    assert (ids(found.before), ids(found.after)) == ([2], [3])


@pytest.mark.parametrize(
    "change",
    [
        lambda one: setattr(one, "normalizer", normalizers.Lowercase()),
        lambda one: setattr(one, "pre_tokenizer", pre_tokenizers.ByteLevel()),
        lambda one: one.add_tokens(["of two"]),
        lambda one: one.add_tokens(["größe"]),
    ],
    ids=["another normalizer", "another pre-tokenizer", "a token of two words", "a token whose case is not plain"],
)
def test_where_a_text_is_more_than_its_words_nothing_is_remembered(tokenizer_json: Path, change: Any) -> None:
    tokenizer = plain(tokenizer_json)
    change(tokenizer)
    assert Words.of(tokenizer) is None
