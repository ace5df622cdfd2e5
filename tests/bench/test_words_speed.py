"""What does it save to remember words? Texts of known words, and texts that never come again, against the tokenizer alone, in turns."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from orchestrator.bench.texts import short_texts, text
from orchestrator.client.texts import TextEncoder
from orchestrator.models import prepare
from orchestrator.paths import cache_folder

ROUNDS = 9
LETTERS = "etaoinshrdlu"


@pytest.fixture(scope="module")
def tokenizer() -> Path:
    return Path(prepare(None, cache=cache_folder(None, {})).tokenizer)


def seconds(encode: Callable[[str], object], texts: list[str]) -> float:
    started = time.perf_counter()
    for each in texts:
        encode(each)
    return time.perf_counter() - started


def ratio(path: Path, texts: Iterator[list[str]]) -> float:
    """Of the encoder's time to the tokenizer's, median of the rounds."""
    encoder, plain = TextEncoder(path, 512), Tokenizer.from_file(str(path))
    plain.no_truncation()
    plain.no_padding()
    ratios = []
    for _ in range(ROUNDS):
        chosen = next(texts)
        ours = seconds(lambda one: encoder.encode([one]), chosen)
        ratios.append(ours / seconds(lambda one: plain.encode_batch_fast([one])[0].ids, chosen))
    return statistics.median(ratios)


@pytest.mark.speed
def test_known_words_take_less_than_two_fifths_of_the_tokenizers_time(tokenizer: Path) -> None:
    def short() -> Iterator[list[str]]:
        while True:
            yield short_texts(7, 300)

    def long() -> Iterator[list[str]]:
        while True:
            yield [text(random.Random(number), 400) for number in range(20)]

    for texts in (short(), long()):
        found = ratio(tokenizer, texts)
        print(f"known words: {found:.2f} of the tokenizer's time")
        assert found < 0.4


@pytest.mark.speed
def test_words_that_never_come_again_cost_at_most_three_times_as_much(tokenizer: Path) -> None:
    rng = random.Random(11)

    def new() -> Iterator[list[str]]:
        while True:
            yield [" ".join("".join(rng.choices(LETTERS, k=9)) for _ in range(17)) for _ in range(100)]

    found = ratio(tokenizer, new())
    print(f"new words: {found:.2f} of the tokenizer's time")
    assert found < 3.0
