"""What does a request cost in the router process, sockets included?

Fake workers answer at once over lanes from this process, so the figure is the router's own: CPU seconds that the kernel charged to its
process (/proc/PID/stat) over the requests it settled, at 32 single-sequence requests in flight. Run with
`pytest tests/bench/test_router_process.py -s`; the target is 45 µs.
"""

from __future__ import annotations

import json
import os
import random
import selectors
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

from orchestrator.plan.model import Bucket, Housekeeping, InstanceName, Plan, PlannedInstance
from orchestrator.router.spec import RouterSpec
from workers import lane, wire
from workers import spec as messages
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
    spec = RouterSpec(
        f"ipc://{tmp_path}/front", f"ipc://{tmp_path}/back", plan, {}, [], 1.0, f"unix://{tmp_path}/local"
    )
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
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())

        def connect(who: bytes) -> lane.Lane:
            one = lane.connect(spec.local, who)
            assert one is not None
            stack.callback(one.close)
            selector.register(one.fileno(), selectors.EVENT_READ, one)
            return one

        for name in ("short-0", "long-0"):
            worker = connect(lane.as_worker(f"{name}#1".encode()))
            worker.put(wire.encode_json(wire.HELLO, wire.Hello(name, 1, 512, os.getpid())))
            assert worker.flush()
        client = connect(lane.as_client("a benchmark"))
        submitted = answered = batches = 0
        started = cpu = 0.0
        deadline = time.monotonic() + LIMIT_SECONDS

        def submit() -> None:
            nonlocal submitted
            submitted += 1
            length = rng.randint(10, 34)
            client.put(wire.encode_submit(submitted, [length], bytes(4 * length), timeout_ms=60_000))

        for _ in range(IN_FLIGHT):
            submit()
        assert client.flush()
        while answered < WARM_UP + REQUESTS:
            assert time.monotonic() < deadline, f"only {answered} requests in {LIMIT_SECONDS} s"
            for key, _ in selector.select(1):
                for frame, rows in key.data.receive():
                    if key.data is client:
                        assert rows is not None
                        assert wire.kind_of(frame) == wire.RESULT
                        answered += 1
                        if answered == WARM_UP:
                            started, cpu, batches = time.monotonic(), cpu_seconds(pid), 0
                        submit()
                    elif wire.kind_of(frame) == wire.BATCH:
                        batch = wire.decode_batch(frame)
                        n = len(batch.lengths)
                        batches += 1
                        meta = wire.encode_batch_result(
                            batch.batch_id, [len(ROW)] * n, width=384, infer_us=100, per_token=False
                        )
                        key.data.put(meta, ROW * n)
                while not key.data.flush():
                    pass  # the router reads: it is what is measured
        used, seconds = cpu_seconds(pid) - cpu, time.monotonic() - started
    figures = {
        "cpu_us_per_request": round(used / (answered - WARM_UP) * 1e6, 1),
        "requests_per_second": round((answered - WARM_UP) / seconds),
        "batch_mean": round((answered - WARM_UP) / batches, 2),
        "in_flight": IN_FLIGHT,
    }
    print(json.dumps(figures))
    assert answered >= WARM_UP + REQUESTS
