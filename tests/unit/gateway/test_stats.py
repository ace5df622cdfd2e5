"""Do the gateway's own numbers add up?"""

from __future__ import annotations

from typing import Any

from orchestrator.gateway.stats import WINDOW_SECONDS, Stats
from orchestrator.status import LATENCY_BOUNDS_SECONDS, GatewayStatus


def report(stats: Stats, now: float) -> GatewayStatus:
    given: dict[str, Any] = {"name": "g", "state": "ready", "pid": 1, "connections": 0, "resubmitted": 0}
    return stats.report(now, **given, late_replies=0, cpu_seconds=0.0, rss_bytes=None)


def test_responses_are_counted_by_route_and_status() -> None:
    stats = Stats()
    for status in (200, 200, 413):
        stats.responded("/embed", status)
    assert report(stats, 0.0).responses == {"/embed 200": 2, "/embed 413": 1}


def test_the_histogram_is_cumulative_with_one_count_more_for_infinity() -> None:
    stats = Stats()
    for seconds in (0.0005, 0.0006, 100.0):
        stats.inferred(0.0, seconds)
    buckets = report(stats, 0.0).latency_buckets
    assert len(buckets) == len(LATENCY_BOUNDS_SECONDS) + 1
    assert buckets[:2] == [1, 2]
    assert buckets[-2:] == [2, 3]


def test_quantiles_forget_what_is_older_than_the_window() -> None:
    stats = Stats()
    stats.inferred(0.0, 9.0)
    for at in range(100):
        stats.inferred(5.0, (at + 1) / 1000)
    late = report(stats, 5.0 + WINDOW_SECONDS / 2 + 5.0 / 2)
    assert late.latency_ms.p99 == 100.0
    assert late.latency_ms.p50 == 51.0
    assert report(stats, 100.0).latency_ms.p50 is None


def test_the_rate_is_over_the_window_and_not_over_the_whole_life() -> None:
    stats = Stats()
    assert report(stats, 0.0).requests_per_second == 0.0
    for _ in range(50):
        stats.responded("/embed", 200)
    assert report(stats, 5.0).requests_per_second == 10.0
    assert report(stats, 5.0 + WINDOW_SECONDS + 0.1).requests_per_second == 0.0
