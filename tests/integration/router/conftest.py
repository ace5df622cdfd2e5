"""How do the tests speak with a real router process? As its supervisor, its workers and its clients, over real sockets."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from orchestrator.plan.model import Bucket, Housekeeping, InstanceName, Plan, PlannedInstance
from orchestrator.router.spec import RouterSpec
from orchestrator.status import RouterReport
from workers import lane, wire
from workers import spec as messages
from workers.channel import Lines, encode

DEADLINE_MS = 20_000
"""No step of a test takes longer; it is here so that a failure ends."""


def plan_of(*instances: tuple[str, int, int], policy: str = "by-seqlen", **options: Any) -> Plan:
    """A plan of instances (name, shortest, longest)."""
    return Plan(
        policy=policy,  # type: ignore[arg-type]
        instances=[
            PlannedInstance(InstanceName(name), [at], 0, [0], 1, Bucket(low, high), high, [])
            for at, (name, low, high) in enumerate(instances)
        ],
        housekeeping=Housekeeping([0], True, "a test"),
        unused_cpus=[],
        warnings=[],
        **options,
    )


class Worker:
    """A worker that computes when the test says so: each row is [sum of the ids, length]."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, name: str, incarnation: int, holds: int):
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.ROUTING_ID, f"{name}#{incarnation}".encode())
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, DEADLINE_MS)
        self.socket.setsockopt(zmq.SNDTIMEO, DEADLINE_MS)
        self.socket.connect(endpoint)
        self.hello_frame = wire.encode_json(wire.HELLO, wire.Hello(name, incarnation, holds, os.getpid()))

    def hello(self) -> None:
        self.socket.send(self.hello_frame)

    def take(self) -> wire.Batch:
        return wire.decode_batch(self.socket.recv())

    def answer(self, batch: wire.Batch) -> None:
        at, rows = 0, []
        ids = batch.ids.cast("i")
        for length in batch.lengths:
            rows.append(struct.pack("<2f", sum(ids[at : at + length]), length))
            at += length
        meta = wire.encode_batch_result(batch.batch_id, [8] * len(rows), width=2, infer_us=100, per_token=False)
        self.socket.send_multipart((meta, b"".join(rows)))


class Client:
    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, DEADLINE_MS)
        self.socket.setsockopt(zmq.SNDTIMEO, DEADLINE_MS)
        self.socket.connect(endpoint)

    def submit(self, request_id: int, *sequences: list[int], **options: Any) -> None:
        ids = b"".join(struct.pack(f"<{len(sequence)}i", *sequence) for sequence in sequences)
        self.socket.send(wire.encode_submit(request_id, [len(sequence) for sequence in sequences], ids, **options))

    def result(self) -> wire.Result:
        frames = self.socket.recv_multipart()
        assert wire.kind_of(frames[0]) == wire.RESULT, wire.decode_refused(frames[0])
        return wire.decode_result(frames[0], frames[1])

    def refused(self) -> wire.Refused:
        (frame,) = self.socket.recv_multipart()
        assert wire.kind_of(frame) == wire.REFUSED
        return wire.decode_refused(frame)

    def ping(self, token: int = 7) -> int:
        """The boot number; at the same time proof that all that was sent before has been handled."""
        self.socket.send(wire.encode_ping(token))
        echoed, boot = wire.decode_pong(self.socket.recv())
        assert echoed == token
        return boot


class Side:
    """The other side of one of the router's lanes: a gateway or a worker of its machine."""

    def __init__(self, end: socket.socket, who: bytes | None) -> None:
        self.end = end
        self._lane = lane.Lane(end)
        self._heard: list[lane.Message] = []
        if who is not None:
            self.say(who)

    def say(self, frame: bytes, rows: bytes | None = None) -> None:
        self._lane.put(frame, rows)
        while not self._lane.flush():
            assert select.select([], [self.end], [], DEADLINE_MS / 1e3)[1], "the router does not read"

    def submit(self, request_id: int, *sequences: list[int], **options: Any) -> None:
        ids = b"".join(struct.pack(f"<{len(sequence)}i", *sequence) for sequence in sequences)
        self.say(wire.encode_submit(request_id, [len(sequence) for sequence in sequences], ids, **options))

    def hear(self) -> lane.Message:
        """The next message; LaneClosed once the router has let go."""
        while not self._heard:
            assert select.select([self.end], [], [], DEADLINE_MS / 1e3)[0], "the router says nothing"
            self._heard += self._lane.receive()
        return self._heard.pop(0)

    def result(self) -> wire.Result:
        frame, rows = self.hear()
        assert rows is not None, wire.decode_refused(frame)
        return wire.decode_result(frame, rows)

    def take(self) -> wire.Batch:
        return wire.decode_batch(self.hear()[0])

    def answer(self, batch: wire.Batch, *, width: int = 2) -> None:
        """[sum of the ids, length, 0, …] per sequence."""
        at, rows = 0, []
        ids = batch.ids.cast("i")
        for length in batch.lengths:
            rows.append(struct.pack("<2f", sum(ids[at : at + length]), length) + bytes(4 * (width - 2)))
            at += length
        self.say(
            wire.encode_batch_result(batch.batch_id, [4 * width] * len(rows), width=width, infer_us=1, per_token=False),
            b"".join(rows),
        )

    def close(self) -> None:
        self.end.close()


