"""Does a text get the same answer whatever stands beside it in the batch, and however it is pooled?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.models import Prepared, prepare
from orchestrator.models.build import disentangled
from orchestrator.models.build.attention import buckets_of
from orchestrator.models.build.disentangled import Disentangled
from orchestrator.models.build.encoder import RelativeBias
from orchestrator.models.digest import SourceFile, combined
from orchestrator.models.reference import bucket_of, row_of
from orchestrator.models.resolve import slug
from orchestrator.models.verify import load, padded

DATA = Path(__file__).parents[1] / "data" / "models"
POSITIONS = 48

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]
Texts = st.lists(st.lists(st.integers(0, 5999), min_size=1, max_size=POSITIONS), min_size=1, max_size=5)


def data_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(
    scope="module",
    params=["bert", "bert-mean-normalised", "bert-cls", "bert-max", "bert-last", "bert-root", "distilbert-mean"],
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Run]:
    tiny = data_module("tiny_models")
    folder = tmp_path_factory.mktemp("model")
    prepared = prepare(str(tiny.write(folder / "tiny", tiny.CASES[request.param])), cache=folder / "cache")
    return prepared, load(Path(prepared.artefact.path))


@pytest.fixture(scope="module", params=["roberta", "mpnet", "albert-groups", "deberta-v3", "deberta-c2p", "modernbert"])
def architecture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Run]:
    folder = tmp_path_factory.mktemp("architecture")
    directory = data_module("architectures").write(folder / "tiny", request.param)
    prepared = prepare(str(directory), cache=folder / "cache")
    return prepared, load(Path(prepared.artefact.path))


@settings(max_examples=15, deadline=None)
@given(texts=Texts)
def test_no_neighbour_and_no_padding_changes_a_row_whatever_the_architecture_makes_of_distance(
    architecture: tuple[Prepared, Run], texts: list[list[int]]
) -> None:
    prepared, run = architecture
    ids = [np.array(text, np.int32) for text in texts]
    together = run(*padded(ids, prepared.artefact.pad_id))
    assert np.isfinite(together).all()  # padding too: a NaN there would reach the mean of the text
    for row, one in zip(together, ids, strict=True):
        assert np.abs(row[: len(one)] - run(*padded([one], prepared.artefact.pad_id))[0]).max() < 1e-5


@settings(max_examples=25, deadline=None)
@given(texts=Texts)
def test_no_neighbour_and_no_padding_changes_an_answer(model: tuple[Prepared, Run], texts: list[list[int]]) -> None:
    prepared, run = model
    ids = [np.array(text, np.int32) for text in texts]
    together = run(*padded(ids, prepared.artefact.pad_id))
    for row, one in zip(together, ids, strict=True):
        alone = run(*padded([one], prepared.artefact.pad_id))[0]
        kept = row[: len(one)] if prepared.artefact.per_token else row
        assert kept.shape == alone.shape
        assert np.abs(kept - alone).max() < 1e-5


@settings(max_examples=25, deadline=None)
@given(
    text=st.lists(st.integers(0, 5999), min_size=1, max_size=20), other=st.integers(0, 5999), extra=st.integers(1, 20)
)
def test_what_fills_the_padding_does_not_matter(
    model: tuple[Prepared, Run], text: list[int], other: int, extra: int
) -> None:
    prepared, run = model
    filled = np.array([text + [other] * extra], np.int32)
    zeros = np.array([text + [0] * extra], np.int32)
    mask = np.array([[1] * len(text) + [0] * extra], np.int32)
    ours, theirs = (run(ids, mask)[0] for ids in (filled, zeros))
    if prepared.artefact.per_token:
        ours, theirs = ours[: len(text)], theirs[: len(text)]
    assert np.array_equal(ours, theirs)


@given(buckets=st.integers(4, 256), span=st.integers(4, 600), distance=st.integers(-600, 600))
def test_a_distance_of_deberta_has_a_row_of_the_table_and_its_opposite_the_mirrored_one(
    buckets: int, span: int, distance: int
) -> None:
    farthest = buckets // 2 + span
    table = Disentangled("table", None, buckets, buckets, farthest, True, True)
    rows = disentangled.rows_of(table, np.array([distance, -distance]))
    assert rows[0] == row_of(table, distance)
    assert rows.min() >= 0
    assert rows.max() < 2 * buckets
    assert rows.sum() == 2 * buckets or rows.max() == 2 * buckets - 1


@given(distance=st.integers(-100_000, 100_000))
def test_a_distance_of_mpnet_has_a_bucket_on_its_side_and_never_one_nearer_than_a_shorter_one(distance: int) -> None:
    relative = RelativeBias("table", 32, 128)
    nearer = distance - 1 if distance > 0 else distance + 1
    found = buckets_of(relative, np.array([distance, nearer]))
    assert found[0] == bucket_of(relative, distance)
    assert (found[0] >= 16) == (distance > 0)
    if distance not in (0, 1):
        assert found[0] >= found[1]


@given(st.text())
def test_a_name_for_a_folder_is_always_one_plain_component(text: str) -> None:
    name = slug(text)
    assert 1 <= len(name) <= 64
    assert name == Path(name).name
    assert not name.startswith(".")
    assert name.isascii()


Files = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), unique_by=lambda entry: entry[0], max_size=5)


@given(Files, Files)
def test_only_equal_sets_of_files_have_equal_digests(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    digests = [combined([SourceFile(name, 0, sha256) for name, sha256 in files]) for files in (one, other)]
    assert (digests[0] == digests[1]) == (sorted(one) == sorted(other))
