"""What does a request cost in the router process, sockets and their thread included?

Fake workers answer at once from this process, so the figure is the router's own: CPU seconds that the kernel charged to its
process (/proc/PID/stat) over the requests it settled, at 32 single-sequence requests in flight. Run with
`pytest tests/bench/test_router_process.py -s`; the target is 45 µs.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import zmq

from orchestrator.plan.model import Bucket, Housekeeping, InstanceName, Plan, PlannedInstance
from orchestrator.router.spec import RouterSpec
from workers import spec as messages
from workers import wire
from workers.channel import Lines, encode

IN_FLIGHT = 32
REQUESTS = 30_000
WARM_UP = 3_000
ROW = struct.pack("<384f", *([0.5] * 384))
LIMIT_SECONDS = 60.0


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process (proc(5), fields 14 and 15 of /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def router(tmp_path: Path) -> Iterator[tuple[int, RouterSpec]]:
    plan = Plan(
        "by-seqlen",
        [
            PlannedInstance(InstanceName("short-0"), [0], 0, [0], 1, Bucket(1, 32), 512, []),
            PlannedInstance(InstanceName("long-0"), [1], 0, [0], 1, Bucket(33, 512), 512, []),
        ],
        Housekeeping([0], True, "a benchmark"),
        [],
        [],
    )
    spec = RouterSpec(f"ipc://{tmp_path}/front", f"ipc://{tmp_path}/back", plan, {}, [], 1.0)
    ours, theirs = socket.socketpair()
    with ExitStack() as stack:
        stack.enter_context(ours)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.router", "--channel", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
            )
        stack.callback(process.wait)
        stack.callback(process.kill)
        ours.sendall(encode(messages.Start(os.getpid(), msgspec.Raw(msgspec.json.encode(spec)))))
        lines = Lines()
        while not (arrived := lines.feed(ours.recv(1 << 16))):
            pass
        assert isinstance(msgspec.json.decode(arrived[0], type=messages.FromChild), messages.Ready)
        yield process.pid, spec


def test_cpu_per_request_at_32_in_flight(router: tuple[int, RouterSpec]) -> None:
    pid, spec = router
    rng = random.Random(1)
    with zmq.Context() as context, ExitStack() as stack:
        poller = zmq.Poller()
        workers = []
        for name in ("short-0", "long-0"):
            worker = stack.enter_context(context.socket(zmq.DEALER))
            worker.setsockopt(zmq.ROUTING_ID, f"{name}#1".encode())
            worker.connect(spec.back)
            worker.send(wire.encode_json(wire.HELLO, wire.Hello(name, 1, 512, os.getpid())))
            workers.append(worker)
            poller.register(worker, zmq.POLLIN)
        client = stack.enter_context(context.socket(zmq.DEALER))
        client.connect(spec.front)
        poller.register(client, zmq.POLLIN)
        submitted = answered = batches = 0
        started = cpu = 0.0
        deadline = time.monotonic() + LIMIT_SECONDS

        def submit() -> None:
            nonlocal submitted
            submitted += 1
            length = rng.randint(10, 34)
            client.send(wire.encode_submit(submitted, [length], bytes(4 * length), timeout_ms=60_000))

        for _ in range(IN_FLIGHT):
            submit()
        while answered < WARM_UP + REQUESTS:
            assert time.monotonic() < deadline, f"only {answered} requests in {LIMIT_SECONDS} s"
            for source, _ in poller.poll(1000):
                if source is client:
                    while client.get(zmq.EVENTS) & zmq.POLLIN:
                        frames = client.recv_multipart()
                        assert wire.kind_of(frames[0]) == wire.RESULT
                        answered += 1
                        if answered == WARM_UP:
                            started, cpu, batches = time.monotonic(), cpu_seconds(pid), 0
                        submit()
                else:
                    frame = source.recv()
                    if wire.kind_of(frame) != wire.BATCH:
                        continue
                    batch = wire.decode_batch(frame)
                    n = len(batch.lengths)
                    batches += 1
                    meta = wire.encode_batch_result(
                        batch.batch_id, [len(ROW)] * n, width=384, infer_us=100, per_token=False
                    )
                    source.send_multipart((meta, ROW * n))
        used, seconds = cpu_seconds(pid) - cpu, time.monotonic() - started
    figures = {
        "cpu_us_per_request": round(used / (answered - WARM_UP) * 1e6, 1),
        "requests_per_second": round((answered - WARM_UP) / seconds),
        "batch_mean": round((answered - WARM_UP) / batches, 2),
        "in_flight": IN_FLIGHT,
    }
    print(json.dumps(figures))
    assert answered >= WARM_UP + REQUESTS
