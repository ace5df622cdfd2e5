"""Does the listening socket outlive gateways, and that of a service manager the orchestrator? No connection is refused."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
ACTIVATE = Path(__file__).parents[2] / "support" / "activate.py"


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """What a service manager holds: a socket that listens, whatever becomes of the program."""
    one = socket.create_server(("127.0.0.1", 0), backlog=4096)
    yield one
    one.close()


class Clients:
    """Each asks without pause, on a connection of its own per request or on one that is kept."""

    def __init__(self, port: int, *, kept: bool) -> None:
        self._port = port
        self._kept = kept
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(4)]
        self.seen: Counter[int | str] = Counter()

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client still waits for its answer"

    def until_more(self, count: int) -> None:
        wanted, deadline = self.seen[200] + count, time.monotonic() + 60
        while self.seen[200] < wanted:
            assert time.monotonic() < deadline, self.seen
            threading.Event().wait(0.01)

    def _client(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        body = json.dumps({"inputs": "I like you. I love you"}).encode()
        while not self._stop.is_set():
            try:
                connection.request("POST", "/embed", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                row = json.loads(answer.read())[0]
                self.seen[answer.status if len(row) == 384 else "wrong"] += 1
            except (OSError, http.client.HTTPException, LookupError) as error:
                self.seen[type(error).__name__] += 1
                connection.close()
            if not self._kept:
                connection.close()
        connection.close()


def asked_on(address: tuple[str, int], count: int) -> list[socket.socket]:
    """Connections on which a request has been sent, accepted by nobody yet."""
    request = b'POST /embed HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 18\r\n\r\n{"inputs": "rain"}'
    connections = []
    for _ in range(count):
        connection = socket.create_connection(address, timeout=60)
        connection.sendall(request)
        connections.append(connection)
    return connections


def answered(connections: list[socket.socket]) -> int:
    """How many of them get a good answer; closes them."""
    good = 0
    for connection in connections:
        with connection:
            good += connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
    return good


@pytest.fixture
def start_with(start_system: Start, manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Starts the program as a service manager does: the socket at descriptor 3, and LISTEN_PID is the program's own."""
    popen = subprocess.Popen

    def passing(command: list[str], **more: Any) -> Any:
        fd = os.dup(manager.fileno())
        try:
            return popen([sys.executable, str(ACTIVATE), str(fd), *command], pass_fds=(fd,), **more)
        finally:
            os.close(fd)

    def start(*arguments: str, **more: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr("subprocess.Popen", passing)
            return start_system(*arguments, **more)

    return start


@pytest.mark.parametrize("kept", [False, True], ids=["a connection per request", "connections that are kept"])
def test_a_restart_under_load_refuses_no_connection_and_fails_no_request(
    start_with: Callable[..., Any], manager: socket.socket, kept: bool
) -> None:
    port = manager.getsockname()[1]
    first = start_with("--instances", "1")
    assert first.port == port  # --port 0 contradicts no socket
    with Clients(port, kept=kept) as clients:
        clients.until_more(20)
        assert first.stop() == 0, first.said()
        second = start_with("--instances", "1")
        clients.until_more(20)
    assert set(clients.seen) == {200}, clients.seen
    assert second.stop() == 0, second.said()


def test_connections_in_the_queue_of_a_dying_gateway_are_answered_by_the_next(start_system: Start) -> None:
    system = start_system("--instances", "1")
    gateway = system.pids()["gateway-0"]
    os.kill(gateway, signal.SIGSTOP)  # what comes now waits in the queue of the listening socket
    waiting = asked_on(("127.0.0.1", system.port), 32)
    os.kill(gateway, signal.SIGKILL)
    assert answered(waiting) == 32


def test_kill_9_of_each_gateway_under_load_refuses_no_connection(start_system: Start, tmp_path: Path) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text("version: 1\ngateways: 2\n")
    system = start_system("--instances", "1", "--layout", str(layout))
    with Clients(system.port, kept=False) as clients:
        for name in ("gateway-0", "gateway-1"):
            clients.until_more(20)
            os.kill(system.pids()[name], signal.SIGKILL)
            clients.until_more(20)
            system.until(f"{name} is back", lambda status: all(each.state == "ready" for each in status.gateways))
    # What a killed process had accepted breaks: at most one request of each client, twice. Nothing else does.
    broken = {what: count for what, count in clients.seen.items() if what != 200}
    assert set(broken) <= {"ConnectionResetError", "RemoteDisconnected", "IncompleteRead"}, clients.seen
    assert sum(broken.values()) <= 8, clients.seen
    assert [each.restarts for each in system.status().gateways] == [1, 1]


def test_connections_that_come_while_nobody_runs_are_answered_by_the_next(
    start_with: Callable[..., Any], manager: socket.socket
) -> None:
    first = start_with("--instances", "1")
    gateway = os.pidfd_open(first.pids()["gateway-0"])
    first.process.kill()
    assert select.select([gateway], [], [], 10)[0], "the gateway survived its supervisor"
    os.close(gateway)
    waiting = asked_on(manager.getsockname(), 32)
    start_with("--instances", "1", runtime="next")
    assert answered(waiting) == 32


def test_another_port_than_that_of_the_socket_is_refused_before_anything_starts(
    start_with: Callable[..., Any], manager: socket.socket
) -> None:
    system = start_with("--port", "9", ready=False)
    assert system.process.wait(60) == 78
    assert "the command line says port 9" in system.said()
    assert f"listens on 127.0.0.1:{manager.getsockname()[1]}" in system.said()
