"""Does a child's core decide as the table says?"""

from __future__ import annotations

import random

import pytest

from orchestrator.supervisor.backoff import Backoff, Flapping
from orchestrator.supervisor.core import (
    Changed,
    Child,
    Kill,
    SendDrain,
    SendResume,
    SendStop,
    Spawn,
    TellLost,
    Timing,
)
from orchestrator.supervisor.states import TABLE, State, Stimulus, diagram, next_state


def child(**more: object) -> Child:
    return Child("short-0", "worker", Timing(), random.Random(7), **more)  # type: ignore[arg-type]


def ready(now: float = 0.0) -> Child:
    one = child()
    one.start(now)
    one.said_ready(now)
    return one


def without_log(actions: list[object]) -> list[object]:
    return [action for action in actions if not isinstance(action, Changed)]


def test_a_start_spawns_the_first_incarnation() -> None:
    one = child()
    assert one.start(10.0) == [Spawn(1), Changed(State.INITIAL, State.STARTING, "asked")]
    one.validate()


def test_a_child_that_is_not_ready_in_time_is_killed() -> None:
    one = child()
    one.start(0.0)
    assert one.tick(119.9) == []
    assert without_log(one.tick(120.0)) == [Kill()]
    assert one.state is State.KILLING
    one.exited("SIGKILL", 120.1)
    assert one.last_error == "SIGKILL: not ready after 120 s (supervision.start_timeout_s)"
    one.validate()


def test_a_child_that_dies_is_started_again_after_a_backoff_and_the_router_is_told() -> None:
    one = ready()
    actions = one.exited("SIGKILL", 1.0)
    assert actions[0] == TellLost(1, from_outside=True)
    assert one.state is State.BACKOFF
    assert one.last_error == "SIGKILL"
    assert one.deadline is not None
    assert without_log(one.tick(one.deadline)) == [Spawn(2)]
    assert one.restarts == 1
    one.validate()


def test_failures_in_a_row_wait_longer_and_a_good_run_forgets_them() -> None:
    backoff = Backoff(jitter=0.0)
    waits = [backoff.delay(failures, random.Random(0)) for failures in (1, 2, 3, 4, 30)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 30.0])
    one = ready()
    one.exited("exit 1", 1.0)
    one.tick(one.deadline or 0)
    one.said_ready(2.0)
    one.exited("exit 1", 3.0)
    assert one.failures == 2
    one.tick(one.deadline or 0)
    one.said_ready(5.0)
    one.exited("exit 1", 5.0 + one.backoff.good_run)
    assert one.failures == 1


def test_a_child_that_had_served_is_back_soon_however_often_it_dies() -> None:
    backoff = Backoff(jitter=0.0)
    waits = [backoff.delay(failures, random.Random(0), was_ready=True) for failures in (1, 4, 6, 30)]
    assert waits == pytest.approx([0.1, 0.8, 1.0, 1.0])


def test_the_jitter_stays_within_its_share() -> None:
    backoff = Backoff(first=1.0, jitter=0.25)
    delays = [backoff.delay(1, random.Random(seed)) for seed in range(200)]
    assert min(delays) >= 0.75
    assert max(delays) <= 1.25
    assert len(set(delays)) > 100


def test_a_child_without_a_sign_of_life_is_killed() -> None:
    one = ready()
    one.beat(None, 4.0)
    assert one.tick(8.9) == []
    assert without_log(one.tick(9.0)) == [Kill()]


def test_an_engine_that_hangs_is_told_from_one_that_works() -> None:
    one = ready()
    assert one.beat(59.0, 1.0) == []
    assert without_log(one.beat(61.0, 2.0)) == [Kill()]
    one.exited("SIGKILL", 2.1)
    assert one.last_error == "SIGKILL: its engine has been in one batch for 61 s"


def test_what_it_said_before_it_died_is_the_error() -> None:
    one = child()
    one.start(0.0)
    one.said_fatal("model.onnx: truncated", permanent=False)
    one.exited("exit 1", 0.5, "some output")
    assert one.last_error == "exit 1: model.onnx: truncated"


def test_an_old_error_is_not_blamed_for_a_new_death() -> None:
    one = child()
    one.start(0.0)
    one.said_fatal("model.onnx: truncated", permanent=False)
    one.exited("exit 1", 0.5)
    one.tick(one.deadline or 0)
    one.exited("SIGSEGV", 2.0, "last words")
    assert one.last_error == "SIGSEGV; last output: last words"


