"""Is a file of keys read as it should be, and does it say what is wrong with it and where?"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.keys import KeysError, fingerprint, read_keys

ONE, OTHER = "a-key-of-one-client", "0123456789abcdef"


def file_of(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "keys"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_keys_are_known_by_their_fingerprints_alone(tmp_path: Path) -> None:
    path = file_of(tmp_path, f"# clients\n\n{ONE}\n  {OTHER}  \n{ONE}\n", 0o640)
    found = read_keys(path)
    assert set(found) == {fingerprint(ONE), fingerprint(OTHER)}
    assert len(found) == 2
    assert ONE not in repr(found)


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "holds no key"), ("# nothing\n", "holds no key"), (f"{ONE}\nshort\n", "keys:2: a key is 16 or more"),
     ("two words in one line\n", "keys:1"), ("schlüssel-mit-umlaut\n", "keys:1"), (b"\xff\xfe\x00k", "not a text")],
)  # fmt: skip
def test_a_file_that_is_none_says_where_and_shows_no_key(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(KeysError, match=says) as caught:
        read_keys(file_of(tmp_path, text))
    assert "words" not in str(caught.value)


def test_a_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="every user of this host may read it; chmod 640"):
        read_keys(file_of(tmp_path, ONE, 0o644))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"none.*No such file.*one key on each line"):
        read_keys(tmp_path / "none")
