"""Are synthetic weights the same everywhere and for ever, and lifelike enough that a mistake shows?"""

from __future__ import annotations

import hashlib
import math
from types import ModuleType

import numpy as np
import pytest

from orchestrator.models.settings import read_encoder, synthetic_settings
from orchestrator.models.synthetic import CONFIGURATIONS, SyntheticWeights, tokenizer_document

QUERY = "encoder.layer.0.attention.self.query.weight"


def test_the_numbers_never_change(tiny: ModuleType) -> None:
    weights = SyntheticWeights(read_encoder(tiny.BERT, "a test"))
    hashed = hashlib.sha256()
    for name in sorted(weights.names()):
        hashed.update(name.encode() + weights.read(name).astype("<f4").tobytes())
    assert hashed.hexdigest() == "71661023dfad0196e18f0a29ee3cc94218e44d553f2f88c3d79417a342f71172"


def test_tensors_differ_from_each_other_and_from_seed_to_seed(tiny: ModuleType) -> None:
    encoder = read_encoder(tiny.BERT, "a test")
    one, other = SyntheticWeights(encoder, 1), SyntheticWeights(encoder, 2)
    assert not np.array_equal(one.read(QUERY), one.read(QUERY.replace("query", "key")))
    assert not np.array_equal(one.read(QUERY), other.read(QUERY))


def test_a_matrix_keeps_the_spread_of_what_goes_through_it() -> None:
    weights = SyntheticWeights(read_encoder(CONFIGURATIONS["minilm-l6"], "a test"))
    values = weights.read(QUERY)
    assert values.shape == (384, 384)
    assert values.std() == pytest.approx(1 / math.sqrt(384), rel=0.01)
    assert abs(values.mean()) < 1e-3


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_synthetic_model_has_room_for_the_vocabulary(name: str) -> None:
    settings = synthetic_settings(CONFIGURATIONS[name], None, name)
    if settings.image is not None:
        assert (settings.task, settings.width, settings.own_max_seqlen) == ("image-classification", 1000, 197)
        return
    assert max(tokenizer_document()["model"]["vocab"].values()) < settings.encoder.vocab_size
    assert (settings.per_token, settings.own_max_seqlen) == (False, 512)


def test_pieces_of_the_vocabulary_are_distinct() -> None:
    vocabulary = tokenizer_document()["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert vocabulary["[PAD]"] == 0
