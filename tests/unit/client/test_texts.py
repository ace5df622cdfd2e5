"""Are texts made into tokens whole, cut where asked, and refused otherwise?"""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from orchestrator.client.texts import (
    CHARACTERS_PER_TOKEN,
    NoTokens,
    Side,
    TextEncoder,
    TextTooLong,
    TooManyCharacters,
    pack,
)

CLS, SEP, LIKE, LOVE, YOU = 2, 3, 4, 5, 6


def ids_of(packed: bytes) -> list[int]:
    return list(array("i", packed))


def test_the_truncation_and_padding_of_the_file_are_ignored(tokenizer_json: Path) -> None:
    tokens = TextEncoder(tokenizer_json, 16).encode(["like you love you like you"])
    assert tokens.lengths == [8]
    assert ids_of(tokens.ids) == [CLS, LIKE, YOU, LOVE, YOU, LIKE, YOU, SEP]


def test_several_texts_lie_one_after_the_other_in_their_order(tokenizer_json: Path) -> None:
    tokens = TextEncoder(tokenizer_json, 16).encode(["like", "", "love you"])
    assert tokens.lengths == [3, 2, 4]
    assert ids_of(tokens.ids) == [CLS, LIKE, SEP, CLS, SEP, CLS, LOVE, YOU, SEP]
    assert tokens.total == 9


def test_a_text_over_the_limit_is_refused_with_its_position_and_both_numbers(tokenizer_json: Path) -> None:
    encoder = TextEncoder(tokenizer_json, 4)
    with pytest.raises(TextTooLong, match="text 1 has 5 tokens, the limit is 4") as caught:
        encoder.encode(["like", "like love you"])
    assert caught.value.position == 1


def test_a_text_of_exactly_the_limit_is_taken(tokenizer_json: Path) -> None:
    assert TextEncoder(tokenizer_json, 5).encode(["like love you"]).lengths == [5]


@pytest.mark.parametrize(("side", "kept"), [("right", [CLS, LIKE, LOVE, SEP]), ("left", [CLS, LOVE, YOU, SEP])])
def test_cutting_keeps_the_special_tokens_and_the_other_side(tokenizer_json: Path, side: str, kept: list[int]) -> None:
    tokens = TextEncoder(tokenizer_json, 4).encode(["like love you"], cut=side)  # type: ignore[arg-type]
    assert ids_of(tokens.ids) == kept


def test_cutting_leaves_a_short_text_alone(tokenizer_json: Path) -> None:
    assert ids_of(TextEncoder(tokenizer_json, 16).encode(["love"], cut="right").ids) == [CLS, LOVE, SEP]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_huge_text_is_cut_to_the_same_tokens_as_if_all_of_it_had_been_read(tokenizer_json: Path, side: str) -> None:
    limit = 12
    text = "i love you . " * 50_000 + "like"
    encoder = TextEncoder(tokenizer_json, limit)
    whole = encoder.spell([text], special=False)[0].ids
    inner = whole[: limit - 2] if side == "right" else whole[-(limit - 2) :]
    assert ids_of(encoder.encode([text], cut=side).ids) == [CLS, *inner, SEP]  # type: ignore[arg-type]


def test_a_huge_text_over_the_limit_is_refused_without_reading_all_of_it(tokenizer_json: Path) -> None:
    with pytest.raises(TextTooLong, match="text 0 has more than 24 tokens, the limit is 12"):
        TextEncoder(tokenizer_json, 12).encode(["love " * 100_000])


def test_a_huge_text_of_few_words_is_read_to_its_end_and_taken(tokenizer_json: Path) -> None:
    """Words of over 100 characters are one unknown token each: length in characters says nothing about tokens."""
    text = " ".join(["x" * 400] * 5)
    limit = 8
    assert len(text) > 2 * CHARACTERS_PER_TOKEN * limit
    assert TextEncoder(tokenizer_json, limit).encode([text]).lengths == [7]


def test_a_huge_text_without_any_blank_is_one_unknown_word(tokenizer_json: Path) -> None:
    assert TextEncoder(tokenizer_json, 8).encode(["x" * 8_000]).lengths == [3]


@pytest.mark.parametrize("cut", [None, "right", "left"])
def test_a_text_of_more_characters_than_any_writing_is_refused_without_reading_all_of_it(
    tokenizer_json: Path, cut: Side | None
) -> None:
    for text in ("x" * 8_001, "x " + "x" * 1_000_000 + " x"):
        with pytest.raises(TooManyCharacters, match=f"text 1 has {len(text)} characters .* the limit is 8000"):
            TextEncoder(tokenizer_json, 8).encode(["like", text], cut=cut)


def test_a_text_that_is_huge_because_of_blanks_is_not_mistaken_for_a_short_one(tokenizer_json: Path) -> None:
    text = " " * 5_000 + "like"
    assert TextEncoder(tokenizer_json, 8).encode([text]).lengths == [3]


def test_short_and_huge_texts_keep_their_places_in_a_batch(tokenizer_json: Path) -> None:
    tokens = TextEncoder(tokenizer_json, 4).encode(["like", "love you " * 1000, "love"], cut="right")
    assert ids_of(tokens.ids) == [CLS, LIKE, SEP, CLS, LOVE, YOU, SEP, CLS, LOVE, SEP]


def test_text_that_becomes_no_token_at_all_is_refused(tokenizer_json: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    bare = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.save(str(tokenizer_json))
    with pytest.raises(NoTokens, match="text 1"):
        TextEncoder(tokenizer_json, 8).encode(["a", ""])


def test_ids_of_a_caller_are_packed_as_little_endian_int32() -> None:
    tokens = pack([[1], [2, 70_000]])
    assert tokens.lengths == [1, 2]
    assert tokens.ids == b"\x01\0\0\0\x02\0\0\0\x70\x11\x01\0"
