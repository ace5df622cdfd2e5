"""What do tests of the whole system stand on? The real program as a user starts it, and load whose every answer is checked."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.status import Status
from orchestrator.supervisor.control import ControlError, ask
from workers.engines import private as private  # some tests import an engine by themselves

DEADLINE = 60.0
TEXTS = [
    "I like you. I love you",
    "The ferry leaves at nine.",
    "How many cores does this machine have, and which of them share a cache?",
    "rain",
    " ".join(["A longer paragraph about the weather in the mountains and the people who live there."] * 4),
    " ".join(["Every request that was accepted is answered, whatever dies meanwhile."] * 9),
]


def pytest_configure() -> None:
    # A shell that starts the tests in the background has SIGINT ignored, and every child would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class System:
    """One `orchestrator up` and what can be asked of it. Every wait has a deadline and says what it waited for."""

    def __init__(self, runtime: Path, cache: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self.runtime = runtime
        self.log = runtime.parent / f"{runtime.name}.log"
        self.errors = self.log.open("wb")
        # Tests run beside one another, and beside whatever serves on this machine: each has the cores for itself.
        self.logs = runtime / "log"
        world = {
            **os.environ,
            "ORCHESTRATOR_CLAIM_SCOPE": str(runtime)[-60:],
            **environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", "up", "--port", "0", "--runtime-dir", str(runtime),
             "--cache-dir", str(cache), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors, env=world,
        )  # fmt: skip
        self.printed: list[str] = []
        self.port = 0

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        for raw in self.process.stdout:
            line = raw.decode()
            self.printed.append(line)
            if line.startswith("ready: "):
                self.port = int(line.rsplit(":", 1)[1])
                return
        self.process.wait(DEADLINE)
        raise AssertionError(
            f"orchestrator up ended with {self.process.returncode} before it was ready:\n{self.said()}"
        )

    def said(self) -> str:
        return self.log.read_text()

    def status(self) -> Status:
        return msgspec.json.decode(ask(self.runtime / "control.sock", "status"), type=Status)

    def until(self, what: str, reached: Callable[[Status], bool], seconds: float = DEADLINE) -> Status:
        """The first status for which `reached` holds."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(ControlError):
                status = self.status()
                if reached(status):
                    return status
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.said()[-4000:]}"
            threading.Event().wait(0.02)

    def pids(self) -> dict[str, int]:
        status = self.status()
        parts = [
            ("router", status.router.pid),
            *((each.name, each.pid) for each in (*status.gateways, *status.instances)),
        ]
        return {name: pid for name, pid in parts if pid is not None}

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("POST", path, data, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            raw = answer.read()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(raw)
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def embed(self, text: str) -> list[float]:
        status, _, body = self.post("/embed", {"inputs": text})
        assert status == 200, body
        (row,) = body
        return list(row)

    def stop(self) -> int:
        """SIGTERM, then its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE)
        finally:
            self.close()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.close()


@dataclass
class Outcome:
    """One request: when it was sent, and its status code, or the name of what broke the connection."""

    sent_at: float
    code: int | str
    wrong: str = ""


@dataclass
class Load:
    """Clients that ask without pause and compare each answer with the known one."""

    system: System
    known: dict[str, list[float]]
    least_cosine: float = 0.9999
    """To the known answer; another precision than the one that made it may be further away."""
    outcomes: list[Outcome] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: int = 8) -> None:
        for number in range(clients):
            thread = threading.Thread(target=self._client, args=(number,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def until_answered(self, count: int) -> None:
        """Waits until `count` more requests have been answered with 200."""
        wanted = self.answered() + count
        deadline = time.monotonic() + DEADLINE
        while self.answered() < wanted:
            assert time.monotonic() < deadline, f"{self.answered()} of {wanted} answers\n{self.system.said()[-4000:]}"
            threading.Event().wait(0.01)

    def answered(self) -> int:
        return sum(outcome.code == 200 for outcome in list(self.outcomes))

    def stop(self) -> list[Outcome]:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a client still waits for its answer"
        return self.outcomes

    def _client(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.system.port, timeout=DEADLINE)
        texts = list(self.known)
        turn = number
        while not self._stop.is_set():
            text = texts[turn % len(texts)]
            turn += 1
            outcome = Outcome(time.monotonic(), 0)
            try:
                connection.request(
                    "POST", "/embed", json.dumps({"inputs": text}).encode(), {"content-type": "application/json"}
                )
                answer = connection.getresponse()
                body = json.loads(answer.read())
                outcome.code = answer.status
                if answer.status == 200 and cosine(body[0], self.known[text]) < self.least_cosine:
                    outcome.wrong = text
            except (OSError, http.client.HTTPException) as error:
                outcome.code = type(error).__name__
            self.outcomes.append(outcome)
            if outcome.code != 200:
                break
        connection.close()


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all systems of a session: the first start builds the model, the others find it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def start_system(tmp_path: Path, model_cache: Path) -> Iterator[Callable[..., System]]:
    """`start_system("--instances", "2")` is ready when it returns (`ready=False`: only started)."""
    started: list[System] = []

    def start(
        *arguments: str, runtime: str = "run", ready: bool = True, environment: dict[str, str] | None = None
    ) -> System:
        system = System(tmp_path / runtime, model_cache, arguments, environment or {})
        started.append(system)
        if ready:
            system.wait_ready()
        return system

    yield start
    for system in started:
        if system.process.poll() is None:
            system.stop()
        system.close()


@pytest.fixture(scope="session")
def shared_system(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[System]:
    """One running system for tests that do it no harm."""
    system = System(
        tmp_path_factory.mktemp("shared") / "run", model_cache, ("--instances", "2", "--policy", "by-seqlen"), {}
    )
    system.wait_ready()
    yield system
    assert system.stop() == 0, system.said()


@pytest.fixture
def load_on() -> Iterator[Callable[[System], Load]]:
    loads: list[Load] = []

    def make(system: System) -> Load:
        load = Load(system, {text: system.embed(text) for text in TEXTS})
        loads.append(load)
        return load

    yield make
    for load in loads:
        load.stop()
