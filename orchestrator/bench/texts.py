"""Which texts does a benchmark send? Made from a seed, of known lengths in words. Pure."""

from __future__ import annotations

import random

# fmt: off
_WORDS = (
    "time", "person", "year", "way", "day", "thing", "world", "life", "hand", "part", "child", "eye", "woman",
    "place", "work", "week", "case", "point", "company", "number", "group", "problem", "fact", "river", "bread",
    "window", "letter", "engine", "winter", "garden", "music", "paper", "light", "stone", "market", "bridge",
    "summer", "kitchen", "travel", "doctor", "history", "friend", "morning", "answer", "question", "science",
    "forest", "island", "mountain", "teacher", "village", "ocean", "machine", "carries", "builds", "opens",
    "writes", "sees", "finds", "holds", "gives", "takes", "makes", "turns", "moves", "plays", "runs", "walks",
    "reads", "speaks", "grows", "falls", "small", "large", "early", "late", "young", "old", "quiet", "bright",
    "heavy", "simple", "strong", "clear", "warm", "open", "wide", "deep", "short", "long", "red", "green",
)
# fmt: on


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(words))


def short_texts(seed: int, count: int) -> list[str]:
    """8 to 26 words each."""
    rng = random.Random(seed)
    return [text(rng, rng.randint(8, 26)) for _ in range(count)]


def mixed_texts(seed: int, count: int) -> list[str]:
    """70 % of 8 to 26 words, 25 % of 60 to 110, 5 % of 380 to 480."""
    return [words for words, _ in classed_texts(seed, count)]


def classed_texts(seed: int, count: int) -> list[tuple[str, str]]:
    """The texts of `mixed_texts`, each with its class: short, medium or long."""
    rng = random.Random(seed)
    ranges = rng.choices(((8, 26, "short"), (60, 110, "medium"), (380, 480, "long")), weights=(70, 25, 5), k=count)
    return [(text(rng, rng.randint(low, high)), kind) for low, high, kind in ranges]
