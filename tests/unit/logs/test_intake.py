"""Which lines of a child's output are kept, and what does a flood cost?"""

from __future__ import annotations

import pytest

from orchestrator.logs.intake import LONGEST_LINE, TAIL_LINE, TAIL_LINES, Allowance, Intake, said, text_of
from workers.said import LONGEST_MESSAGE, MARK, MOST_REQUESTS, line_of, request_name


def test_lines_come_out_whole_however_they_come_in() -> None:
    intake = Intake()
    text = "first\n\nzweite Zeile ü\r\nlast without an end".encode()
    kept = [line for byte in text for line in intake.feed(bytes([byte]), 0.0)] + intake.finish(0.0)
    assert [line.decode().strip() for line in kept] == ["first", "zweite Zeile ü", "last without an end"]
    assert intake.finish(0.0) == []


def test_what_is_over_the_allowance_is_counted_and_the_tail_has_the_last_lines_all_the_same() -> None:
    intake = Intake(lines_per_second=10, lines_at_once=100)
    kept = intake.feed(b"".join(b"line %d\n" % number for number in range(1000)), 0.0)
    assert kept == [b"line %d" % number for number in range(100)]
    assert intake.take_dropped() == 900
    assert intake.take_dropped() == 0
    assert list(intake.tail) == [f"line {number}" for number in range(980, 1000)]
    assert len(intake.feed(b"again\n" * 50, 1.0)) == 10, "a second later so many may come as come in a second"


def test_a_long_line_counts_for_its_kibibytes_and_is_cut_where_it_is_too_long() -> None:
    intake = Intake(lines_per_second=1, lines_at_once=40)
    kept = intake.feed(b"x" * (LONGEST_LINE + 10) + b"\nshort\n", 0.0)
    assert [len(line) for line in kept] == [LONGEST_LINE, 10, 5]
    assert intake.feed(b"y" * 8000 + b"\n", 0.0) == [b"y" * 8000], "what is left may be overspent by one line"
    assert intake.feed(b"z\n", 0.0) == []
    assert intake.dropped == 1


def test_a_line_that_never_ends_does_not_gather_in_memory() -> None:
    intake = Intake()
    lines = [line for _ in range(8) for line in intake.feed(b"a" * 16_000, 0.0)]
    assert sum(map(len, lines)) >= 8 * 16_000 - LONGEST_LINE
    assert max(map(len, lines)) <= LONGEST_LINE


def test_a_child_that_writes_faster_than_it_may_is_left_alone_for_as_long_as_that_takes() -> None:
    intake = Intake(bytes_per_second=1000.0)
    intake.feed(b"x\n" * (1 << 19), 5.0)  # what may come at once
    assert intake.pause(5.0) == 0.0
    intake.feed(b"x\n" * 250, 5.0)
    assert intake.pause(5.0) == pytest.approx(0.5)
    assert intake.pause(5.4) == pytest.approx(0.1)
    assert intake.pause(6.0) == 0.0


def test_an_allowance_never_saves_up_more_than_it_may_hold_and_no_clock_takes_from_it() -> None:
    allowance = Allowance(per_second=2.0, at_once=5.0)
    assert allowance.left(100.0) == 5.0
    allowance.spend(5.0)
    assert allowance.left(101.0) == 2.0
    assert allowance.left(50.0) == 2.0
    assert allowance.left(1e9) == 5.0


def test_the_tail_quotes_what_a_marked_line_says_in_one_line() -> None:
    intake = Intake()
    intake.feed(line_of("Traceback\n  boom", level="error") + b"\x1b[31mred\x1b[0m\n" + b"w" * 1000 + b"\n", 0.0)
    assert list(intake.tail) == ["Traceback |   boom", "red", "w" * TAIL_LINE]
    assert intake.tail.maxlen == TAIL_LINES


def test_a_marked_line_says_its_fields_and_what_is_none_stays_text() -> None:
    marked = said(line_of("failed", level="warning", event="request", request_id="a-1", status=424).rstrip())
    assert marked is not None
    assert (marked.message, marked.level, marked.request_id, marked.status) == ("failed", "warning", "a-1", 424)
    for line in (
        b"plain",
        MARK + b"{}",
        MARK + b"not JSON",
        MARK + b'{"message": 1}',
        b'{"message": "no mark"}',
        MARK + b"\xff",
    ):
        assert said(line) is None
        assert "\x1e" not in text_of(line)


def test_the_longest_message_fits_into_a_line_and_loses_its_middle() -> None:
    worst = "\x01" * (10 * LONGEST_MESSAGE)
    line = line_of(worst, requests=["gateway-0.123:ff"] * 1000)
    assert len(line) <= LONGEST_LINE
    marked = said(line.rstrip())
    assert marked is not None
    assert "characters" in marked.message
    assert len(marked.requests) == MOST_REQUESTS


def test_a_message_with_half_a_character_can_be_said() -> None:
    marked = said(line_of("folder \udcff").rstrip())
    assert marked is not None
    assert marked.message == "folder \\udcff"


def test_requests_are_named_by_their_client() -> None:
    assert request_name(b"\x017 gateway-0.4121", 31) == "gateway-0.4121:1f"
    assert request_name(b"g\x00\xff\x01\x02\x03\x04\x05", 31) == "6700ff010203:1f"
