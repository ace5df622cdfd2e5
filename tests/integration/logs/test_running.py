"""What does an operator find in the logs of a running system, and of one that runs no more?"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
SECONDS = 30.0


def program(system: Any, *words: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli.main", "logs", *words, "--runtime-dir", str(system.runtime)]


def logs(system: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(program(system, *words), capture_output=True, text=True, timeout=60, check=False)


def records(system: Any, *words: str) -> list[dict[str, Any]]:
    done = logs(system, "--json", "-n", "all", *words)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def until(what: str, found: Callable[[], Any]) -> Any:
    """What `found` returns as soon as it is something."""
    deadline = time.monotonic() + SECONDS
    while not (result := found()):
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
        threading.Event().wait(0.02)
    return result


def ready_after(incarnation: int) -> Callable[[Any], bool]:
    return lambda status: status.instances[0].incarnation > incarnation and status.instances[0].state == "ready"


class Follower:
    """`orchestrator logs -f` of its own, and the lines that it has printed."""

    def __init__(self, system: Any, *words: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            program(system, "-f", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def saw(self, *parts: str) -> list[str]:
        return until(
            f"a line with {parts}", lambda: [line for line in self.lines if all(part in line for part in parts)]
        )

    def close(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def follow() -> Iterator[Callable[..., Follower]]:
    with contextlib.ExitStack() as held:
        yield lambda *words: held.enter_context(contextlib.closing(Follower(*words)))


def test_each_part_has_its_lines_and_all_come_by_time(shared_system: Any) -> None:
    assert (shared_system.runtime / "logs").readlink() == shared_system.logs
    told = records(shared_system)
    assert {each["instance"] for each in told} == {"supervisor", "router", "gateway-0", "short-0", "long-0"}
    times = [each["time"] for each in told]
    assert times == sorted(times)
    (ready,) = [each for each in told if each["instance"] == "short-0" and each.get("after") == "ready"]
    assert (ready["part"], ready["incarnation"], ready["before"]) == ("supervisor", 1, "starting")
    assert ready["pid"] == shared_system.pids()["short-0"]
    assert "cpus=0" in ready["message"]
    text = logs(shared_system, "short-0", "-n", "1")
    assert text.stdout.count("\n") == 1
    assert "short-0#1" in text.stdout


def test_an_unknown_instance_is_answered_with_the_known_ones(shared_system: Any) -> None:
    done = logs(shared_system, "shrot-0")
    assert done.returncode == 1
    assert 'did you mean "short-0"?' in done.stderr
    assert "gateway-0, long-0, router, short-0, supervisor" in done.stderr


def test_where_nothing_ever_ran_the_command_says_what_to_name(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "logs", "--log-dir", str(tmp_path / "none")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert str(tmp_path / "none") in done.stderr
    assert "--log-dir" in done.stderr


def test_a_reader_that_has_seen_enough_ends_the_command(shared_system: Any) -> None:
    for words in (("-n", "all"), ("-f",)):
        process = subprocess.Popen(program(shared_system, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(SECONDS) == 0, "though nothing more may come that could be written"
        assert process.stderr.read() == b""
        process.stderr.close()


def test_ctrl_c_ends_following_without_a_traceback(shared_system: Any, follow: Callable[..., Follower]) -> None:
    follower = follow(shared_system, "-n", "1")
    until("its first line", lambda: follower.lines)
    follower.process.send_signal(signal.SIGINT)
    assert follower.process.wait(SECONDS) == 130
    assert follower.process.stderr is not None
    assert follower.process.stderr.read() == ""


def test_json_on_standard_error_and_requests_with_their_ids_and_after_its_end_too(
    start_system: Start, follow: Callable[..., Follower]
) -> None:
    system = start_system("--instances", "1", "--log-format", "json", "--access-log", "all", ready=False)

    def ready() -> str | None:
        for line in system.said().splitlines():
            if json.loads(line)["event"] == "ready":
                return str(json.loads(line)["message"]).removeprefix("ready: ")
        return None

    endpoint = until("it says ready in JSON", ready)
    system.port = int(endpoint.rsplit(":", 1)[1])
    follower = follow(system, "gateway-0", "-n", "all")
    assert system.post("/embed", {"inputs": "one"}, **{"x-request-id": "mine-1"})[0] == 200
    status, headers, _ = system.post("/embed", {"inputs": 7}, **{"x-request-id": "no good\tid"})
    assert status in (400, 422)
    assert headers["x-request-id"] != "no good\tid", "an id that could forge a line is not taken over"
    follower.saw("request=mine-1 POST /embed 200")
    follower.saw(f"request={headers['x-request-id']} POST /embed {status}")
    (line,) = records(system, "--request", "mine-1")
    assert (line["instance"], line["route"], line["status"], line["event"]) == ("gateway-0", "/embed", 200, "request")
    assert line["requests"][0].startswith(f"gateway-0.{system.pids()['gateway-0']}:")
    assert line["took_ms"] > 0
    worker = system.pids()["all-0"]
    system.process.send_signal(signal.SIGTERM)
    assert system.process.wait(SECONDS) == 0
    assert system.process.stdout.read() == b"", "who asked for JSON gets nothing else"
    assert all(json.loads(line) for line in system.said().splitlines())
    after = records(system, "all-0")
    assert (after[-1]["after"], after[-1]["pid"]) == ("stopped", worker)
    assert "request=mine-1" in logs(system, "--request", "mine-1").stdout
    unknown = logs(system, "--request", "nobody")
    assert unknown.returncode == 1
    assert "nobody" in unknown.stderr


def test_a_child_that_floods_is_cut_short_and_nobody_else_notices(start_system: Start) -> None:
    """The flood comes through the worker's own standard error, opened by its name in /proc."""
    system = start_system("--instances", "1")
    flooding = threading.Event()
    flooding.set()
    sent = 0

    def flood(path: str) -> None:
        nonlocal sent
        with open(path, "wb", buffering=0) as pipe:  # noqa: PTH123 - a pipe
            while flooding.is_set():
                sent += pipe.write(b"spam, spam, spam and spam\n" * 2000)

    worker = system.pids()["all-0"]
    thread = threading.Thread(target=flood, args=(f"/proc/{worker}/fd/2",))
    thread.start()
    try:
        until("a good deal was written", lambda: sent > 40 << 20)
        for number in range(20):
            system.embed(f"while it floods {number}")
            assert system.status().state == "ready"
    finally:
        flooding.clear()
        thread.join(SECONDS)
    dropped = until(
        "the drop is told",
        lambda: sum(each["dropped"] for each in records(system, "all-0") if each["event"] == "dropped") > 1_000_000,
    )
    assert dropped
    status = system.status()
    assert [each.restarts for each in (status.router, *status.gateways, *status.instances)] == [0, 0, 0], (
        "all beats came"
    )
    assert sum(path.stat().st_size for path in system.logs.glob("all-0.log*")) <= 4 * (8 << 20)
    os.kill(worker, signal.SIGKILL)
    system.until(
        "it is back", lambda status: status.instances[0].state == "ready" and status.instances[0].restarts == 1
    )
    assert system.stop() == 0


