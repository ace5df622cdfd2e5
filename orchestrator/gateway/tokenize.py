"""Where are texts made into tokens: on the event loop, or beside it?

5 to 27 µs for 16 tokens is less than the way to a thread and back; a text of 2,000 characters takes up to half a millisecond and one of a
megabyte most of a second, for which no other request shall wait. The tokenizer lets go of the interpreter's lock meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tokenizers import Encoding

from orchestrator.client.texts import INT, NoTokens, Side, TextEncoder, TextTooLong, Tokens, TooManyCharacters, joined
from orchestrator.gateway.caches import BoundedCache, text_bytes
from orchestrator.gateway.errors import Refusal

ON_LOOP_CHARACTERS = 2_000
ON_LOOP_KNOWN_CHARACTERS = 6_000
"""Where the encoder remembers every word: 0.2 ms."""
LARGE_CHARACTERS = 100_000
"""From here on a request waits in a queue of its own: it holds up only its like."""


class Tokenizing:
    def __init__(self, encoder: TextEncoder, cache: BoundedCache[str, bytes] | None = None) -> None:
        self.encoder = encoder
        self.cache = cache
        """Ids of texts, whole ones only: what cutting leaves depends on the request."""
        self._long = ThreadPoolExecutor(1, "tokenize-long")
        self._large = ThreadPoolExecutor(1, "tokenize-large")

    async def encode(self, texts: list[str], cut: Side | None) -> Tokens:
        """Refusal where a text is over the model's limit and `cut` is None, or has no token at all."""
        if self.cache is None:
            return await self._encode(texts, cut)
        found = [self.cache.get(text) for text in texts]
        missing = [text for text, ids in zip(texts, found, strict=True) if ids is None]
        if missing:
            try:
                tokens = await self._encode(missing, cut)
            except Refusal:
                if len(missing) == len(texts):
                    raise
                return await self._encode(texts, cut)  # refused again, with the number that the text has in the request
            fresh = iter(self._remembered(missing, tokens, cut))
            found = [next(fresh) if ids is None else ids for ids in found]
        parts = [ids for ids in found if ids is not None]
        return joined(parts)

    def _remembered(self, texts: list[str], tokens: Tokens, cut: Side | None) -> Iterator[bytes]:
        """The ids of each text, kept on the way where they are all of it."""
        at = 0
        for text, length in zip(texts, tokens.lengths, strict=True):
            ids = tokens.ids[at : at + length * INT]
            at += length * INT
            if self.cache is not None and (cut is None or length < self.encoder.max_seqlen):
                self.cache.put(text, ids, text_bytes(text) + len(ids))
            yield ids

    async def _encode(self, texts: list[str], cut: Side | None) -> Tokens:
        characters = len(texts[0]) if len(texts) == 1 else sum(map(len, texts))
        if ON_LOOP_CHARACTERS < characters <= ON_LOOP_KNOWN_CHARACTERS:
            tokens = self.encoder.known(texts, cut=cut)
            if tokens is not None:
                return tokens
        return await self.apply(lambda encoder: encoder.encode(texts, cut=cut), characters)

    async def apply(self, encode: Callable[[TextEncoder], Tokens], characters: int) -> Tokens:
        """Whatever a task makes of its texts, `characters` long in all. Refusal as for `encode`."""
        try:
            if characters <= ON_LOOP_CHARACTERS:
                return encode(self.encoder)
            executor = self._long if characters <= LARGE_CHARACTERS else self._large
            return await asyncio.get_running_loop().run_in_executor(executor, lambda: encode(self.encoder))
        except TextTooLong as error:
            raise Refusal("too_long", f'{error}; shorten it or send "truncate": true') from None
        except TooManyCharacters as error:
            raise Refusal("too_long", str(error)) from None
        except NoTokens as error:
            raise Refusal("unprocessable", str(error)) from None

    async def spell(self, texts: list[str], *, special: bool) -> list[Encoding]:
        """The tokens with their offsets, for /tokenize. Never on the loop: nobody is in a hurry to look at tokens."""
        return await asyncio.get_running_loop().run_in_executor(
            self._large, lambda: self.encoder.spell(texts, special=special)
        )

    def close(self) -> None:
        for executor in (self._long, self._large):
            executor.shutdown(wait=False, cancel_futures=True)
