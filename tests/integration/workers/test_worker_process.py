"""Does a real worker process bind, serve, beat, survive garbage and leave when it should?"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.logs.intake import said
from topology.cpuset import parse_cpulist
from workers import wire
from workers.said import batch_name
from workers.spec import Beat, Drain, Drained, Fatal, Ready, Stop

Start = Callable[..., Any]


def test_a_worker_introduces_itself_serves_and_leaves_when_told(start_worker: Start) -> None:
    worker = start_worker()
    ready = worker.wait_for(Ready)
    assert ready.seconds > 0
    assert worker.hello() == wire.Hello("short-0", 1, 64, worker.process.pid)
    rows = worker.compute(1, [[5, 6, 7], [1]])
    assert rows[:, :2].tolist() == [[18.0, 3.0], [1.0, 1.0]]
    worker.tell(Drain())
    worker.wait_for(Drained)
    worker.tell(Stop())
    assert wire.kind_of(worker.from_worker()[0]) == wire.BYE
    assert worker.process.wait(10) == 0


def test_every_thread_of_a_worker_is_on_its_own_cores_before_numpy_is_imported(start_worker: Start) -> None:
    cpu = sorted(os.sched_getaffinity(0))[-1]
    worker = start_worker(cpus=[cpu])
    worker.wait_for(Ready)
    tasks = list(Path(f"/proc/{worker.process.pid}/task").iterdir())
    assert len(tasks) >= 2
    for task in tasks:
        fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        assert parse_cpulist(fields["Cpus_allowed_list"]) == [cpu] or set(
            parse_cpulist(fields["Cpus_allowed_list"])
        ) == {cpu}


def test_a_cpu_that_does_not_exist_is_a_permanent_failure_with_its_reason(start_worker: Start) -> None:
    worker = start_worker(cpus=[4000])
    fatal = worker.wait_for(Fatal)
    assert fatal.permanent
    assert "CPUs [4000]" in fatal.error
    assert worker.process.wait(10) == 78


def test_a_memory_node_that_does_not_exist_is_refused_and_not_passed_to_libnuma(start_worker: Start) -> None:
    pytest.importorskip("numa", reason="libnuma is not installed", exc_type=(ImportError, AttributeError))
    worker = start_worker(membind=[999])
    fatal = worker.wait_for(Fatal)
    assert "memory node [999] does not exist" in fatal.error
    assert worker.process.wait(10) == 78


def test_a_load_error_is_said_before_the_end(start_worker: Start) -> None:
    worker = start_worker(fake={"load_error": "model.onnx: truncated"})
    assert worker.wait_for(Fatal).error == "model.onnx: truncated"
    assert worker.process.wait(10) == 1


def test_a_batch_that_fails_is_answered_and_the_next_is_served(start_worker: Start) -> None:
    worker = start_worker(fake={"fail_on": 13})
    worker.wait_for(Ready)
    worker.hello()
    worker.give(wire.encode_batch(5, [2], [np.array([1, 13], np.int32).tobytes()]))
    number, message = wire.decode_batch_failed(worker.from_worker()[0])
    assert number == 5
    assert "token 13" in message
    assert worker.compute(6, [[2, 3]])[0, 0] == 5.0
    worker.tell(Stop())
    assert worker.process.wait(10) == 0
    (told,) = [said(line) for line in worker.process.stderr.read().split(b"\n") if b"batch_failed" in line]
    assert told is not None
    assert (told.batch, told.level) == (batch_name(5), "warning"), "by this name the router's note finds it"
    assert "token 13" in told.message


def test_a_sequence_longer_than_the_instance_holds_fails_and_does_not_kill(start_worker: Start) -> None:
    worker = start_worker()
    worker.wait_for(Ready)
    worker.hello()
    worker.give(wire.encode_batch(5, [65], [bytes(65 * 4)]))
    _, message = wire.decode_batch_failed(worker.from_worker()[0])
    assert "65 tokens; this instance holds 64" in message
    assert worker.compute(6, [[9]])[0, 0] == 9.0


@pytest.mark.parametrize(
    "garbage", [b"", b"\x01", b"\xff" * 40, wire.encode_ping(3), wire.encode_batch(1, [3], [bytes(12)])[:-1]]
)
def test_a_garbage_frame_is_dropped_and_the_next_batch_is_served(start_worker: Start, garbage: bytes) -> None:
    worker = start_worker()
    worker.wait_for(Ready)
    worker.hello()
    worker.give(garbage)
    assert worker.compute(2, [[4, 4]])[0, 0] == 8.0


def test_a_router_that_asks_who_gets_a_hello(start_worker: Start) -> None:
    worker = start_worker()
    worker.wait_for(Ready)
    worker.hello()
    worker.give(wire.encode_bare(wire.WHO))
    assert worker.hello().name == "short-0"


def test_beats_tell_an_engine_that_hangs_from_one_that_is_idle(start_worker: Start) -> None:
    worker = start_worker(fake={"hang_on": 13})
    worker.wait_for(Ready)
    worker.hello()
    assert worker.wait_for(Beat).busy_seconds is None
    worker.give(wire.encode_batch(5, [1], [np.array([13], np.int32).tobytes()]))
    while (beat := worker.wait_for(Beat)).busy_seconds is None:
        pass
    assert worker.wait_for(Beat).busy_seconds > beat.busy_seconds


def test_a_worker_does_not_outlive_a_channel_that_closes(start_worker: Start) -> None:
    worker = start_worker()
    worker.wait_for(Ready)
    worker.channel.close()
    assert worker.process.wait(10) == 1


def test_ctrl_c_is_left_to_the_supervisor(start_worker: Start) -> None:
    worker = start_worker()
    worker.wait_for(Ready)
    worker.hello()
    os.kill(worker.process.pid, signal.SIGINT)
    assert worker.compute(1, [[1, 2]])[0, 0] == 3.0


PARENT = """
import os, socket, subprocess, sys, msgspec
from workers import channel
from workers.spec import Start, WorkerSpec
ours, theirs = socket.socketpair()
ours.settimeout(20)
holder = subprocess.Popen(["sleep", "60"], pass_fds=[ours.fileno()], stdout=subprocess.DEVNULL)
worker = subprocess.Popen([sys.executable, "-m", "workers", "--channel", str(theirs.fileno())],
                          pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL)
theirs.close()
spec = WorkerSpec(name="a", incarnation=1, cpus=sorted(os.sched_getaffinity(0)), membind=[], nodes_on_machine=1,
                  threads=1, endpoint="ipc://" + sys.argv[1], max_seqlen=8, warmup=[], artefact=None)
ours.sendall(channel.encode(Start(os.getpid(), msgspec.Raw(msgspec.json.encode(spec)))))
said = ours.recv(1000)
print(holder.pid, worker.pid, int(b"ready" in said), flush=True)
sys.stdin.read()
"""


def test_a_worker_dies_with_its_parent_even_if_the_channel_stays_open(tmp_path: Path) -> None:
    """The parent is killed while somebody else still holds the other end of the channel: only the kernel is left to act."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "back.sock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    holder, worker, ready = map(int, parent.stdout.readline().split())
    try:
        assert ready
        pidfd = os.pidfd_open(worker)
        parent.kill()
        assert select.select([pidfd], [], [], 2.0)[0], "the worker outlived its parent by more than 2 s"
        os.close(pidfd)
    finally:
        os.kill(holder, signal.SIGKILL)
        parent.kill()
        parent.wait(10)
        parent.stdin.close()
        parent.stdout.close()
