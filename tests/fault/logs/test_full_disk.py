"""What is lost when the disk of the logs is full? Lines; no request, and not the operator's patience."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
MNT_DETACH = 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=256k") != 0:
        why = os.strerror(ctypes.get_errno())
        pytest.skip(f"cannot mount a tmpfs here ({why}); test_files.py has a kernel that cuts writes short without it")
    yield folder
    libc.umount2(str(folder).encode(), MNT_DETACH)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def test_a_full_disk_costs_lines_and_no_requests_and_is_said_once(start_system: Start, small_disk: Path) -> None:
    system = start_system("--instances", "1", "--log-dir", str(small_disk / "logs"), "--access-log", "all")
    assert (small_disk / "logs" / "all-0.log").exists()
    filler = fill(small_disk)
    for number in range(60):
        system.embed(f"on a full disk {number}")
    status = system.until("the warning", lambda status: any("logs are not written" in each for each in status.warnings))
    assert any("No space left on device" in each for each in status.warnings)
    assert status.state == "ready"
    said = system.said()
    assert said.count("cannot write logs") == 1
    assert "gateway-0.log: No space left on device" in said
    assert said.count("POST /embed 200") >= 30, "standard error has what the files have not"
    filler.unlink()
    system.until("it works again", lambda status: not any("logs are not" in each for each in status.warnings))
    told = (small_disk / "logs" / "supervisor.log").read_text()
    assert "logs are written again" in told
    lines = [line for path in (small_disk / "logs").glob("*.log") for line in path.read_text().splitlines()]
    assert all(line.startswith("{") and line.endswith("}") for line in lines), "no line is half a line"
    assert system.stop() == 0


def test_a_folder_that_cannot_be_made_is_told_and_the_system_serves(start_system: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    system = start_system("--instances", "1", "--log-dir", str(tmp_path / "file" / "logs"))
    assert len(system.embed("served all the same")) == 384
    assert any("Not a directory" in each for each in system.status().warnings)
    assert system.said().count("cannot write logs") == 1
    assert system.stop() == 0
