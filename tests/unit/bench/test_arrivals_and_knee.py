"""Do requests come as a Poisson process, and does the bisection find the knee that is there?"""

from __future__ import annotations

import statistics
from itertools import pairwise

import pytest

from orchestrator.bench.arrivals import poisson
from orchestrator.bench.knee import MOST_TRIES, Knee, Tried, knee, next_rate


def test_arrivals_are_ascending_within_the_time_and_the_same_for_the_same_seed() -> None:
    due = poisson(100.0, 5.0, 7)
    assert due == sorted(due)
    assert due[0] > 0.0
    assert due[-1] < 5.0
    assert due == poisson(100.0, 5.0, 7)
    assert due != poisson(100.0, 5.0, 8)


def test_gaps_have_the_mean_and_the_spread_of_a_poisson_process() -> None:
    gaps = [b - a for a, b in pairwise(poisson(200.0, 100.0, 3))]
    assert statistics.mean(gaps) == pytest.approx(1 / 200, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1 / 200, rel=0.05), "of an exponential the deviation is the mean"


def test_a_rate_too_low_for_the_time_gives_no_request() -> None:
    assert poisson(1e-6, 1.0, 1) == []


@pytest.mark.parametrize("true", [7.0, 80.0, 99.0, 340.0, 1000.0])
def test_the_knee_is_found_within_the_resolution_wherever_it_lies(true: float) -> None:
    tried: list[Tried] = []
    while (rate := next_rate(tried, 100.0, 0.05)) is not None:
        tried.append(Tried(rate, rate <= true))
    found = knee(tried)
    assert found.fine is not None
    assert found.over is not None
    assert found.fine <= true < found.over
    assert found.over - found.fine <= 0.05 * found.over
    assert len(tried) <= MOST_TRIES


def test_a_server_that_bears_nothing_or_everything_ends_the_search() -> None:
    for bears in (False, True):
        tried: list[Tried] = []
        while (rate := next_rate(tried, 100.0, 0.05)) is not None:
            tried.append(Tried(rate, bears))
        assert len(tried) <= MOST_TRIES
        assert (knee(tried).fine is None) is not bears


def test_a_rate_that_was_fine_above_one_that_was_not_is_taken_for_luck() -> None:
    assert knee([Tried(100, True), Tried(150, False), Tried(200, True)]) == Knee(100, 150)
    assert knee([]) == Knee(None, None)