def crash(stopped: int) -> None:
    """A stopped process takes the signal when it goes on, before any instruction of its own."""
    os.kill(stopped, signal.SIGSEGV)
    os.kill(stopped, signal.SIGCONT)


def test_a_request_that_killed_two_workers_is_traced_from_its_id_to_the_router(
    start_system: Start, follow: Callable[..., Follower]
) -> None:
    """Workers and the router are stopped in turn, so that each worker dies with the request in its hands and not a moment sooner."""
    system = start_system("--instances", "1")
    follower = follow(system, "all-0", "-n", "all")
    router, first = system.pids()["router"], system.status().instances[0]
    answers: list[tuple[int, Any]] = []

    def ask() -> None:
        status, _, body = system.post("/embed", {"inputs": "deadly"}, **{"x-request-id": "deadly-1"})
        answers.append((status, body))

    os.kill(first.pid, signal.SIGSTOP)
    client = threading.Thread(target=ask)
    client.start()
    system.until("the first worker holds it", lambda status: status.router.in_flight > 0)
    os.kill(router, signal.SIGSTOP)
    crash(first.pid)
    second = system.until("the second one is ready", ready_after(first.incarnation)).instances[0]
    os.kill(second.pid, signal.SIGSTOP)
    os.kill(router, signal.SIGCONT)
    until("it was given to the second", lambda: f"all-0 connected incarnation={second.incarnation}" in system.said())
    crash(second.pid)
    client.join(SECONDS)
    ((status, body),) = answers
    assert (status, body["error_type"]) == (424, "worker_lost")
    system.until("the third one is ready", ready_after(second.incarnation))
    told = records(system, "--request", "deadly-1")
    assert [each["instance"] for each in told if each["event"] == "request"] == ["gateway-0"]
    assert sum("lost incarnation=" in each["message"] for each in told if each["instance"] == "router") == 2
    assert any("poison" in each["message"] for each in told)
    for incarnation in (1, 2, 3):
        follower.saw(f"all-0#{incarnation}", "starting->ready")
    follower.saw("all-0#1", "SIGSEGV")
