"""Do a load test's figures say what they are named after?"""

from __future__ import annotations

from orchestrator.bench.rows import InstanceRow, Latency, LoadRow, latency, quantile, table
from orchestrator.bench.texts import classed_texts, mixed_texts, short_texts


def test_quantiles_are_of_the_nearest_rank() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert (quantile(ordered, 0.5), quantile(ordered, 0.99), quantile(ordered, 1.0)) == (51.0, 100.0, 100.0)
    assert quantile([7.0], 0.99) == 7.0


def test_latencies_are_milliseconds_whatever_their_order() -> None:
    assert latency([0.003, 0.001, 0.002]) == Latency(3, 2.0, 3.0, 3.0, 3.0, 3.0)


def test_no_request_has_no_latency() -> None:
    assert latency([]) == Latency(0)


def row(name: str, **more: object) -> LoadRow:
    given = {
        "seconds": 1.0, "per_second": 12.34, "goodput_per_second": None, "goodput_ms": 100.0, "latency": Latency(),
        "classes": {}, **more,
    }  # fmt: skip
    return LoadRow(name=name, **given)  # type: ignore[arg-type]


def test_what_was_not_measured_is_a_dash_and_columns_stay_in_line() -> None:
    busy = [InstanceRow("a", 1, 0.25, 1, 1.0, 0.0), InstanceRow("b", 1, 0.75, 1, 1.0, 0.0)]
    full = row(
        "ours", goodput_per_second=12.0, latency=Latency(5, 1.234, 45.67, 1234.5), classes={"long": Latency(5, 1.0, 2.0, 3.0)},
        refused={"429": 3}, batch_mean=1.5, padding_ratio=0.015, spilled=4, stolen=2, cpu_seconds_per_1000=2.5, instances=busy,
    )  # fmt: skip
    head, ours, bare = table([full, row("bare")]).splitlines()
    assert head.split() == [
        "/s", "good/s", "p50", "p95", "p99", "long", "p50", "p99", "busy", "batch", "padding", "spilled", "stolen", "refused",
        "CPU", "s/1000",
    ]  # fmt: skip
    assert ours.split() == [
        "ours", "12.3", "12.0", "1.23", "45.7", "1234", "1.00", "3.00", "25%", "to", "75%", "1.50", "1.5%", "4", "2", "3", "429",
        "2.50",
    ]  # fmt: skip
    assert bare.split() == ["bare", "12.3", *"-" * 11, "0", "-"]
    assert len({len(line) for line in (head, ours, bare)}) == 1


def test_classed_texts_are_the_mixed_texts_with_their_class() -> None:
    classed = classed_texts(5, 200)
    assert [words for words, _ in classed] == mixed_texts(5, 200)
    limits = {"short": (8, 26), "medium": (60, 110), "long": (380, 480)}
    for words, kind in classed:
        low, high = limits[kind]
        assert low <= len(words.split()) <= high
    assert {kind for _, kind in classed} == set(limits)
    assert all(8 <= len(words.split()) <= 26 for words in short_texts(5, 50))
