"""Is anything lost while parts are restarted, drained and resumed under load, and what is said when it cannot be done?"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.supervisor.control import LONGEST_REQUEST

Start = Callable[..., Any]


def command(system: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", *words, "--runtime-dir", str(system.runtime)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def done(system: Any, *words: str) -> str:
    ended = command(system, *words)
    assert ended.returncode == 0, ended.stderr + system.said()[-4000:]
    return ended.stdout


def refused(system: Any, code: int, *words: str) -> str:
    ended = command(system, *words)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


def newer(system: Any) -> Any:
    """A status with a report of the router that is younger than this call; it reports once a second."""
    settled = system.status().router.settled
    return system.until("a new report of the router", lambda status: status.router.settled > settled)


def all_right(outcomes: list[Any]) -> None:
    assert [outcome for outcome in outcomes if outcome.code != 200] == []
    assert [outcome for outcome in outcomes if outcome.wrong] == []


def test_restarts_drains_and_a_death_in_the_middle_of_a_drain_lose_no_request(
    start_system: Start, load_on: Callable[[Any], Any]
) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start()
    load.until_answered(20)
    before = system.pids()
    rolled = json.loads(done(system, "restart", "--all", "--json"))["parts"]
    assert [(part["name"], part["state"], part["incarnation"]) for part in rolled] == [
        ("short-0", "ready", 2),
        ("long-0", "ready", 2),
    ]
    assert {part["pid"] for part in rolled}.isdisjoint(before.values())
    load.until_answered(20)

    assert "long-0 drained" in done(system, "drain", "long-0")
    served = newer(system).instances[1].served
    load.until_answered(40)
    status = newer(system)
    assert (status.state, status.instances[1].state, status.instances[1].in_flight) == ("degraded", "drained", 0)
    assert status.instances[1].served == served
    os.kill(status.instances[1].pid, signal.SIGKILL)
    system.until("it is back, and without work as before", lambda status: status.instances[1].incarnation == 3)
    system.until("drained again", lambda status: status.instances[1].state == "drained")
    assert "long-0 ready" in done(system, "resume", "long-0")

    # It cannot hand back what it holds: it is stopped, then killed in the middle of its drain.
    pid = system.pids()["short-0"]
    os.kill(pid, signal.SIGSTOP)
    restarting = threading.Thread(target=command, args=(system, "restart", "short-0"))
    restarting.start()
    system.until("it drains", lambda status: status.instances[0].state == "draining")
    assert "restart short-0" in refused(system, 1, "drain", "short-0")
    os.kill(pid, signal.SIGKILL)
    restarting.join(60)
    system.until("all ready", lambda status: status.state == "ready")

    # Who asks and hangs up at once gets what he asked for all the same.
    incarnation = system.status().instances[0].incarnation
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(system.runtime / "control.sock"))
        connection.sendall(b'{"command": "restart", "arguments": {"name": "short-0"}}\n')
    system.until("it was restarted", lambda status: status.instances[0].incarnation == incarnation + 1)
    system.until("all ready again", lambda status: status.state == "ready")

    assert "router ready" in done(system, "restart", "router")
    load.until_answered(40)
    all_right(load.stop())
    status = system.until("all settled", lambda status: status.router.settled == status.router.submitted)
    assert status.state == "ready"


def test_what_cannot_be_done_is_said_with_what_can_be(shared_system: Any) -> None:
    said = refused(shared_system, 2, "restart", "shrt-0")
    assert 'did you mean "short-0"?' in said
    assert "router, short-0, long-0, gateway-0" in said
    assert "short-0, long-0 only" in refused(shared_system, 2, "drain", "router")
    refused(shared_system, 2, "restart")
    refused(shared_system, 2, "restart", "short-0", "--all")
    refused(shared_system, 2, "drain", "short-0", "--timeout", "0")
    nowhere = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "restart", "--all", "--runtime-dir", "/nonexistent"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert nowhere.returncode == 1
    assert "no orchestrator runs here" in nowhere.stderr


def test_nonsense_on_the_control_socket_is_answered_and_harms_nobody(shared_system: Any) -> None:
    def say(line: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(shared_system.runtime / "control.sock"))
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as answer:
                return dict(json.loads(answer.readline()))

    for line, why in (
        (b"", "not a request"),
        (b"\x00\xff\n", "not a request"),
        (b"[]\n", "not a request"),
        (b'{"command": "explode"}\n', "unknown request 'explode'"),
        (b'{"command": "restart"}\n', "name one part, or all"),
        (b'{"command": "restart", "arguments": {"name": 7}}\n', "restart: Expected"),
        (b'{"command": "drain", "arguments": {"name": "short-0", "timeout": -1}}\n', "timeout -1"),
        (b'{"command": "drain", "arguments": {"all": true}}\n', "there is no ''"),
        (b"x" * (2 * LONGEST_REQUEST) + b"\n", "longer than"),
    ):
        answer = say(line)
        assert answer["ok"] is False, line
        assert why in answer["error"], (line[:60], answer)
    assert shared_system.status().state == "ready"


def test_a_rolling_restart_stops_at_the_first_that_does_not_come_back_and_the_others_serve(
    start_system: Start, load_on: Callable[[Any], Any], model_cache: Path, tmp_path: Path
) -> None:
    cache, away = tmp_path / "cache", tmp_path / "away"
    shutil.copytree(model_cache, cache)
    system = start_system("--instances", "2", "--cache-dir", str(cache))
    load = load_on(system)
    load.start(4)
    load.until_answered(20)
    cache.rename(away)
    try:
        said = refused(system, 1, "restart", "--all")
        assert "short-0 did not become ready" in said
        assert "0 of 2 restarted, untouched are long-0" in said
        load.until_answered(20)
        status = system.status()
        assert status.state == "degraded"
        assert status.instances[1].incarnation == 1
        assert status.instances[0].last_error
        assert any("short-0" in warning for warning in status.warnings)
    finally:
        away.rename(cache)
    done(system, "restart", "short-0")
    all_right(load.stop())
    assert system.status().state == "ready"


def test_an_old_worker_is_replaced_one_at_a_time_and_children_have_the_limits_of_the_layout(
    start_system: Start, load_on: Callable[[Any], Any], tmp_path: Path
) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text(
        "version: 1\nsupervision: {max_age_s: 3, parallel_starts: 1, limits: {nofile: 333, core_mb: 0}}\n"
    )
    system = start_system("--instances", "2", "--layout", str(layout))
    load = load_on(system)
    load.start(4)
    pid = system.pids()["long-0"]
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == 333
    assert resource.prlimit(pid, resource.RLIMIT_CORE)[0] == 0
    system.until("both were replaced", lambda status: all(each.restarts >= 1 for each in status.instances))
    load.until_answered(20)
    all_right(load.stop())
    changes = re.findall(r"instance=(\S+) (?:starting->(ready)|ready->(draining))", system.said())
    away: set[str] = set()
    for name, back, _ in changes[2:]:  # after the start
        away = away - {name} if back else away | {name}
        assert len(away) <= 1, changes
    assert "supervision.max_age_s" in system.said()