def test_a_failure_that_a_restart_cannot_help_ends_in_failed() -> None:
    one = child()
    one.start(0.0)
    one.said_fatal("CPU 7 is offline", permanent=True)
    one.exited("exit 78", 0.5)
    assert one.state is State.FAILED
    assert one.abandoned
    one.validate()


def test_a_start_is_abandoned_after_three_tries_but_a_run_never_is() -> None:
    one = child()
    one.start(0.0)
    for _ in range(3):
        assert not one.abandoned
        one.exited("exit 1", 0.0)
        one.tick(one.deadline or 0)
    assert one.abandoned
    other = ready()
    for _ in range(9):
        other.exited("exit 1", 0.0)
        other.tick(other.deadline or 0)
    assert not other.abandoned


def test_a_drain_is_followed_by_a_stop_and_a_stop_that_does_not_end_by_a_kill() -> None:
    one = ready()
    assert without_log(one.drain(1.0)) == [SendDrain()]
    assert without_log(one.said_drained(2.0)) == [SendStop()]
    assert without_log(one.tick(5.0)) == [Kill()]
    assert without_log(one.exited("SIGKILL", 5.1)) == [TellLost(1)]
    assert one.state is State.STOPPED
    one.validate()


def test_a_kill_that_does_not_end_is_said_again() -> None:
    one = ready()
    one.kill(0.0, "asked")
    assert without_log(one.tick(5.0)) == [Kill()]


def test_a_child_that_cannot_be_spawned_is_tried_again() -> None:
    one = child()
    one.start(0.0)
    one.spawn_failed("cannot start a process: Resource temporarily unavailable", 0.0)
    assert one.state is State.BACKOFF
    assert one.last_error == "cannot start a process: Resource temporarily unavailable"
    one.validate()


def test_a_restart_ends_one_incarnation_without_work_and_starts_the_next_at_once() -> None:
    one = ready()
    assert without_log(one.restart(1.0)) == [SendDrain()]
    assert one.state is State.DRAINING
    assert not one.serving
    assert without_log(one.said_drained(2.0)) == [SendStop()]
    assert without_log(one.exited("exit 0", 2.1)) == [TellLost(1), Spawn(2)]
    assert without_log(one.said_ready(3.0)) == [SendResume()]
    assert (one.failures, one.last_error, one.restarts, one.serving) == (0, None, 1, True)
    one.validate()


@pytest.mark.parametrize(
    ("how", "cause", "from_outside"),
    [("SIGKILL", None, True), ("SIGTERM", None, True), ("SIGKILL", "killed, probably out of memory", False),
     ("SIGSEGV", None, False), ("exit 7", None, False)],
)  # fmt: skip
def test_the_router_is_told_whether_somebody_killed_it(how: str, cause: str | None, from_outside: bool) -> None:
    one = ready()
    one.cause = cause
    assert one.exited(how, 1.0)[0] == TellLost(1, from_outside)


def test_what_is_killed_because_it_hangs_is_not_taken_for_killed_by_somebody() -> None:
    one = ready()
    one.tick(5.0)
    assert one.exited("SIGKILL", 5.1)[0] == TellLost(1)


def test_one_that_is_without_work_stays_so_when_it_is_asked_to_start() -> None:
    one = ready()
    one.withhold(1.0)
    one.said_drained(1.1)
    assert one.start(2.0) == []
    assert (one.state, one.wanted) == (State.DRAINED, "drain")
    one.validate()


def test_a_restart_whose_drain_does_not_end_goes_on_without_it() -> None:
    one = ready()
    one.restart(0.0)
    one.beat(None, 29.0)
    assert without_log(one.tick(30.0)) == [SendStop()]
    assert without_log(one.tick(33.0)) == [Kill()]
    assert without_log(one.exited("SIGKILL", 33.1)) == [TellLost(1), Spawn(2)]


def test_a_worker_that_dies_while_it_drains_for_a_restart_is_simply_started_again() -> None:
    one = ready()
    one.restart(0.0)
    assert without_log(one.exited("SIGKILL", 0.5)) == [TellLost(1, from_outside=True), Spawn(2)]
    assert one.failures == 0


def test_a_router_is_restarted_without_a_drain() -> None:
    one = Child("router", "router", Timing(), random.Random(7))
    one.start(0.0)
    one.said_ready(0.1)
    assert without_log(one.restart(1.0)) == [SendStop()]
    assert without_log(one.exited("exit 0", 1.1)) == [TellLost(1), Spawn(2)]


