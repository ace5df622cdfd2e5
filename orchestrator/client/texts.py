"""How does text become token ids: whole, cut on request, or refused, and never padded?

The truncation and padding that a tokenizer.json carries are ignored: they are habits of whoever saved it, not the model's limit
(all-MiniLM-L6-v2 says 128 there, 256 in sentence_bert_config.json, and has 512 positions).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from tokenizers import Encoding, Tokenizer

from orchestrator.client.words import Words, packed

INT = 4
"""Bytes of an id."""

Side = Literal["right", "left"]
"""The side of the text where it is cut."""

Strategy = Literal["longest_first", "only_first"]
"""Which text of a pair is cut where both together are too long. As in transformers."""

CHARACTERS_PER_TOKEN = 16
"""Of a text longer than twice this per token of the limit, only a stretch is looked at first: it settles what is too long for a
hundredth of the price, and no language averages 16 characters a token."""

LARGEST_CHARACTERS_PER_TOKEN = 1_000
"""A text longer than this per token of the limit that a stretch of this length does not settle is refused: no writing looks like that,
and 8 MB in one word would keep a tokenizer busy for 20 seconds."""


_UNREADABLE = "\0"
"""Stands for a text that is too long to be put together from its words."""


class TextTooLong(ValueError):
    """A text has more tokens than the limit and cutting was not asked for."""

    def __init__(self, position: int, tokens: int, limit: int, *, at_least: bool) -> None:
        how_many = f"more than {tokens}" if at_least else str(tokens)
        super().__init__(f"text {position} has {how_many} tokens, the limit is {limit}")
        self.position = position


class TooManyCharacters(ValueError):
    """A text is absurdly long for the few tokens that it may have, and cutting it would not tell which they are."""

    def __init__(self, position: int, characters: int, limit: int) -> None:
        super().__init__(f"text {position} has {characters} characters in a few huge words, the limit is {limit}")
        self.position = position


class NoTokens(ValueError):
    """A text becomes no token at all under this tokenizer, and the model has nothing to read."""


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """Sequences as the wire wants them."""

    lengths: list[int]
    ids: bytes
    """int32, one sequence after the other."""
    splits: list[int] | None = None
    """Where the second text of each pair begins, for models that tell the two by token types; 0 = it has none."""
    pixels: bool = False
    """`ids` are float32 images of one size, [channels, height, width] each; a length is what an image counts as."""

    @property
    def total(self) -> int:
        return sum(self.lengths)


def pack(sequences: Sequence[Sequence[int]]) -> Tokens:
    """Ids that a caller brings along. OverflowError if one is no int32."""
    return joined([packed(sequence) for sequence in sequences])


class TextEncoder:
    """One tokenizer.json with the limit of the model. Safe to use from several threads."""

    def __init__(self, path: str | Path, max_seqlen: int) -> None:
        self.max_seqlen = max_seqlen
        self._whole: Tokenizer = Tokenizer.from_file(str(path))
        self._whole.no_padding()
        self._whole.no_truncation()
        self._cutting: dict[Side, Tokenizer] = {}
        for side in ("right", "left"):
            cutting: Tokenizer = Tokenizer.from_str(self._whole.to_str())
            cutting.enable_truncation(max_seqlen, direction=side)
            self._cutting[side] = cutting
        self._largest = 2 * CHARACTERS_PER_TOKEN * max_seqlen
        """Characters up to which a text is looked at as a whole."""
        self._words = Words.of(self._whole)
        self._variable: Tokenizer | None = None
        """Made when first wanted; its truncation is set anew for each use, under the lock."""
        self._lock = threading.Lock()

    @property
    def vocabulary(self) -> int:
        """How many ids there are, added tokens included."""
        size: int = self._whole.get_vocab_size(with_added_tokens=True)
        return size

    def encode(self, texts: list[str], *, cut: Side | None = None) -> Tokens:
        """Token ids with the model's special tokens. TextTooLong, TooManyCharacters, NoTokens."""
        read = self._of_words(texts, cut, learn=True)
        others = [position for position, ids in enumerate(read) if not ids]
        if others:
            for position, ids in zip(others, self._read(texts, others, cut), strict=True):
                read[position] = ids
        return joined(read)

    def known(self, texts: list[str], *, cut: Side | None = None) -> Tokens | None:
        """As `encode`, in a fraction of its time, where every word is remembered and nothing has to be refused; else None."""
        read = self._of_words(texts, cut, learn=False)
        return joined(read) if all(read) else None

    def _of_words(self, texts: list[str], cut: Side | None, *, learn: bool) -> list[bytes]:
        """Packed ids of each text, put together from those of its words; empty where that cannot be, or it is too long."""
        words = self._words
        if words is None:
            return [b""] * len(texts)
        around = len(words.before) + len(words.after)
        room = self.max_seqlen * INT - around
        largest = self._largest
        read = []
        for body in words.read([text if len(text) <= largest else _UNREADABLE for text in texts], learn=learn):
            if body is not None and len(body) > room:
                body = None if cut is None or room <= 0 else body[:room] if cut == "right" else body[-room:]
            read.append(b"" if body is None else words.before + body + words.after)
        return read

    def _read(self, texts: list[str], positions: list[int], cut: Side | None) -> list[bytes]:
        """Packed ids of the texts at these positions, by the tokenizer."""
        limit = self.max_seqlen
        largest = self._largest
        encodings = self._whole.encode_batch_fast(
            [texts[position] if len(texts[position]) <= largest else "" for position in positions]
        )
        read: list[bytes] = []
        for position, encoding in zip(positions, encodings, strict=True):
            text = texts[position]
            if len(text) <= largest:
                ids: list[int] = encoding.ids
                stretch = text
            else:
                stretch, ids = self._explore(position, text, cut, largest)
            if len(ids) > limit:
                if cut is None:
                    partial = stretch is not text
                    raise TextTooLong(position, 2 * limit if partial else len(ids), limit, at_least=partial)
                ids = self._cutting[cut].encode_batch_fast([stretch])[0].ids
            if not ids:
                raise NoTokens(f"text {position} becomes no token at all")
            read.append(packed(ids))
        return read

    def encode_pairs(
        self, pairs: Sequence[str | tuple[str, str]], *, cut: Side | None = None, strategy: Strategy = "longest_first"
    ) -> Tokens:
        """A text or two to a sequence, with the special tokens between them. TextTooLong, TooManyCharacters, NoTokens."""
        limit = self.max_seqlen
        pairs = [
            self._bounded(position, pair, cut)
            if isinstance(pair, str)
            else (self._bounded(position, pair[0], cut), self._bounded(position, pair[1], cut))
            for position, pair in enumerate(pairs)
        ]
        encodings = self._whole.encode_batch_fast(pairs)
        for position, encoding in enumerate(encodings):
            if len(encoding.ids) > limit:
                if cut is None:
                    raise TextTooLong(position, len(encoding.ids), limit, at_least=False)
                encodings[position] = self._cut_pair(position, pairs[position], cut, strategy)
        return tokens_of(encodings)

    def _cut_pair(self, position: int, pair: str | tuple[str, str], cut: Side, strategy: Strategy) -> Encoding:
        with self._lock:
            tokenizer = self._truncating(self.max_seqlen, 0, strategy, cut)
            try:
                encoding: Encoding = tokenizer.encode(*((pair,) if isinstance(pair, str) else pair))
                return encoding
            except Exception as error:
                whole = len(self._whole.encode_batch_fast([pair])[0].ids)
                raise TextTooLong(position, whole, self.max_seqlen, at_least=False) from error

    def encode_with_offsets(self, texts: Sequence[str], *, cut: bool = False) -> list[Encoding]:
        """As `encode`, with words and offsets; a text is cut on its right."""
        limit = self.max_seqlen
        side: Side | None = "right" if cut else None
        texts = [self._bounded(position, text, side) for position, text in enumerate(texts)]
        encodings = self._whole.encode_batch(texts)
        for position, encoding in enumerate(encodings):
            if len(encoding.ids) > limit:
                if not cut:
                    raise TextTooLong(position, len(encoding.ids), limit, at_least=False)
                encodings[position] = self._cutting["right"].encode(texts[position])
        return list(encodings)

    def windows(self, first: str, second: str | None, *, length: int, overlap: int, most: int) -> list[Encoding]:
        """A long text, or a pair whose second text is long, as sequences of at most `length` tokens that overlap by `overlap` tokens.

        ValueError where `length` leaves no room beside the first text; TooManyCharacters where it would be more than `most` windows.
        """
        allowed = most * length * CHARACTERS_PER_TOKEN
        if len(first) + len(second or "") > allowed:
            raise TooManyCharacters(0, len(first) + len(second or ""), allowed)
        with self._lock:
            tokenizer = self._truncating(length, overlap, "longest_first" if second is None else "only_second", "right")
            beside: int = tokenizer.num_special_tokens_to_add(second is not None)
            if second is not None:
                beside += len(self._whole.encode(first, add_special_tokens=False).ids)
            if length - beside <= overlap:  # the Rust side panics on a step of nothing or less
                raise ValueError(
                    f"windows of {length} tokens with {overlap} in common leave no room: {beside} tokens stand in each of them"
                )
            encoding = tokenizer.encode(first) if second is None else tokenizer.encode(first, second)
        return [encoding, *encoding.overflowing]

    def _truncating(self, length: int, overlap: int, strategy: str, side: Side) -> Tokenizer:
        """Under the lock."""
        if self._variable is None:
            self._variable = Tokenizer.from_str(self._whole.to_str())
        self._variable.enable_truncation(length, stride=overlap, strategy=strategy, direction=side)
        return self._variable

    def _bounded(self, position: int, text: str, cut: Side | None) -> str:
        """The text, or of a very long one as much as it takes; TextTooLong where it is too long and may not be cut."""
        if len(text) <= self._largest:
            return text
        stretch, ids = self._explore(position, text, cut, self._largest)
        if len(ids) > self.max_seqlen and cut is None:
            raise TextTooLong(position, 2 * self.max_seqlen, self.max_seqlen, at_least=True)
        return stretch

    @property
    def tokenizer(self) -> Tokenizer:
        """For vocabulary, decoder and model; its truncation and padding stay off."""
        return self._whole

    def _explore(self, position: int, text: str, cut: Side | None, size: int) -> tuple[str, list[int]]:
        """Of a very long text as much as it takes to know that it is too long, or all of it, and the ids of that."""
        most = LARGEST_CHARACTERS_PER_TOKEN * self.max_seqlen
        while size < len(text):
            stretch = _stretch(text, size, cut)
            if stretch is not None:
                ids: list[int] = self._whole.encode_batch_fast([stretch])[0].ids
                if len(ids) > 2 * self.max_seqlen:
                    return stretch, ids
            if size == most:
                raise TooManyCharacters(position, len(text), most)
            size = min(4 * size, most)
        return text, self._whole.encode_batch_fast([text])[0].ids

    def spell(self, texts: list[str], *, special: bool) -> list[Encoding]:
        """The tokens with their offsets in characters, of any length, for people who look at them."""
        encodings: list[Encoding] = self._whole.encode_batch(texts, add_special_tokens=special)
        return encodings


