"""What if the disk is full, a folder cannot be written, or descriptors run out? What can go on goes on; what cannot says why."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
Mounted = Callable[..., Path]


@pytest.fixture
def built(start_system: Start, model_cache: Path) -> Path:
    """A cache that holds the model as one instance uses it."""
    start_system("--instances", "1", runtime="built").stop()
    return model_cache


def fill(folder: Path) -> None:
    """Until not one byte more can be written."""
    for size in (1 << 20, 1 << 12, 1):
        with contextlib.suppress(OSError), (folder / f"filled-{size}").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(size))


def ends(system: Any) -> tuple[int, str]:
    code = system.process.wait(60)
    said = system.said()
    assert "Traceback" not in said, said
    return code, said.splitlines()[-1]


def test_a_disk_that_is_too_small_for_the_model_is_named_and_nothing_half_made_stays(
    start_system: Start, mounted: Mounted
) -> None:
    disk = mounted("size=8m")
    code, last = ends(start_system("--instances", "1", "--cache-dir", str(disk / "cache"), ready=False))
    assert code == 1  # there may be room at the next try
    assert f"{disk}/cache" in last
    assert "No space left on device" in last
    assert "free some space" in last
    assert [path for path in (disk / "cache").iterdir() if not path.name.endswith(".lock")] == []


def test_a_full_disk_under_a_built_cache_is_no_reason_not_to_serve(
    start_system: Start, mounted: Mounted, built: Path
) -> None:
    disk = mounted("size=600m")
    shutil.copytree(built, disk / "cache")
    for gone in [*(disk / "cache").glob("*-shared-*"), disk / "cache" / "costs"]:
        shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
    fill(disk)
    system = start_system("--instances", "1", "--cache-dir", str(disk / "cache"))
    assert len(system.embed("served all the same")) == 384
    assert any("No space left on device" in warning for warning in system.status().warnings)
    assert system.stop() == 0


def test_a_cache_that_can_only_be_read_serves(start_system: Start, mounted: Mounted, built: Path) -> None:
    disk = mounted("size=600m")
    shutil.copytree(built, disk / "cache")
    remount(disk, "ro")
    system = start_system("--instances", "1", "--cache-dir", str(disk / "cache"))
    assert len(system.embed("served all the same")) == 384
    assert system.stop() == 0


@pytest.mark.parametrize("option", ["--cache-dir", "--runtime-dir"])
def test_a_folder_that_cannot_be_written_is_named_with_the_option_that_chooses_another(
    start_system: Start, mounted: Mounted, option: str
) -> None:
    disk = mounted("size=1m")
    remount(disk, "ro")
    code, last = ends(start_system("--instances", "1", option, str(disk / "x"), ready=False))
    assert code == 78
    assert f"{disk}/x" in last
    assert "Read-only file system" in last
    assert option in last or "another cache directory" in last


def remount(disk: Path, how: str) -> None:
    import subprocess

    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def test_a_full_runtime_folder_is_named(start_system: Start, mounted: Mounted) -> None:
    disk = mounted("size=16k,mode=700")
    fill(disk)
    code, last = ends(start_system("--instances", "1", "--runtime-dir", str(disk), ready=False))
    assert code == 1
    assert f"{disk}/lock: No space left on device" in last


@contextlib.contextmanager
def descriptors(pid: int, more: int) -> Iterator[None]:
    """Lets a running process open only so many more above those that it has; the limit is one on their numbers."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + more, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_gateway_without_descriptors_serves_those_it_has_and_the_others_once_these_have_gone(
    start_system: Start,
) -> None:
    system = start_system("--instances", "1")
    body = json.dumps({"inputs": "rain"}).encode()
    request = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
        body
    )
    gateway = system.pids()["gateway-0"]
    with descriptors(gateway, more=4), contextlib.ExitStack() as opened:
        crowd = [opened.enter_context(socket.create_connection(("127.0.0.1", system.port))) for _ in range(20)]
        answered = []
        for one in crowd:
            one.settimeout(1.0)
            with contextlib.suppress(TimeoutError, ConnectionError):
                one.sendall(request + body)
                answered.append(one.recv(1 << 16).startswith(b"HTTP/1.1 200"))
        assert 1 <= sum(answered) < len(crowd)
        system.until("it has counted them", lambda status: status.gateways[0].connections > 0)
        for one in crowd:
            one.close()
        system.until("it has seen them go", lambda status: status.gateways[0].connections == 0)
        assert len(system.embed("the crowd has gone")) == 384
    status = system.status()
    assert (status.gateways[0].pid, status.gateways[0].restarts) == (gateway, 0)
    assert status.state == "ready"


def test_a_supervisor_without_descriptors_says_why_a_worker_does_not_come_back_and_starts_it_once_it_can(
    start_system: Start, load_on: Callable[[Any], Any], all_right: Any
) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start()
    load.until_answered(20)
    worker = system.pids()["short-0"]
    with descriptors(system.process.pid, more=0):
        os.kill(worker, signal.SIGKILL)
        status = system.until(
            "it says why", lambda status: any("Too many open files" in warning for warning in status.warnings)
        )
        assert status.state == "degraded"
        load.until_answered(20)
    system.until("the worker is back", lambda status: status.state == "ready")
    load.until_answered(20)
    all_right(load.stop())
