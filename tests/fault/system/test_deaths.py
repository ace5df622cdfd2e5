"""What is lost when a part dies under load? Nothing that was accepted: each test kills, and counts."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec

from orchestrator.status import EVENTS_SHOWN, Event

Start = Callable[..., Any]


def all_right(outcomes: list[Any]) -> None:
    assert [outcome for outcome in outcomes if outcome.code != 200] == []
    assert [outcome for outcome in outcomes if outcome.wrong] == []


def test_a_killed_worker_loses_no_request_and_comes_back(start_system: Start, load_on: Callable[[Any], Any]) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start()
    load.until_answered(20)
    for at, name in enumerate(("short-0", "long-0")):
        os.kill(system.pids()[name], signal.SIGKILL)
        load.until_answered(20)
        system.until(
            f"{name} is back",
            lambda status, at=at: status.instances[at].restarts == 1 and status.instances[at].state == "ready",
        )
    load.until_answered(20)
    all_right(load.stop())
    status = system.until("all settled", lambda status: status.router.settled == status.router.submitted)
    assert [each.restarts for each in status.instances] == [1, 1]
    assert all(each.verified.matches_plan for each in status.instances)
    assert "SIGKILL" in status.instances[0].last_error


def test_a_killed_router_loses_no_request(start_system: Start, load_on: Callable[[Any], Any]) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start()
    load.until_answered(20)
    for times in (1, 2):
        os.kill(system.pids()["router"], signal.SIGKILL)
        load.until_answered(20)
        system.until(
            "the router is back",
            lambda status, times=times: status.router.restarts == times and status.state == "ready",
        )
    all_right(load.stop())
    system.until("what it resubmitted is counted", lambda status: status.gateways[0].resubmitted > 0)


def history_of(system: Any) -> dict[str, Any]:
    code, body = system.get("/api/history")
    assert code == 200, body
    return dict(json.loads(body))


def test_a_killed_gateway_comes_back_on_the_same_port_and_knows_what_was_before_it(
    start_system: Start, load_on: Callable[[Any], Any]
) -> None:
    system = start_system("--instances", "2")
    before = history_of(system)
    os.kill(system.pids()["gateway-0"], signal.SIGKILL)
    assert len(system.embed("this connection waits in the listening socket of the supervisor")) == 384
    system.until("ready again", lambda status: status.state == "ready" and status.gateways[0].restarts == 1)
    after = history_of(system)
    assert after["pid"] == before["pid"] == system.process.pid
    assert before["points"]
    assert after["points"][: len(before["points"])] == before["points"]
    assert [(one["before"], one["after"], one["why"]) for one in after["events"] if one["part"] == "gateway-0"][2:] == [
        ("ready", "backoff", "SIGKILL"),
        ("backoff", "starting", "backoff over"),
        ("starting", "ready", "ready"),
    ]
    assert system.status().events == msgspec.convert(after["events"][-EVENTS_SHOWN:], list[Event])


def test_a_stopped_worker_is_found_out_and_its_work_done_by_others(
    start_system: Start, load_on: Callable[[Any], Any]
) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start()
    load.until_answered(20)
    os.kill(system.pids()["long-0"], signal.SIGSTOP)
    status = system.until("it was replaced", lambda status: status.instances[1].restarts == 1)
    assert "no sign of life" in status.instances[1].last_error
    load.until_answered(20)
    all_right(load.stop())


def test_nothing_survives_a_killed_supervisor_by_more_than_two_seconds(
    start_system: Start, load_on: Callable[[Any], Any]
) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start()
    load.until_answered(10)
    pidfds = {name: os.pidfd_open(pid) for name, pid in system.pids().items()}
    assert set(pidfds) == {"router", "gateway-0", "short-0", "long-0"}
    system.process.kill()
    deadline = time.monotonic() + 2.0
    for name, pidfd in pidfds.items():
        gone, _, _ = select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))
        os.close(pidfd)
        assert gone, f"{name} survived its supervisor by 2 s"


def test_a_start_after_a_killed_supervisor_finds_its_stale_files_no_hindrance(start_system: Start) -> None:
    first = start_system("--instances", "1")
    first.process.kill()
    first.process.wait(10)
    assert (first.runtime / "control.sock").exists()
    second = start_system("--instances", "1")
    assert len(second.embed("again")) == 384
    assert second.stop() == 0


def test_sigterm_under_load_answers_all_that_was_accepted_and_exits_0(
    start_system: Start, load_on: Callable[[Any], Any]
) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start(16)
    load.until_answered(300)
    asked_at = time.monotonic()
    system.process.send_signal(signal.SIGTERM)
    assert system.process.wait(30) == 0, system.said()
    outcomes = load.stop()
    # What was sent in the last moment may have come after the drain began: then it was not accepted, and was told so.
    accepted = [outcome for outcome in outcomes if outcome.sent_at < asked_at - 0.1]
    all_right(accepted)
    assert len(accepted) >= 24
    assert {outcome.code for outcome in outcomes if outcome.sent_at < asked_at} <= {200, 503}
    after = [outcome.code for outcome in outcomes if outcome.sent_at >= asked_at]
    assert set(after) <= {200, 503, "ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected"}


def test_a_second_signal_stops_at_once(start_system: Start, load_on: Callable[[Any], Any]) -> None:
    system = start_system("--instances", "1")
    os.kill(system.pids()["all-0"], signal.SIGSTOP)  # a drain cannot end: what it holds is never answered
    load = load_on_stopped(system)
    system.process.send_signal(signal.SIGINT)
    system.until("draining", lambda status: status.state == "draining")
    system.process.send_signal(signal.SIGINT)
    assert system.process.wait(10) == 1
    load.join(10)


def load_on_stopped(system: Any) -> Any:
    """One request that will not be answered, in flight when this returns."""
    import contextlib
    import threading

    def ask() -> None:
        with contextlib.suppress(OSError, ValueError):
            system.post("/embed", {"inputs": "never answered"})

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    system.until("it is in flight", lambda status: status.router.in_flight > 0)
    return thread
