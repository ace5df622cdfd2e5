"""Which key does what, and what comes of the bytes that a terminal sends?"""

from __future__ import annotations

import pytest

from orchestrator.top.view import KEYS, View, keys_in, pressed

SORTS = ("", "instance", "p99 ms")


def press(view: View, *keys: str, rows: int = 192, page: int = 20) -> View:
    for key in keys:
        view = pressed(view, key, sorts=SORTS, rows=rows, page=page)
    return view


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"sSr", ["s", "S", "r"]),
        (b"\x1b[A\x1b[B\x1bOA\x1bOB", ["up", "down", "up", "down"]),
        (b"\x1b[5~\x1b[6~", ["page-up", "page-down"]),
        (b"\x1b[H\x1b[F\x1b[1~\x1b[4~gG", ["home", "end"] * 3),
        (b"kjb h", ["up", "down", "page-up", "page-down", "?"]),
        (b"\x1b", ["escape"]),
        (b"\x1b\x1b[A", ["escape", "up"]),
        (b"\x1b[1;5Aq", ["q"]),  # Control and an arrow: nothing
        (b"\x1bxq", ["q"]),  # Alt and a letter: nothing
        (b"\x1b[200~", []),
    ],
)
def test_bytes_become_keys(sent: bytes, keys: list[str]) -> None:
    assert keys_in(sent) == (keys, b"")


def test_a_sequence_that_comes_in_two_pieces_is_one_key() -> None:
    keys, rest = keys_in(b"s\x1b[")
    assert (keys, rest) == (["s"], b"\x1b[")
    assert keys_in(rest + b"6~") == (["page-down"], b"")


def test_a_sequence_without_an_end_is_let_go() -> None:
    assert keys_in(b"\x1b[" + b"1;" * 50) == ([], b"")


def test_s_goes_through_the_columns_and_round_and_begins_at_the_top() -> None:
    view = press(View(offset=50), "s")
    assert view == View(sort="instance", offset=0)
    assert press(view, "s", "s").sort == ""
    assert press(View(), "S").sort == "p99 ms"
    assert press(View(sort="gone"), "s").sort == "instance"


def test_r_turns_the_order_round_and_back() -> None:
    assert press(View(), "r").reverse
    assert press(View(), "r", "r") == View()


def test_scrolling_stays_within_the_rows() -> None:
    assert press(View(), "up", "page-up").offset == 0
    assert press(View(), "down", "down").offset == 2
    assert press(View(), "page-down").offset == 20
    assert press(View(), "end").offset == 172
    assert press(View(), "end", "down", "page-down").offset == 172
    assert press(View(), "end", "page-up", "home").offset == 0


def test_after_rows_have_gone_one_step_up_is_one_row_up() -> None:
    assert press(View(offset=172), "up", rows=30).offset == 9


def test_where_all_rows_are_shown_nothing_scrolls() -> None:
    for key in ("up", "down", "page-up", "page-down", "home", "end"):
        assert press(View(), key, rows=5, page=5) == View()


def test_any_key_leaves_the_help_and_does_nothing_else() -> None:
    helped = press(View(), "?")
    assert helped.help
    for key in ("q", "s", "down", "?", "escape", "x"):
        assert press(helped, key) == View()


def test_every_key_that_the_help_names_does_something() -> None:
    names = {"↑": "up", "↓": "down", "PgUp": "page-up", "PgDn": "page-down", "Home": "home", "End": "end", "space": " "}
    middle = View(offset=50)
    for name in (word for keys, _ in KEYS for word in keys.split()):
        typed = names.get(name, name)
        keys = keys_in(typed.encode())[0] if len(typed) == 1 else [typed]
        assert keys == ["q"] or press(middle, *keys) != middle, name
