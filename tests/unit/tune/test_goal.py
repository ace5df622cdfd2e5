"""Is one layout better than another where it should be?"""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.bench.rows import Latency, LoadRow
from orchestrator.tune.goal import LEAST_MS, REFUSED, Figures, Load, figures, limits_of, mean, score


def row(refused: dict[str, int] | None = None, **p99: float) -> LoadRow:
    classes = {kind: Latency(10, each / 2, each, each) for kind, each in p99.items()}
    return LoadRow(
        name="x", seconds=1, per_second=50.0, goodput_per_second=None, goodput_ms=0, latency=Latency(), classes=classes,
        refused=refused or {},
    )  # fmt: skip


def test_a_class_may_take_ten_times_what_its_longest_takes_alone_and_ten_milliseconds_at_least() -> None:
    assert limits_of({"short": 20, "long": 400}, lambda length: length * 1e-4) == {"short": 20.0, "long": 400.0}
    assert limits_of({"short": 5}, lambda length: length * 1e-4) == {"short": LEAST_MS}
    assert limits_of({"short": 20, "long": 400}, lambda length: 1.0, 50.0) == {"short": 50.0, "long": 50.0}


def test_pressure_is_that_of_the_class_that_comes_nearest_to_its_limit() -> None:
    limits = {"short": 10.0, "long": 100.0}
    assert figures(row(short=5.0, long=80.0), Load(100.0), limits).pressure == 0.8
    assert not figures(row(short=11.0, long=80.0), Load(100.0), limits).holds


def test_who_refuses_requests_or_answers_none_never_holds_its_limits() -> None:
    assert figures(row({"queue_full": 1}, short=1.0), Load(100.0), {"short": 10.0}).pressure >= REFUSED
    assert not figures(row(), Load(100.0), {"short": 10.0}).holds


def test_who_falls_behind_an_open_load_breaks_even_patient_limits() -> None:
    behind = msgspec.structs.replace(
        row(long=50.0), latency=Latency(60)
    )  # 60 came in the second in which 50 were answered
    assert figures(behind, Load(60.0), {"long": 1000.0}).pressure > 2.0
    assert figures(behind, Load(in_flight=60), {"long": 1000.0}).holds
    assert figures(msgspec.structs.replace(behind, latency=Latency(51)), Load(51.0), {"long": 1000.0}).holds


def test_throughput_is_the_rate_that_is_held_and_less_where_it_is_not() -> None:
    holds = Figures(Load(100.0), 98.0, {}, {}, 0.9)
    breaks = Figures(Load(100.0), 98.0, {}, {}, 2.0)
    closed = Figures(Load(in_flight=4), 98.0, {}, {}, 0.9)
    assert [score("throughput", each) for each in (holds, breaks, closed)] == [100.0, 50.0, 98.0]
    assert score("latency", holds) > score("latency", breaks)


def test_the_mean_of_several_runs_is_of_each_class_over_the_runs_that_had_it() -> None:
    one = Figures(Load(1.0), 10.0, {"short": 4.0, "long": 100.0}, {"short": 2.0, "long": 50.0}, 0.5)
    other = Figures(Load(1.0), 20.0, {"short": 6.0}, {"short": 3.0}, 0.7, 1)
    both = mean([one, other])
    assert (both.per_second, both.p99_ms, both.refused) == (15.0, {"short": 5.0, "long": 100.0}, 1)
    assert both.pressure == pytest.approx(0.6)
