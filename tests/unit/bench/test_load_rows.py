"""Do the rows of a load test say what the answers said?"""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.bench.load import LoadResult
from orchestrator.bench.load_rows import Load, is_fine, load_row, ratios
from orchestrator.bench.load_table import details, load_cells, load_charts

HEAD = (
    b"http/1.1 200 ok\r\ncontent-length: 2\r\nserver-timing: tokenize;dur=0.500, queue;dur=2.000, inference;dur=%d.000, post;dur=0.1\r\n"
    b"x-instance: %b\r\nx-bucket: 1-32\r\nx-batch-size: %d"
)


def seen(*latencies: float, **more: Any) -> LoadResult:
    given: dict[str, Any] = {
        "in_time": len(latencies), "latencies": list(latencies), "heads": [b"http/1.1 200 ok"] * len(latencies),
        "by_kind": {"short": list(latencies)}, **more,
    }  # fmt: skip
    return LoadResult(1.0, 1.0, **given)


def test_throughput_is_the_median_of_the_rounds_and_latencies_are_of_all() -> None:
    row = load_row("ours", Load(in_flight=4), [seen(*[0.01] * 10), seen(*[0.01] * 30), seen(*[0.2] * 20)], 100.0)
    assert (row.per_second, row.rounds, row.spread) == (20.0, 3, 2.0)
    assert row.latency.count == 60
    assert (row.latency.p50_ms, row.latency.max_ms) == (10.0, 200.0)
    assert row.goodput_per_second == pytest.approx(20.0 * 40 / 60, abs=0.01)
    assert (row.load, row.in_flight, row.rate, row.offered_per_second) == ("4 in flight", 4, None, None)


def test_stages_instances_and_batches_come_from_the_headers() -> None:
    heads = [HEAD % (4, b"short-0", 2), HEAD % (8, b"short-0", 4), HEAD % (30, b"long-0", 1)]
    row = load_row("ours", Load(rate=3.0), [seen(0.005, 0.009, 0.04, heads=heads)], 100.0)
    assert row.stages["inference"].p50_ms == 8.0
    assert row.stages["queue"].p99_ms == 2.0
    assert {name: (of.count, of.batch_mean) for name, of in row.served_by.items()} == {
        "long-0": (1, 1.0),
        "short-0": (2, 3.0),
    }
    assert row.batch_mean == pytest.approx(7 / 3, abs=1e-3)
    said = details(row)
    assert "inference 8.00 / 30.0" in said[0]
    assert "short-0 2 (9.00 / 9.00 ms, batch 3.00)" in said[1]


def test_a_server_without_such_headers_has_neither() -> None:
    row = load_row("another", Load(rate=3.0), [seen(0.005)], 100.0)
    assert (row.stages, row.served_by, row.batch_mean) == ({}, {}, None)
    assert details(row) == []


def test_refusals_are_counted_by_status_and_what_broke_by_reason() -> None:
    row = load_row("ours", Load(rate=6.0), [seen(0.01, failures={429: 2, 503: 1}, broken={"no answer": 1})], 100.0)
    assert row.refused == {"429": 2, "503": 1, "no answer": 1}
    assert row.offered_per_second == 5.0
    assert not is_fine(row, 1000.0)
    assert "2 × 429, 1 × 503, 1 × no answer" in load_cells([row])[1]


def test_a_generator_that_was_late_makes_the_row_invalid_where_that_matters() -> None:
    late = load_row("ours", Load(rate=1.0), [seen(0.01, lags=[0.02])], 100.0)
    assert late.invalid is not None
    assert "the generator was late itself: p99 20.0 ms" in late.invalid
    assert load_cells([late])[1][-1] == "INVALID"
    slow = load_row("ours", Load(rate=1.0), [seen(1.0, lags=[0.02])], 100.0)
    assert (slow.invalid, slow.lag_p99_ms) == (None, 20.0)


def test_nothing_answered_is_invalid_and_no_division() -> None:
    row = load_row(
        "ours", Load(rate=1.0), [seen(broken={"closed without an answer": 3}, by_kind={})], 100.0, cpu_seconds=1.0
    )
    assert (row.invalid, row.per_second, row.goodput_per_second) == ("nothing was answered", 0.0, 0.0)
    assert row.cpu_seconds_per_1000 is None
    assert ratios(Load(rate=1.0), {"a": [seen(broken={}, by_kind={})], "b": [seen(0.1)]}) == []


def test_ratios_are_round_by_round_against_the_first() -> None:
    load = Load(in_flight=1)
    first = [seen(*[0.010] * 100), seen(*[0.020] * 50), seen(*[0.010] * 100)]
    second = [seen(*[0.005] * 200), seen(*[0.010] * 100), seen(*[0.010] * 100)]
    (ratio,) = ratios(load, {"a": first, "b": second})
    assert (ratio.name, ratio.against, ratio.per_second, ratio.p50, ratio.p99) == ("b", "a", 2.0, 0.5, 0.5)


def test_a_server_bears_a_rate_if_all_is_answered_in_time() -> None:
    row = load_row("ours", Load(rate=2.0), [seen(0.02, 0.05)], 100.0)
    assert is_fine(row, 50.0)
    assert not is_fine(row, 49.9)


def test_classes_have_columns_only_where_there_are_several() -> None:
    both = seen(0.01, 0.5, by_kind={"short": [0.01], "long": [0.5]})
    one, two = (load_cells([load_row("ours", Load(in_flight=1), [each], 100.0)]) for each in (seen(0.01), both))
    assert "short p50" not in one[0]
    assert two[0][9:13] == ["short p50", "p99", "long p50", "p99"]
    assert len({len(line) for line in two}) == 1
    assert len(load_charts([load_row("ours", Load(in_flight=1), [both], 100.0)])) == 3
