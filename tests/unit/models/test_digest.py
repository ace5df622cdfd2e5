"""Is a file read again when it may have changed, and only then?"""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

import msgspec
import pytest

from orchestrator.models.digest import DigestIndex, SourceFile, combined, digest_files
from orchestrator.models.errors import ModelError


def later() -> float:
    """A minute from now: every file is old."""
    return time.time() + 60


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def remembered(tmp_path: Path, file: Path) -> Path:
    """An index that knows the file, by a sha256 that only the index can have."""
    index = DigestIndex(tmp_path / "digests.json", later)
    index.digest(file)
    index.save()
    path = tmp_path / "digests.json"
    path.write_text(path.read_text().replace(sha256(b"weights"), "from the index"))
    return path


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path, file: Path) -> None:
    assert DigestIndex(tmp_path / "digests.json").digest(file) == (7, sha256(b"weights"))


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, file: Path) -> None:
    index = DigestIndex(remembered(tmp_path, file), later)
    assert index.digest(file) == (7, "from the index")


def test_a_file_of_the_same_size_that_was_written_again_is_read_again(tmp_path: Path, file: Path) -> None:
    index = DigestIndex(remembered(tmp_path, file), later)
    file.write_bytes(b"WEIGHTS")
    assert index.digest(file) == (7, sha256(b"WEIGHTS"))


def test_a_file_that_was_replaced_with_its_times_kept_is_read_again(tmp_path: Path, file: Path) -> None:
    index = DigestIndex(remembered(tmp_path, file), later)
    other = tmp_path / "other"
    other.write_bytes(b"WEIGHTS")
    import os

    stamp = file.stat()
    other.replace(file)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert index.digest(file)[1] == sha256(b"WEIGHTS")


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, file: Path) -> None:
    index = DigestIndex(tmp_path / "digests.json", lambda: file.stat().st_mtime + 1.9)
    index.digest(file)
    index.save()
    assert not (tmp_path / "digests.json").exists()


def test_entries_of_files_that_are_gone_are_dropped(tmp_path: Path, file: Path) -> None:
    path = remembered(tmp_path, file)
    file.unlink()
    other = tmp_path / "other"
    other.write_bytes(b"x")
    index = DigestIndex(path, later)
    index.digest(other)
    index.save()
    assert list(msgspec.json.decode(path.read_bytes())) == [str(other)]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": [1, 2]}', b"\xff\xfe"])
def test_a_broken_index_costs_time_and_nothing_else(
    tmp_path: Path, file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "digests.json").write_bytes(content)
    index = DigestIndex(tmp_path / "digests.json", later)
    assert "unreadable and made anew" in caplog.text
    assert index.digest(file)[1] == sha256(b"weights")
    index.save()
    assert len(msgspec.json.decode((tmp_path / "digests.json").read_bytes())) == 1


def test_an_index_that_cannot_be_written_is_said_and_survived(
    tmp_path: Path, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    index = DigestIndex(tmp_path / "absent" / "digests.json", later)
    index.digest(file)
    index.save()
    assert "cannot be written" in caplog.text


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"{tmp_path / 'absent'}: cannot read a file of the model: No such file"):
        digest_files(tmp_path, [tmp_path / "absent"], DigestIndex(tmp_path / "digests.json"))


def test_the_combined_digest_depends_on_names_and_contents_and_not_on_order() -> None:
    one, two = SourceFile("a", 1, "x"), SourceFile("b", 1, "y")
    assert combined([one, two]) == combined([two, one])
    assert combined([one]) != combined([SourceFile("c", 1, "x")])
    assert combined([one]) != combined([SourceFile("a", 1, "z")])
