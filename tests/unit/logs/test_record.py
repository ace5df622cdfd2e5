"""Does a line say the same as JSON, on a terminal and in the journal?"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from orchestrator.logs.record import Record, decode, encode, for_people, on_screen, printable

ROOT = Path(__file__).parents[3]
TIME = datetime(2026, 3, 1, 12, 30, 5, 123456, UTC)


def record(**more: object) -> Record:
    fields: dict[str, object] = {
        "time": TIME, "level": "info", "part": "worker", "instance": "short-0", "event": "output", "message": "hello",
    }  # fmt: skip
    return Record(**{**fields, **more})  # type: ignore[arg-type]


def test_a_line_of_json_has_the_keys_that_apply_and_no_others() -> None:
    line = encode(record(incarnation=2, pid=4121, request_id="a"))
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "time": "2026-03-01T12:30:05.123456Z",
        "level": "info",
        "part": "worker",
        "instance": "short-0",
        "incarnation": 2,
        "pid": 4121,
        "event": "output",
        "message": "hello",
        "request_id": "a",
    }
    assert decode(line) == record(incarnation=2, pid=4121, request_id="a")


@pytest.mark.parametrize("line", [b"", b"{", b"null", b"[]", b'{"time": 1}', b"\xff\xfe", encode(record())[:-20]])
def test_what_is_no_record_is_told_apart(line: bytes) -> None:
    assert decode(line) is None


def test_a_record_of_a_later_version_with_more_keys_can_be_read() -> None:
    assert decode(encode(record()).replace(b"{", b'{"new":[1],', 1)) == record()


def test_a_name_with_half_a_character_does_not_stop_the_log() -> None:
    line = encode(record(message="x \udcff", why="y \udcfe"))
    assert json.loads(line)["message"] == "x \\udcff"


def test_on_a_terminal_a_line_has_its_time_its_child_and_what_is_not_just_information() -> None:
    local = TIME.astimezone().strftime("%H:%M:%S")
    assert on_screen(record(), "terminal") == f"{local} [short-0] hello\n"
    assert on_screen(record(part="supervisor", level="error"), "terminal") == f"{local} error: hello\n"
    assert on_screen(record(message="a\nb"), "terminal") == f"{local} [short-0] a\n    b\n"


def test_in_the_journal_every_line_has_its_priority_and_none_a_second_time() -> None:
    assert on_screen(record(level="warning", message="a\nb"), "journal") == "<4>[short-0] a\n<4>[short-0] b\n"


def test_for_people_names_stand_below_one_another_with_their_incarnation() -> None:
    local = TIME.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert for_people(record(incarnation=2), 12) == f"{local}.123 short-0#2    hello\n"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain", "plain"),
        ("grün, 中文", "grün, 中文"),
        ("\x1b[0;93m2026 warning\x1b[m", "2026 warning"),
        ("\x1b]0;title\x07text", "text"),
        ("10 %\r50 %\r100 %", "100 %"),
        ("tab\there", "tab    here"),
        ("bell \x07", "bell \\x07"),
        ("turned \u202e round", "turned \\u202e round"),
        ("cut \x1b", "cut "),
        ("half \udcff", "half \\udcff"),
    ],
)
def test_what_a_child_says_does_nothing_to_a_terminal(said: str, shown: str) -> None:
    assert printable(said) == shown


def test_the_documentation_names_every_key() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    for key in msgspec.structs.fields(Record):
        assert f"`{key.name}`" in page, f"docs/operations.md does not name the key {key.name}"
