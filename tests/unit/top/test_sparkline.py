"""Does a minute in a few cells keep its shape and its gaps?"""

from __future__ import annotations

from orchestrator.top.sparkline import BLOCKS, sparkline

MINUTE = [float(at) for at in range(542, 602, 2)]


def test_a_cell_per_point_rises_with_the_value() -> None:
    assert sparkline(MINUTE, [float(at) for at in range(30)], 2.0, 30) == "▁▁▁▁▂▂▂▂▃▃▃▄▄▄▄▅▅▅▅▆▆▆▇▇▇▇████"


def test_the_newest_is_at_the_right_end_and_what_is_not_known_is_blank() -> None:
    assert sparkline([600.0, 602.0], [1.0, 2.0], 2.0, 30) == " " * 28 + "▅█"
    assert sparkline(MINUTE, [None] * 29 + [1.0], 2.0, 30) == " " * 29 + "█"
    assert sparkline([], [], 2.0, 5) == " " * 5
    assert sparkline(MINUTE, [1.0] * 30, 2.0, 0) == ""


def test_a_time_without_points_is_a_gap() -> None:
    at = [when for when in MINUTE if not 560 <= when < 570]
    assert sparkline(at, [1.0] * len(at), 2.0, 30) == "█" * 9 + " " * 5 + "█" * 16
    assert sparkline(at, [1.0] * len(at), 2.0, 15) == "█████  ████████"


def test_points_that_are_a_little_late_leave_no_gap() -> None:
    at = [when + (0.0, 0.9, 1.8, 0.4)[number % 4] for number, when in enumerate(MINUTE)]
    assert sparkline(at, [1.0] * 30, 2.0, 30) == "█" * 30


def test_fewer_cells_show_the_mean_of_their_points() -> None:
    assert sparkline(MINUTE, [0.0, 8.0] * 15, 2.0, 15) == "█" * 15
    assert sparkline(MINUTE, [0.0, 0.0, 8.0] * 10, 2.0, 10) == "█" * 10


def test_what_is_older_than_a_minute_is_not_shown() -> None:
    at = [float(when) for when in range(400, 602, 2)]
    assert sparkline(at, [100.0] * (len(at) - 30) + [1.0] * 30, 2.0, 30) == "█" * 30


def test_points_that_are_further_apart_fill_as_many_cells() -> None:
    at = [float(when) for when in range(540, 604, 4)]
    assert sparkline(at, [1.0] * len(at), 4.0, 30) == "█" * 30


def test_nothing_at_all_is_low_and_never_high() -> None:
    assert sparkline(MINUTE, [0.0] * 30, 2.0, 30) == BLOCKS[0] * 30