class Router:
    """A router process and the supervisor's end of its channel."""

    def __init__(self, plan: Plan, folder: Path, stack: ExitStack, *, report_seconds: float = 0.05) -> None:
        self.front = f"ipc://{folder}/front.sock"
        self.back = f"ipc://{folder}/back.sock"
        self.local = f"unix://{folder}/local.sock"
        self._stack = stack
        self._context: zmq.Context[zmq.Socket[bytes]] = stack.enter_context(zmq.Context())
        self._lines = Lines()
        self._early: list[Any] = []
        spec = RouterSpec(self.front, self.back, plan, {"id": "a model"}, [], report_seconds, self.local)
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE_MS / 1e3)
        self.channel = ours
        self._log = folder / f"router-{id(self)}.log"
        with theirs, self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.router", "--channel", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=log,
            )
        stack.callback(self._end)
        self.send(messages.Start(os.getpid(), msgspec.Raw(msgspec.json.encode(spec))))

    def _end(self) -> None:
        self.channel.close()
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(DEADLINE_MS / 1e3)

    def send(self, message: messages.ToChild) -> None:
        self.channel.sendall(encode(message))

    def receive(self) -> Any:
        while not self._early:
            data = self.channel.recv(1 << 16)
            if not data:
                raise EOFError(f"the router has closed its channel:\n{self._log.read_text()[-3000:]}")
            self._early += [msgspec.json.decode(line, type=messages.FromChild) for line in self._lines.feed(data)]
        return self._early.pop(0)

    def wait_ready(self) -> messages.Ready:
        message = self.receive()
        assert isinstance(message, messages.Ready), message
        return message

    def wait_for(self, kind: type[Any]) -> Any:
        """The next message of this kind; passes over reports."""
        while not isinstance(message := self.receive(), kind):
            assert isinstance(message, messages.Stats), message
        return message

    def report_when(self, condition: Callable[[RouterReport], bool]) -> RouterReport:
        """The first report for which `condition` holds."""
        while True:
            report = msgspec.json.decode(self.wait_for(messages.Stats).body, type=RouterReport)
            if condition(report):
                return report

    def wait_all_connected(self) -> None:
        """Until every worker of the plan is known: whoever is there first would take the others' work."""
        self.report_when(lambda report: all(one.connected for one in report.instances))

    def worker(self, name: str, incarnation: int = 1, *, holds: int = 512, hello: bool = True) -> Worker:
        """A worker that has said HELLO, if not told otherwise."""
        worker = Worker(self._context, self.back, name, incarnation, holds)
        self._stack.callback(worker.socket.close)
        if hello:
            worker.hello()
        return worker

    def lane(self, who: bytes | None) -> Side:
        """A connection to the local socket, introduced or not."""
        end = socket.socket(socket.AF_UNIX)
        self._stack.callback(end.close)
        end.connect(lane.path_of(self.local))
        return Side(end, who)

    def lane_worker(self, name: str, incarnation: int = 1, *, holds: int = 512) -> Side:
        """A worker of this machine that has said HELLO."""
        side = self.lane(lane.as_worker(f"{name}#{incarnation}".encode()))
        side.say(wire.encode_json(wire.HELLO, wire.Hello(name, incarnation, holds, os.getpid())))
        return side

    def client(self) -> Client:
        client = Client(self._context, self.front)
        self._stack.callback(client.socket.close)
        return client


@pytest.fixture
def start_router(tmp_path: Path) -> Iterator[Callable[..., Router]]:
    """Starts a router process that is ready; everything ends with the test."""
    with ExitStack() as stack:

        def start(plan: Plan | None = None, *, wait: bool = True, **options: Any) -> Router:
            router = Router(plan or plan_of(("short-0", 1, 32), ("long-0", 33, 512)), tmp_path, stack, **options)
            if wait:
                router.wait_ready()
            return router

        yield start


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    return plan_of


@pytest.fixture
def rows_of() -> Callable[[wire.Result], list[tuple[float, ...]]]:
    """The rows of a result, as the workers of these tests make them: (sum of the ids, length)."""
    return lambda result: list(struct.iter_unpack("<2f", result.rows))
