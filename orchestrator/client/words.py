"""Which ids does each word of a text become? Remembered, where a tokenizer reads word by word.

BERT's tokenizers cut at white space and around punctuation before anything else that reaches over characters: what normalizer,
pre-tokenizer and WordPiece make of a word depends on that word alone, and the ids of a text are those of its words one after the
other. To look them up takes a fifth of the time of reading them, and less than half in manuals, where 1 to 2 % of the words are new.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

MOST_WORDS = 30_000
"""In each of two generations: 8 MB together."""
LONGEST_WORD = 32
"""Characters. What is longer is read each time: it is a number, an address, or Chinese, and seldom comes twice."""
MOST_NEW = 32
"""Words that are learned at once. Read one by one they cost twice as much as in their text."""
_BLANKS = {9: 32, 10: 32, 13: 32}
_words_of = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]").findall

Ids = bytes
"""int32, one after the other."""


class Words:
    """The words that came lately, of one tokenizer. Safe to use from several threads."""

    def __init__(self, tokenizer: Tokenizer, before: Ids, after: Ids, added: Iterable[str], *, lower: bool) -> None:
        self.before = before
        """What the tokenizer puts in front of a text."""
        self.after = after
        self._tokenizer = tokenizer
        self._lower = lower
        self._added = [token.lower() if lower else token for token in added]
        """Tokens that are more than a word, `[MASK]` among them."""
        self._recent: dict[str, Ids] = {}
        self._older: dict[str, Ids] = {}

    @staticmethod
    def of(tokenizer: Tokenizer) -> Words | None:
        """None where a text is more than its words. The tokenizer neither cuts nor pads."""
        normalizer = tokenizer.normalizer
        if (
            not isinstance(normalizer, BertNormalizer)
            or not isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
            or not isinstance(tokenizer.model, WordPiece)
        ):
            return None
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        if not all(token.isascii() and len(token.split()) == 1 for token in added):
            return None  # one of several words would be torn
        bare = tokenizer.encode("a", add_special_tokens=False).ids
        whole, around = tokenizer.encode("a").ids, tokenizer.encode("").ids
        for at in range(len(around) + 1):
            before, after = around[:at], around[at:]
            if before + bare + after == whole:
                return Words(tokenizer, packed(before), packed(after), added, lower=normalizer.lowercase)
        return None

    def read(self, texts: Sequence[str], *, learn: bool = True) -> list[Ids | None]:
        """The ids of each text without `before` and `after`. None where it has too many new words, or new ones at all and is not to
        `learn`, or characters that the tokenizer might take for blanks or for nothing, beyond the blanks that everybody knows."""
        known = self._recent.get
        read: list[Ids | None] = []
        unread: list[tuple[int, list[str], list[Ids | None]]] = []
        for text in texts:
            # A text of printable characters has no white space but blanks.
            if not text.isprintable() and not (text := text.translate(_BLANKS)).isprintable():
                read.append(None)
                continue
            words = self._cut(text)
            found = list(map(known, words))
            if None in found:
                unread.append((len(read), words, found))
                read.append(None)
            else:
                read.append(b"".join(found))  # type: ignore[arg-type]
        if unread and learn:
            learned = self._learned(
                {word for _, words, found in unread for word, ids in zip(words, found, strict=True) if ids is None}
            )
            for at, words, found in unread:
                whole = [learned.get(word) if ids is None else ids for word, ids in zip(words, found, strict=True)]
                read[at] = None if None in whole else b"".join(whole)  # type: ignore[arg-type]
        return read

    def _cut(self, text: str) -> list[str]:
        low = text.lower() if self._lower else text
        for token in self._added:
            if token in low:
                return text.split()
        if text.isascii():
            return _words_of(low)
        words: list[str] = []
        for word in text.split():
            if word.isascii():
                words += _words_of(word.lower() if self._lower else word)
            else:
                words.append(word)  # with its punctuation: what is a letter there is for the tokenizer to say
        return words

    def _learned(self, words: set[str]) -> dict[str, Ids]:
        """The ids of these words, which are not among the recent ones; of the first MOST_NEW where they are new."""
        recent, older = self._recent, self._older
        learned: dict[str, Ids] = {}
        new: list[str] = []
        for word in words:
            ids = older.get(word)
            if ids is not None:
                learned[word] = ids
            elif len(new) < MOST_NEW:
                new.append(word)
        if new:
            encodings = self._tokenizer.encode_batch_fast(new, add_special_tokens=False)
            for word, encoding in zip(new, encodings, strict=True):
                learned[word] = packed(encoding.ids)
        if len(recent) > MOST_WORDS:
            self._older, self._recent = recent, {}
        self._recent.update((word, ids) for word, ids in learned.items() if len(word) <= LONGEST_WORD)
        return learned


def packed(ids: Sequence[int]) -> Ids:
    """OverflowError if one is no int32."""
    return array("i", ids).tobytes()
