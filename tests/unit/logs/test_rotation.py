"""Which file is moved where, so that no instance has more than it may?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.logs.rotation import ages, file_name, instances, parse, pieces, renames, surplus


def test_the_oldest_is_moved_first_and_falls_off_the_end() -> None:
    assert renames("short-0", 2) == [("short-0.log.1", "short-0.log.2"), ("short-0.log", "short-0.log.1")]
    assert renames("router", 0) == [("router.log", None)]


def test_names_of_files_say_whose_and_how_old() -> None:
    assert parse("short-0.log") == ("short-0", 0)
    assert parse("gateway-12.log.34") == ("gateway-12", 34)
    for other in (
        ".lock",
        "short-0.log.0",
        "short-0.log.x",
        "short-0.log.gz",
        "Short.log",
        "short-0",
        "../x.log",
        "x.log.1~",
    ):
        assert parse(other) is None


@given(
    st.from_regex(r"[a-z][a-z0-9]*(-[a-z0-9]+){0,2}", fullmatch=True).filter(lambda name: len(name) <= 40),
    st.integers(0, 1000),
)
def test_every_name_of_an_instance_has_a_file_that_leads_back_to_it(name: str, age: int) -> None:
    assert parse(file_name(name, age)) == (name, age)


def test_what_is_there_is_found_and_what_is_too_much_is_named() -> None:
    names = ["b-0.log", "a.log.1", "a.log", "a.log.3", "a.log.12", ".lock", "notes.txt"]
    assert instances(names) == ["a", "b-0"]
    assert ages("a", names) == [12, 3, 1, 0]
    assert surplus("a", 2, names) == ["a.log.12", "a.log.3"]
    assert surplus("b-0", 0, names) == []


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        (0, 100, [(False, b"aaaabbbbcccc")]),
        (0, 8, [(False, b"aaaabbbb"), (True, b"cccc")]),
        (6, 8, [(True, b"aaaabbbb"), (True, b"cccc")]),
        (0, 1, [(False, b"aaaa"), (True, b"bbbb"), (True, b"cccc")]),
        (9, 1, [(True, b"aaaa"), (True, b"bbbb"), (True, b"cccc")]),
    ],
)
def test_a_file_is_begun_anew_before_it_gets_too_long(size: int, most: int, expected: list[tuple[bool, bytes]]) -> None:
    assert pieces([b"aaaa", b"bbbb", b"cccc"], size, most) == expected


@given(st.lists(st.binary(min_size=1, max_size=30)), st.integers(0, 100), st.integers(1, 60))
def test_no_line_is_lost_or_cut_and_no_file_is_longer_than_it_may_be(lines: list[bytes], size: int, most: int) -> None:
    parts = pieces(lines, size, most)
    assert b"".join(data for _, data in parts) == b"".join(lines)
    at = size
    for rotate, data in parts:
        at = len(data) if rotate else at + len(data)
        assert at <= most or data in lines or (not rotate and size == 0 and data in lines)
