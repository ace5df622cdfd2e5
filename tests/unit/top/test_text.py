"""How does text become cells, styles and, on a poor terminal, ASCII?"""

from __future__ import annotations

from orchestrator.top.text import Span, cells, crop, cut, fit, flow, in_ascii, painted, plain, printable


def test_text_is_cut_with_an_ellipsis_and_filled_with_blanks() -> None:
    assert fit("short-0", 9) == "short-0  "
    assert fit("12", 5, right=True) == "   12"
    assert fit("a-long-name-0", 6) == "a-lon…"
    assert [cut("abc", width) for width in range(5)] == ["", "…", "a…", "abc", "abc"]


def test_wide_and_combining_letters_are_counted_as_the_terminal_does() -> None:
    assert cells("模型") == 4
    assert cells("e\u0301") == 1
    assert fit("模型x", 4) == "模… "


def test_no_control_character_gets_through_and_lines_are_joined() -> None:
    assert printable("a\x1b[31mb\x00\x7f\x9bc") == "a?[31mb???c"
    assert printable("first\n    second\tthird  and") == "first second third  and"
    assert printable("\u202edesrever\u200b") == "?desrever?"
    assert printable("Größe 模型") == "Größe 模型"


def test_a_line_is_cropped_across_its_spans() -> None:
    line = (Span("abc", "bad"), Span("def"))
    assert crop(line, 4) == (Span("abc", "bad"), Span("…"))
    assert crop(line, 3) == (Span("abc", "bad"),)
    assert plain((*line, Span("   "))) == "abcdef"


def test_colours_are_left_out_where_they_are_not_wanted_and_emphasis_is_not() -> None:
    line = (Span("ok", "good"), Span(" "), Span("no", "bad"))
    assert painted(line, colour=True) == "\x1b[32mok\x1b[0m \x1b[1;31mno\x1b[0m"
    assert painted(line, colour=False) == "ok \x1b[1mno\x1b[0m"


def test_what_a_frame_is_made_of_has_a_form_in_ascii() -> None:
    assert in_ascii("● ▲ ✖ ▁▂▃▄▅▆▇█ … → ↑ é") == "* ^ x _.:-=+*# ~ > ? ?"


def test_parts_flow_onto_as_many_lines_as_they_need() -> None:
    lines = flow([Span("aaaa"), Span("bbbb"), Span("cccccccccccc"), Span("dd")], 10)
    assert [plain(line) for line in lines] == ["aaaa  bbbb", "cccccccccccc", "dd"]
