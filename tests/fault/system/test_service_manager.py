"""Does a service manager hear what it waits for, and does the watchdog starve when the router no longer answers?"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Manager:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(30)

    def until(self, wanted: str) -> list[str]:
        """Until a message holds this line; the lines of those before it. TimeoutError if none comes."""
        before: list[str] = []
        while wanted not in (lines := self.socket.recv(4096).decode().splitlines()):
            before += lines
        return before

    def drained(self) -> int:
        """Reads all that has come; how many of the messages fed the watchdog."""
        fed = 0
        self.socket.setblocking(False)
        try:
            while True:
                fed += "WATCHDOG=1" in self.socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return fed
        finally:
            self.socket.settimeout(30)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.socket.close()


def test_it_says_ready_feeds_the_watchdog_and_says_stopping(start_system: Callable[..., Any], manager: Manager) -> None:
    system = start_system(
        "--instances", "1", environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "1500000"}
    )
    starting = manager.until("READY=1")
    assert any(line.startswith("STATUS=starting: model ") for line in starting), starting
    assert "EXTEND_TIMEOUT_USEC=600000000" in starting  # a step of the start: the next may take as long again
    manager.until("WATCHDOG=1")
    manager.until("WATCHDOG=1")
    environ = Path(f"/proc/{system.pids()['all-0']}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in environ
    system.process.send_signal(signal.SIGTERM)
    manager.until("STOPPING=1")
    assert system.process.wait(30) == 0


def test_a_reload_is_told_with_the_time_of_its_begin_and_its_end_as_notify_reload_wants_it(
    start_system: Callable[..., Any], manager: Manager
) -> None:
    system = start_system("--instances", "1", environment={"NOTIFY_SOCKET": str(manager.path)})
    manager.until("READY=1")
    asked_at = time.monotonic_ns() // 1000
    system.process.send_signal(signal.SIGHUP)
    while "RELOADING=1" not in (began := manager.socket.recv(4096).decode().splitlines()):
        pass
    (stamp,) = [line for line in began if line.startswith("MONOTONIC_USEC=")]
    assert asked_at <= int(stamp.partition("=")[2]) <= time.monotonic_ns() // 1000
    manager.until("READY=1")
    assert len(system.embed("served")) == 384
    assert system.status().state == "ready"


def test_the_watchdog_is_not_fed_while_the_router_is_stopped(
    start_system: Callable[..., Any], manager: Manager
) -> None:
    system = start_system(
        "--instances", "1", environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "300000"}
    )
    manager.until("WATCHDOG=1")
    router = system.pids()["router"]
    os.kill(router, signal.SIGSTOP)
    # For a beat's time nobody can know; then the supervisor replaces it, and feeds again once the new one answers.
    system.until("it is being replaced", lambda status: status.router.state != "ready")
    manager.drained()
    fed_meanwhile = []
    system.until(
        "it was replaced", lambda status: status.router.state == "ready" or fed_meanwhile.append(manager.drained())
    )
    assert sum(fed_meanwhile) <= 1
    assert system.status().router.pid != router
    manager.until("WATCHDOG=1")
    assert len(system.embed("served again")) == 384


def test_a_manager_that_does_not_read_holds_nobody_up(start_system: Callable[..., Any], manager: Manager) -> None:
    system = start_system(
        "--instances", "1", environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "300000"}
    )
    served = system.status().uptime_seconds
    system.until("its queue has long been full", lambda status: status.uptime_seconds > served + 3)
    assert len(system.embed("served all the same")) == 384
    manager.until("READY=1")
