"""Does the token cache give the tokens that the tokenizer would, and never those of a text that was cut?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.client.texts import TextEncoder
from orchestrator.gateway import tokenize
from orchestrator.gateway.caches import BoundedCache
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tokenize import Tokenizing
from orchestrator.models.synthetic import tokenizer_document

LIMIT = 12


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_document()), encoding="utf-8")
    return TextEncoder(path, LIMIT)


async def test_a_text_seen_before_is_not_tokenized_again(encoder: TextEncoder) -> None:
    cached, plain = Tokenizing(encoder, BoundedCache(1 << 20)), Tokenizing(encoder)
    assert cached.cache is not None
    first = await cached.encode(["rain", "snow"], None)
    assert (cached.cache.hits, cached.cache.misses) == (0, 2)
    second = await cached.encode(["fog", "snow", "rain", "fog"], None)
    assert (cached.cache.hits, cached.cache.misses) == (2, 4)
    for tokens, texts in ((first, ["rain", "snow"]), (second, ["fog", "snow", "rain", "fog"])):
        expected = await plain.encode(texts, None)
        assert (tokens.lengths, bytes(tokens.ids)) == (expected.lengths, bytes(expected.ids))


async def test_tokens_of_a_cut_text_are_not_kept(encoder: TextEncoder) -> None:
    cached = Tokenizing(encoder, BoundedCache(1 << 20))
    assert cached.cache is not None
    long = " ".join(consonant + vowel for consonant in "bcdf" for vowel in "aeiou")
    right = await cached.encode([long], "right")
    left = await cached.encode([long], "left")
    assert right.lengths == left.lengths == [LIMIT]
    assert bytes(right.ids) != bytes(left.ids)
    assert len(cached.cache) == 0
    with pytest.raises(Refusal, match="the limit is 12"):
        await cached.encode([long], None)


async def test_a_refusal_names_the_text_by_its_place_in_the_request(encoder: TextEncoder) -> None:
    cached = Tokenizing(encoder, BoundedCache(1 << 20))
    await cached.encode(["rain"], None)
    with pytest.raises(Refusal, match="text 1 has"):
        await cached.encode(["rain", "ba be bi bo bu " * 5], None)


async def test_a_long_text_of_known_words_does_not_leave_the_loop(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with a new word does, as does one that is too long."""
    monkeypatch.setattr(tokenize, "ON_LOOP_CHARACTERS", 8)
    tokenizing = Tokenizing(encoder)
    left: list[int] = []
    apply = tokenizing.apply

    def noted(encode: Any, characters: int) -> Any:
        left.append(characters)
        return apply(encode, characters)

    monkeypatch.setattr(tokenizing, "apply", noted)
    first = await tokenizing.encode(["rain snow"], None)
    again = await tokenizing.encode(["snow rain"], None)
    assert left == [9]
    assert sorted(np.frombuffer(first.ids, np.int32)) == sorted(np.frombuffer(again.ids, np.int32))
    assert (await tokenizing.encode(["rain " * LIMIT], "right")).lengths == [LIMIT]
    await tokenizing.encode(["fog rain snow"], None)
    with pytest.raises(Refusal, match="the limit is 12"):
        await tokenizing.encode(["rain " * LIMIT], None)
    assert left == [9, 13, 60]


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    cache: BoundedCache[str, int] = BoundedCache(16 * 1000)
    for number in range(100):
        cache.put(f"text {number}", number, 500)
        cache.get("text 0")
        cache.validate()
    assert cache.get("text 0") == 0
    assert cache.get("text 99") == 99
    assert cache.get("text 1") is None
    assert len(cache) == 16 * 1000 // 740


def test_what_would_push_out_everything_else_is_not_kept() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(16 * 1000)
    cache.put("small", b"", 10)
    cache.put("huge", b"", 2000)
    assert cache.get("huge") is None
    assert cache.get("small") == b""


def test_a_key_put_twice_counts_once() -> None:
    cache: BoundedCache[str, int] = BoundedCache(1 << 20)
    for size in (10, 500, 20):
        cache.put("one", size, size)
        cache.validate()
    assert (len(cache), cache.get("one")) == (1, 20)


async def test_ids_of_the_cache_are_int32(encoder: TextEncoder) -> None:
    cached = Tokenizing(encoder, BoundedCache(1 << 20))
    for _ in range(2):
        tokens = await cached.encode(["rain"], None)
        assert len(np.frombuffer(tokens.ids, np.int32)) == tokens.lengths[0]
