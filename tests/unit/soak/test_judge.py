"""Would the soak notice what it is to notice? Each promise is broken once on paper."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SOAK = Path(__file__).parents[2] / "soak"
NAMES = ("schedule", "clients", "watch", "judge")


@pytest.fixture(scope="module")
def soak() -> Iterator[Any]:
    """The modules of tests/soak, which import one another by their bare names."""
    sys.path.insert(0, str(SOAK))
    try:
        yield SimpleNamespace(**{name: __import__(name) for name in NAMES})
    finally:
        sys.path.remove(str(SOAK))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture
def asked(soak: Any) -> Callable[..., Any]:
    def make(at: float, *, code: Any = 200, breaks: Any = (), instance: str = "short-0", **more: Any) -> Any:
        made = [soak.clients.Break(*one) for one in breaks]
        return soak.clients.Asked(at, [0], "http", made, at + 0.1, code, instance=instance, **more)

    return make


@pytest.fixture
def death(soak: Any) -> Callable[..., Any]:
    def make(part: str, at: float, back_at: float | None, signal: str = "SIGKILL") -> Any:
        return soak.watch.Death(soak.schedule.Blow(at, part, signal), part, 100, at, back_at)

    return make


def samples(soak: Any, part: str, rss: Callable[[int], int], descriptors: Callable[[int], int]) -> list[Any]:
    return [soak.watch.Sample(float(t), part, 7, rss(t), descriptors(t), True) for t in range(100)]


def test_nothing_to_complain_of_where_all_was_answered_and_all_came_back(soak: Any, asked: Any, death: Any) -> None:
    verdict = soak.judge.judge([asked(1.0), asked(5.0)], [death("short-0", 2.0, 3.5)], [])
    assert verdict.complaints == []
    assert verdict.back == {"worker SIGKILL": [pytest.approx(3.1)]}  # until it answered again, not until it was ready


@pytest.mark.parametrize("code", [503, 500, 504, None])
def test_a_request_without_its_answer_is_lost(soak: Any, asked: Any, code: int | None) -> None:
    assert len(soak.judge.judge([asked(1.0), asked(2.0, code=code)], [], []).lost) == 1


def test_a_wrong_answer_is_a_complaint(soak: Any, asked: Any) -> None:
    assert soak.judge.judge([asked(1.0, wrong=True)], [], []).complaints == ["1 wrong answers"]


def test_a_run_that_asked_nothing_tested_nothing(soak: Any) -> None:
    assert soak.judge.judge([], [], []).complaints


def test_a_reset_is_explained_by_the_death_of_a_gateway_and_by_nothing_else(soak: Any, asked: Any, death: Any) -> None:
    reset = asked(1.0, breaks=[(0.5, 1.0, 2.01, "ConnectionResetError")])
    with_gateway = soak.judge.judge([reset], [death("gateway-0", 2.0, 3.0)], [])
    assert (with_gateway.broken_with_gateway, with_gateway.lost) == (1, [])
    for other in ([], [death("short-0", 2.0, 3.0)], [death("router", 2.0, 3.0)], [death("gateway-0", 2.5, 3.0)]):
        assert len(soak.judge.judge([reset], other, []).lost) == 1


def test_a_worker_that_stays_away_or_comes_late_is_a_complaint(soak: Any, asked: Any, death: Any) -> None:
    answers = [asked(20.0)]
    assert soak.judge.judge(answers, [death("short-0", 2.0, None)], []).late
    assert soak.judge.judge(answers, [death("short-0", 14.0, 16.0)], []).late
    assert not soak.judge.judge(answers, [death("short-0", 14.0, 16.0, "SIGSTOP")], []).late


@pytest.mark.parametrize(
    ("rss", "descriptors", "flat"),
    [
        (lambda t: 50 << 20, lambda t: 20, True),
        (lambda t: (50 << 20) + min(t, 10) * (9 << 20), lambda t: 20 + t % 2, True),
        (lambda t: (50 << 20) + t * (100 << 10), lambda t: 20, False),
        (lambda t: 50 << 20, lambda t: 20 + t // 30, False),
    ],
    ids=["flat", "warm-up and noise", "a leak of memory", "a leak of descriptors"],
)
def test_growth_is_told_from_warming_up(
    soak: Any, asked: Any, rss: Callable[[int], int], descriptors: Callable[[int], int], flat: bool
) -> None:
    verdict = soak.judge.judge([asked(1.0)], [], samples(soak, "router", rss, descriptors))
    assert (verdict.complaints == []) is flat


def test_an_operation_that_fails_is_a_complaint(soak: Any, asked: Any) -> None:
    operations = [
        soak.watch.Operation(soak.schedule.Blow(1.0, "short-0", "restart"), 1.2, code, "why") for code in (0, 1)
    ]
    verdict = soak.judge.judge([asked(1.0)], [], [], operations)
    assert verdict.operations == {"restart": [1.2, 1.2]}
    assert len(verdict.complaints) == 1


def test_an_answer_is_compared_number_by_number(soak: Any) -> None:
    clients = soak.clients.Clients(0, "", count=1, rate=1.0, seed=1)
    one = soak.clients.Asked(0.0, [0, 3], "http")
    right = soak.clients.known_texts()[1][[0, 3]]
    assert not clients._differs(one, right.tolist())
    for wrong in (right[::-1], right[:1], right + 0.001, [["a"]], None, []):
        assert clients._differs(one, wrong if not hasattr(wrong, "tolist") else wrong.tolist())


def test_the_order_of_deaths_is_that_of_the_seed_and_no_two_stops_are_close(soak: Any) -> None:
    def order(seed: int) -> list[Any]:
        made: list[Any] = soak.schedule.schedule(seed, 600.0, 200, ["short-0", "long-0"], ["gateway-0", "gateway-1"])
        return made

    assert order(5) == order(5) != order(6)
    blows = [blow for blow in order(5) if not blow.is_operation]
    assert len(blows) == 200
    assert {blow.part for blow in blows} == {"short-0", "long-0", "every worker", "router", "gateway-0", "gateway-1"}
    assert {blow.how for blow in blows} == {"SIGKILL", "SIGSEGV", "SIGTERM", "SIGSTOP"}
    assert {blow.how for blow in order(5) if blow.is_operation} == set(soak.schedule.OPERATIONS)
    assert all(blow.part in ("short-0", "long-0") for blow in order(5) if blow.at >= 360)
    stops = [blow.at for blow in blows if blow.how == "SIGSTOP"]
    assert all(b - a >= 9.0 for a, b in itertools.pairwise(stops))