def joined(sequences: Sequence[bytes]) -> Tokens:
    """Of packed ids, one item per sequence."""
    return Tokens([len(ids) // INT for ids in sequences], sequences[0] if len(sequences) == 1 else b"".join(sequences))


def tokens_of(encodings: Sequence[Encoding]) -> Tokens:
    """Encodings as sequences; the second text of a pair is found by its token types. NoTokens."""
    splits: list[int] | None = [_second_begins(encoding) for encoding in encodings]
    ids = [encoding.ids for encoding in encodings]
    for position, one in enumerate(ids):
        if not one:
            raise NoTokens(f"text {position} becomes no token at all")
    if splits is not None and not any(splits):
        splits = None
    return Tokens([len(one) for one in ids], b"".join([packed(one) for one in ids]), splits)


def _second_begins(encoding: Encoding) -> int:
    """The first token of type 1, 0 where there is none."""
    types: list[int] = encoding.type_ids
    return types.index(1) if 1 in types else 0


def _stretch(text: str, size: int, cut: Side | None) -> str | None:
    """At most `size` characters of the end that is kept, up to a blank so that no word is torn; None where there is none near."""
    if cut == "left":
        start = text.find(" ", len(text) - size, len(text) - size // 2)
        return text[start:] if start >= 0 else None
    end = text.rfind(" ", size // 2, size)
    return text[:end] if end >= 0 else None
