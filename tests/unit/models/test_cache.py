"""Is an artefact whole or not there at all, and is a harmed one never handed out?"""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.models import manifest as manifests
from orchestrator.models.cache import Cache
from orchestrator.models.digest import digest_files
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import Manifest, Verification

NAME = "tiny-0123456789ab-fp32-onnxruntime"


def manifest(folder: Path, cache: Cache) -> Manifest:
    parts = [folder / name for name in (manifests.GRAPH, manifests.TOKENIZER)]
    return Manifest(
        format=manifests.FORMAT, builder=1, id="tiny", digest="d", sources=[], task="feature-extraction",
        architecture="bert", precision="fp32", engine="onnxruntime", opset=18, tools={}, cpu_features=[], dimensions=8,
        vocab_size=10, positions=48, own_max_seqlen=48, special_tokens=2, pad_id=0, per_token=True, steps=[],
        files=digest_files(folder, parts, cache.index), verification=Verification(1, 1, 0.0, 1.0, 0.0),
        created="2024-02-29T00:00:00+00:00", build_seconds=0.1,
    )  # fmt: skip


def fill(folder: Path, cache: Cache, graph: bytes = b"graph") -> None:
    (folder / manifests.GRAPH).write_bytes(graph)
    (folder / manifests.TOKENIZER).write_bytes(b"tokenizer")
    manifests.path_of(folder).write_bytes(manifests.encode(manifest(folder, cache)))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    cache.prepare()
    with cache.locked(NAME), cache.making(NAME) as folder:
        fill(folder, cache)
    return cache


def test_a_finished_artefact_is_found_with_its_manifest(cache: Cache) -> None:
    found = cache.find(NAME)
    assert found is not None
    assert [file.name for file in found.files] == ["model.onnx", "tokenizer.json"]


def test_what_is_not_there_is_not_found_and_no_cause_for_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Cache(tmp_path / "absent").find(NAME) is None
    assert not caplog.records


def test_an_artefact_is_invisible_until_it_is_whole(cache: Cache) -> None:
    with cache.locked("other"), cache.making("other") as folder:
        fill(folder, cache)
        assert cache.find("other") is None
        assert not (cache.root / "other").exists()
    assert cache.find("other") is not None


def test_a_failure_leaves_nothing_behind(cache: Cache) -> None:
    def fail() -> None:
        with cache.locked("other"), cache.making("other") as folder:
            (folder / "model.onnx").write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(cache.root.glob("*other*/*"))
    assert not list(cache.root.glob(".other.making"))


def test_what_a_dead_maker_left_is_removed_by_the_next(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    (cache.root / ".other.making").mkdir()
    (cache.root / ".other.making" / "model.onnx.data").write_bytes(b"half")
    with cache.locked("other"), cache.making("other") as folder:
        assert not list(folder.iterdir())
        fill(folder, cache)
    assert "left unfinished" in caplog.text
    assert cache.find("other") is not None


def truncate(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"gra")


def flip(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"grapH")


def remove(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def half_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


def other_format(folder: Path) -> None:
    document = msgspec.json.decode((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(msgspec.json.encode(document | {"format": 999}))


HARMS = [
    (truncate, "model.onnx has 3 bytes, the manifest says 5"),
    (flip, "model.onnx has the sha256"),
    (remove, "tokenizer.json: No such file"),
    (no_manifest, "manifest.json: No such file"),
    (half_manifest, "manifest.json: Input data was truncated"),
    (other_format, "it has format 999"),
]


@pytest.mark.parametrize(("harm", "words"), HARMS, ids=[harm.__name__ for harm, _ in HARMS])
def test_a_harmed_artefact_is_not_handed_out_and_the_log_says_why(
    cache: Cache, harm: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    harm(cache.root / NAME)
    fresh = Cache(cache.root)
    assert fresh.find(NAME) is None
    assert fresh.find(NAME) is None
    [line] = [record.getMessage() for record in caplog.records]
    assert words in line
    assert "making it anew" in line


def test_a_harmed_artefact_is_replaced_as_a_whole(cache: Cache) -> None:
    flip(cache.root / NAME)
    (cache.root / NAME / "stray").write_bytes(b"")
    with cache.locked(NAME), cache.making(NAME) as folder:
        fill(folder, cache, b"GRAPH")
    assert sorted(path.name for path in (cache.root / NAME).iterdir()) == [
        "manifest.json", "model.onnx", "tokenizer.json",
    ]  # fmt: skip
    assert (cache.root / NAME / "model.onnx").read_bytes() == b"GRAPH"
    assert not list(cache.root.glob(".*harmed"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_with_what_is_free_and_may_be_tried_again(cache: Cache, number: int) -> None:
    with pytest.raises(ModelError) as raised, cache.locked("other"), cache.making("other"):
        raise OSError(number, "full")
    assert not raised.value.unworkable
    assert "MB are free" in str(raised.value)
    assert "free some space" in str(raised.value)


def test_a_place_that_cannot_be_a_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError) as raised:
        Cache(tmp_path / "file").prepare()
    assert raised.value.unworkable
    assert str(tmp_path / "file") in str(raised.value)
    assert "choose another cache directory" in str(raised.value)


def test_a_maker_that_never_ends_is_named_after_the_deadline(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import os

    caplog.set_level(logging.INFO)
    monkeypatch.setattr("orchestrator.models.cache.LOCK_SECONDS", -1.0)
    with (
        cache.locked("other"),
        pytest.raises(ModelError, match=f"process {os.getpid()} has been making it") as raised,
        cache.locked("other"),
    ):
        raise AssertionError("two makers at once")
    assert not raised.value.unworkable
    assert f"is being made by process {os.getpid()}; waiting" in caplog.text


def test_a_lock_is_free_again_after_a_failure(cache: Cache) -> None:
    with pytest.raises(ZeroDivisionError), cache.locked("other"):
        _ = 1 / 0
    with cache.locked("other"):
        pass
