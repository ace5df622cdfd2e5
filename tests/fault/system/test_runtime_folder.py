"""What if the runtime folder holds what should not be there, or two want it at the same moment? One serves, and the other says why not."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]


def test_two_starts_at_the_same_moment_make_one_orchestrator(start_system: Start, tmp_path: Path) -> None:
    runtime = ("--runtime-dir", str(tmp_path / "run"))
    both = [start_system("--instances", "1", *runtime, runtime=name, ready=False) for name in ("one", "other")]
    loser = first_to_end([one.process.pid for one in both])
    ended, serving = sorted(both, key=lambda one: one.process.pid != loser)
    assert ended.process.wait(10) == 1
    assert f"(pid {serving.process.pid}) already runs" in ended.said().splitlines()[-1]
    serving.wait_ready()
    assert len(serving.embed("the one that came first is not disturbed")) == 384


def first_to_end(pids: list[int]) -> int:
    """Which of these processes ends first; it is left to be reaped by whoever started it."""
    import select

    poller = select.poll()
    pidfds = {os.pidfd_open(pid): pid for pid in pids}
    for pidfd in pidfds:
        poller.register(pidfd, select.POLLIN)
    try:
        ready = poller.poll(60_000)
        assert ready, "neither of the two gave up"
        return pidfds[ready[0][0]]
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


@pytest.mark.parametrize("name", ["control.sock", "front.sock", "back.sock"])
@pytest.mark.parametrize("kind", ["a folder", "a file"])
def test_what_stands_in_the_place_of_a_socket_is_named_and_left_alone(
    start_system: Start, tmp_path: Path, name: str, kind: str
) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    there = runtime / name
    there.mkdir() if kind == "a folder" else there.write_text("somebody's")
    system = start_system("--instances", "1", ready=False)
    assert system.process.wait(60) == 78
    said = system.said()
    assert f"{there}: something that is no socket" in said
    assert "Traceback" not in said
    assert there.exists()


def test_a_lock_that_is_a_folder_is_named(start_system: Start, tmp_path: Path) -> None:
    (tmp_path / "run" / "lock").mkdir(mode=0o700, parents=True)
    (tmp_path / "run").chmod(0o700)
    system = start_system("--instances", "1", ready=False)
    assert system.process.wait(60) == 78
    assert f"{tmp_path / 'run' / 'lock'}: Is a directory" in system.said()


def test_garbage_in_the_lock_and_sockets_of_the_dead_hinder_nobody(start_system: Start, tmp_path: Path) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    (runtime / "lock").write_bytes(os.urandom(4000))
    for name in ("control.sock", "front.sock", "back.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(runtime / name))
    system = start_system("--instances", "1")
    assert (runtime / "lock").read_text() == f"{system.process.pid}\n"
    assert len(system.embed("served all the same")) == 384
    assert system.stop() == 0
    assert {path.name for path in runtime.iterdir()} <= {"lock", "log", "logs"}
