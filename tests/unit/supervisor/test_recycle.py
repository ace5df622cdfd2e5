"""Is a worker replaced when it is too large or too old, and never for less?"""

from __future__ import annotations

import pytest

from orchestrator.supervisor.recycle import JITTER, SETTLE_SECONDS, Ceiling, Worker, age_of_recycle, due

MIB = 1 << 20


def worker(name: str = "short-0", *, age: float = 1000.0, mib: int | None = 100, incarnation: int = 1) -> Worker:
    return Worker(name, incarnation, age, None if mib is None else mib * MIB)


def test_without_a_ceiling_nobody_is_due() -> None:
    assert due([worker(age=1e9, mib=1 << 20)], Ceiling()) is None


def test_the_one_that_is_furthest_over_the_ceiling_goes_first_and_the_reason_is_said() -> None:
    workers = [worker("short-0", mib=220), worker("long-0", mib=300), worker("long-1", mib=200)]
    assert due(workers, Ceiling(most_bytes=200 * MIB)) == (
        "long-0",
        "holds 300 MiB of 200 (supervision.max_rss_mb)",
    )


def test_at_the_ceiling_or_of_unknown_size_nobody_is_due() -> None:
    assert due([worker(mib=200), worker(mib=None)], Ceiling(most_bytes=200 * MIB)) is None


def test_one_that_has_just_started_is_left_alone_so_that_a_ceiling_too_low_is_no_endless_loop() -> None:
    ceiling = Ceiling(most_bytes=MIB)
    assert due([worker(age=SETTLE_SECONDS - 1)], ceiling) is None
    assert due([worker(age=SETTLE_SECONDS)], ceiling) is not None


def test_an_old_one_is_due_at_its_own_time_and_never_later_than_the_layout_says() -> None:
    ages = [age_of_recycle("short-0", incarnation, 100.0) for incarnation in range(200)]
    assert max(ages) <= 100.0
    assert min(ages) >= 100.0 * (1 - JITTER)
    assert len(set(ages)) == 200
    at = age_of_recycle("short-0", 1, 100.0)
    assert due([worker(age=at - 0.01)], Ceiling(most_age=100.0)) is None
    assert due([worker(age=at)], Ceiling(most_age=100.0)) == (
        "short-0",
        f"is {at:.0f} s old, 100 at most (supervision.max_age_s)",
    )


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_the_order_in_which_workers_are_told_does_not_matter(names: tuple[str, str]) -> None:
    workers = [worker(name, mib=300) for name in names]
    assert due(workers, Ceiling(most_bytes=200 * MIB)) == due(workers[::-1], Ceiling(most_bytes=200 * MIB))
