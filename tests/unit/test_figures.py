"""Are figures written for people as the dashboard writes them?"""

from __future__ import annotations

import pytest

from orchestrator.figures import counts_by_reason, duration, lengths, mebibytes, milliseconds, number, percent
from orchestrator.plan.model import Bucket


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.0, "0"), (0.421, "0.42"), (7.13, "7.1"), (7.0, "7"), (128.4, "128"), (12345, "12,345")],
)
def test_a_number_has_about_three_digits_that_mean_something(value: float | None, text: str) -> None:
    assert number(value) == text


def test_shares_sizes_times_and_lengths() -> None:
    assert [percent(value) for value in (None, 0.0, 0.062, 0.83, 1.0)] == ["-", "0 %", "6.2 %", "83 %", "100 %"]
    assert [mebibytes(value) for value in (None, 312 << 20)] == ["-", "312"]
    assert [milliseconds(value) for value in (None, 4.25, 58.0)] == ["-", "4.2", "58.0"]
    assert [duration(value) for value in (5, 3600 + 7 * 60, 2 * 86400 + 3 * 3600)] == ["0m05s", "1h07m", "2d03h"]
    assert [lengths(value) for value in (None, Bucket(1, 32))] == ["all", "1-32"]


def test_counts_are_told_the_most_first_and_none_that_is_zero() -> None:
    assert counts_by_reason({"too_long": 3, "deadline": 0, "queue_full": 1200}) == "queue_full 1,200, too_long 3"
    assert counts_by_reason({}) == ""
