"""A worker process as the supervisor starts it, with this test as its supervisor and its router."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from workers import channel, wire
from workers.spec import FromChild, Start, ToChild, WorkerSpec

DEADLINE = 30.0


class StartedWorker:
    """One worker with this process as both of its peers. Every wait has a deadline."""

    def __init__(self, router: zmq.Socket[bytes], spec: WorkerSpec) -> None:
        self.router = router
        self.spec = spec
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(DEADLINE)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers", "--channel", str(theirs.fileno()), "--name", spec.name],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        theirs.close()
        self._lines = channel.Lines()
        self._messages: list[FromChild] = []
        self.tell(Start(os.getpid(), msgspec.Raw(msgspec.json.encode(spec))))

    def tell(self, message: ToChild) -> None:
        self.channel.sendall(channel.encode(message))

    def wait_for(self, kind: type[Any]) -> Any:
        """The next message of this kind; others before it are dropped."""
        while True:
            while self._messages:
                message = self._messages.pop(0)
                if isinstance(message, kind):
                    return message
            data = self.channel.recv(1 << 16)
            assert data, f"the worker closed its channel before it said {kind.__name__}"
            self._messages += [msgspec.json.decode(line, type=FromChild) for line in self._lines.feed(data)]

    def from_worker(self) -> list[bytes]:
        """The next message that reaches the router, without the identity; repeated HELLOs are passed over."""
        while True:
            assert self.router.poll(DEADLINE * 1000), "the worker said nothing to the router"
            identity, *frames = self.router.recv_multipart()
            assert identity == f"{self.spec.name}#{self.spec.incarnation}".encode()
            if wire.kind_of(frames[0]) != wire.HELLO:
                return frames

    def hello(self) -> wire.Hello:
        assert self.router.poll(DEADLINE * 1000), "the worker did not introduce itself"
        _, frame = self.router.recv_multipart()
        assert wire.kind_of(frame) == wire.HELLO
        return wire.decode_hello(frame)

    def give(self, frame: bytes) -> None:
        self.router.send_multipart([f"{self.spec.name}#{self.spec.incarnation}".encode(), frame])

    def compute(self, number: int, sequences: list[list[int]]) -> np.ndarray[Any, Any]:
        ids = np.array([token for sequence in sequences for token in sequence], np.int32)
        self.give(wire.encode_batch(number, [len(sequence) for sequence in sequences], [ids.tobytes()]))
        meta, rows = self.from_worker()
        result = wire.decode_batch_result(meta, rows)
        assert result.batch_id == number
        return np.frombuffer(result.rows, np.float32).reshape(len(sequences), -1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.channel.close()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., StartedWorker]]:
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    endpoint = f"ipc://{tmp_path}/back.sock"
    router.bind(endpoint)
    started: list[StartedWorker] = []

    def start(**more: Any) -> StartedWorker:
        cpus = sorted(os.sched_getaffinity(0))[:1]
        fields: dict[str, Any] = {
            "name": "short-0", "incarnation": 1, "cpus": cpus, "membind": [0], "nodes_on_machine": 1, "threads": 1,
            "endpoint": endpoint, "max_seqlen": 64, "warmup": [(1, 8)], "artefact": None, "beat_seconds": 0.05,
        }  # fmt: skip
        started.append(StartedWorker(router, WorkerSpec(**{**fields, **more})))
        return started[-1]

    yield start
    for worker in started:
        worker.close()
    router.close()
    context.term()