def test_a_restart_starts_what_is_at_rest_or_waits_and_ends_a_start_that_is_under_way() -> None:
    failed = child()
    failed.start(0.0)
    failed.said_fatal("CPU 7 is offline", permanent=True)
    failed.exited("exit 78", 0.5)
    assert without_log(failed.restart(1.0)) == [Spawn(2)]
    waiting = ready()
    waiting.exited("exit 1", 1.0)
    assert without_log(waiting.restart(1.0)) == [Spawn(2)]
    starting = child()
    starting.start(0.0)
    assert without_log(starting.restart(0.5)) == [Kill()]
    assert without_log(starting.exited("SIGKILL", 0.6)) == [TellLost(1), Spawn(2)]


def test_a_drained_worker_stays_without_work_over_a_death_and_over_a_restart_until_it_is_resumed() -> None:
    one = ready()
    assert without_log(one.withhold(1.0)) == [SendDrain()]
    assert without_log(one.said_drained(2.0)) == []
    assert one.state is State.DRAINED
    assert one.serving
    one.exited("SIGKILL", 3.0)
    one.tick(one.deadline or 0)
    assert without_log(one.said_ready(4.0)) == [SendDrain()]
    assert one.state is State.DRAINED
    assert without_log(one.restart(5.0)) == [SendStop()]
    one.exited("exit 0", 5.1)
    one.said_ready(6.0)
    assert one.state is State.DRAINED
    assert without_log(one.resume(7.0)) == [SendResume()]
    assert one.state is State.READY
    one.validate()


def test_a_resume_in_the_middle_of_a_drain_ends_it() -> None:
    one = ready()
    one.withhold(1.0)
    assert without_log(one.resume(2.0)) == [SendResume()]
    assert one.state is State.READY
    assert one.said_drained(2.1) == []


def test_a_drained_worker_is_still_watched() -> None:
    one = ready()
    one.withhold(0.0)
    one.said_drained(1.0)
    assert without_log(one.tick(6.0)) == [Kill()]
    one.exited("SIGKILL", 6.1)
    assert one.last_error == "SIGKILL: no sign of life for 5 s"


def test_what_fails_too_often_stays_down_and_says_why_ready_between_or_not() -> None:
    one = child(flapping=Flapping(failures=3, window=60.0))
    one.start(0.0)
    one.said_ready(0.0)
    for at in (15.0, 30.0):
        one.exited("SIGSEGV", at, "bad page")
        one.tick(one.deadline or 0)
        one.said_ready(at + 1)
    one.exited("SIGSEGV", 45.0, "bad page")
    assert one.state is State.FAILED
    assert one.last_error == (
        "failed 3 times within 60 s (supervision.flap_failures, flap_window_s); the last time: SIGSEGV; last output: bad page"
    )
    assert without_log(one.restart(50.0)) == [Spawn(4)]
    one.said_ready(51.0)
    one.exited("SIGSEGV", 52.0)
    assert one.state is State.BACKOFF
    one.validate()


def test_failures_that_lie_apart_are_not_flapping() -> None:
    one = child(flapping=Flapping(failures=3, window=60.0))
    one.start(0.0)
    for at in (0.0, 40.0, 80.0, 120.0):
        one.said_ready(at)
        one.exited("exit 1", at)
        one.tick(one.deadline or 0)
    assert one.state is State.STARTING


def test_a_backoff_that_is_over_waits_until_one_more_may_start() -> None:
    one = ready()
    one.exited("exit 1", 1.0)
    due = one.deadline or 0
    assert one.tick(due, may_start=False) == []
    assert without_log(one.tick(due + 5, may_start=True)) == [Spawn(2)]


@pytest.mark.parametrize("state", list(State))
def test_late_messages_mean_nothing_where_the_table_has_no_row(state: State) -> None:
    one = child()
    one.state = state
    if next_state(state, Stimulus.READY_SAID) is None:
        assert one.said_ready(0.0) == []
        assert one.state is state


def test_the_diagram_shows_every_row_of_the_table() -> None:
    assert len(diagram().splitlines()) == len(TABLE) + 1


def test_every_state_can_be_left_and_reached() -> None:
    reached = set(TABLE.values()) | {State.INITIAL}
    assert reached == set(State)
    assert {state for state, _ in TABLE} == set(State)


def test_what_the_supervisor_did_not_hear_while_it_was_away_is_held_against_nobody() -> None:
    serving, starting = ready(), child()
    starting.start(0.0)
    for one in (serving, starting):
        one.pardon(130.0)
        assert one.tick(134.9) == []
        one.validate()
    assert without_log(serving.tick(135.0)) == [Kill()]
    assert starting.tick(249.9) == []
    assert without_log(starting.tick(250.0)) == [Kill()]
