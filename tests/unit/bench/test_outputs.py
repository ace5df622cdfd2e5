"""Is a file that cannot be written found out before anything is measured?"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.bench.outputs import OutputError, check, write


def test_a_file_that_exists_is_kept_unless_it_is_forced(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("old")
    with pytest.raises(OutputError, match=r"--out .*there.json: it exists; say --force"):
        check({"--out": there}, force=False)
    check({"--out": there}, force=True)
    assert there.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is a directory"),
        ("no/such/r.html", "cannot be written: No such file or directory"),
        ("x" * 300, "cannot be written: File name too long"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(OutputError, match=why):
        check({"--html": tmp_path / name}, force=True)


def test_two_options_cannot_share_a_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--out names the same file"):
        check({"--out": tmp_path / "r", "--html": tmp_path / "r"}, force=False)


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    check({"--out": tmp_path / "r.json"}, force=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_whole_or_told_and_the_others_are_written(tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    good.write_text("old")
    problems = write([("--out", Path("/dev/full"), "x" * 10), ("--html", good, "new")])
    assert problems == ["--out /dev/full: not written: No space left on device"]
    assert good.read_text() == "new"
    assert list(tmp_path.iterdir()) == [good]
