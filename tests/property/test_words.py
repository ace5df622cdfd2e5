"""Whatever a text is made of: are its ids those of the tokenizer, however many of its words are remembered?"""

from __future__ import annotations

import string
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from orchestrator.client import words
from orchestrator.client.texts import TextEncoder, TextTooLong

LIMIT = 24
LETTERS = string.ascii_letters + string.digits + "éßñ中文σς"
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(string.punctuation + "’–¿"),
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    *("love", "##ly", "like", "ab", "##ab", "naive"),
]
ODD = [
    "[MASK]", "[mask]", "[MASK].", "x[SEP]y", "<keep>", "<KEEP>", "a<keep>b", "##ab", "it's", "don’t", "naïve", "NAÏVE",
    "e\u0301", "\u0301a", "İstanbul", "ΑΣ", "straße", "中文 字", "a" * 101, "ab" * 20, "_", "a_b", "\u00a0", "\u2003",
    "\u3000", "\u200b", "\u00ad", "\ufffd", "\x00", "\x1c", "\x85", "\u2028", "\ud7ff", "\U0001f600", "\t", "\n", "\r\n",
    "  ", "",
]  # fmt: skip
TEXT = st.one_of(
    st.lists(st.sampled_from(ODD) | st.text("abAB .,-[]<>", max_size=6), max_size=12).map(" ".join),
    st.lists(st.sampled_from(ODD) | st.text("ab ", max_size=3), max_size=12).map("".join),
    st.text(max_size=30),
    st.text(st.characters(categories=("L", "M", "Z", "P", "Cc", "Cf", "Co", "Cn")), max_size=20),
)


def saved(folder: Path, *, lowercase: bool, strip_accents: bool | None) -> Path:
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", AddedToken("[MASK]", lstrip=True)])
    tokenizer.add_tokens([AddedToken("<keep>", normalized=True, rstrip=True)])
    path = folder / f"{lowercase}-{strip_accents}.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module", params=[(True, None), (False, None), (True, False), (False, True)], ids=str)
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextEncoder, Tokenizer]:
    """The encoder under test, which remembers, and the tokenizer that it stands for."""
    lowercase, strip_accents = request.param
    path = saved(tmp_path_factory.mktemp("words"), lowercase=lowercase, strip_accents=strip_accents)
    return TextEncoder(path, LIMIT), Tokenizer.from_file(str(path))


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory so small that words are forgotten and learned all the time."""
    monkeypatch.setattr(words, "MOST_WORDS", 6)
    monkeypatch.setattr(words, "MOST_NEW", 4)
    monkeypatch.setattr(words, "LONGEST_WORD", 5)


@pytest.mark.usefixtures("forgetful")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=1, max_size=4), st.sampled_from([None, "right", "left"]))
def test_the_ids_of_texts_are_those_of_their_tokenizer(
    both: tuple[TextEncoder, Tokenizer], texts: list[str], cut: Any
) -> None:
    encoder, tokenizer = both
    tokenizer.no_truncation()
    lengths = [len(tokenizer.encode(text).ids) for text in texts]
    if cut is None and max(lengths) > LIMIT:
        with pytest.raises(TextTooLong, match=f"text .* has {next(n for n in lengths if n > LIMIT)} tokens"):
            encoder.encode(texts)
        return
    if cut is not None:
        tokenizer.enable_truncation(LIMIT, direction=cut)
    expected = [tokenizer.encode(text).ids for text in texts]
    tokens = encoder.encode(texts, cut=cut)
    assert tokens.lengths == [len(ids) for ids in expected]
    assert list(array("i", tokens.ids)) == [number for ids in expected for number in ids]
