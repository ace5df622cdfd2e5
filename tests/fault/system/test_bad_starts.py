"""What does `orchestrator up` say when it cannot start? What, where, why, what to do; and with which exit code?"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]


def fails(start_system: Start, *arguments: str, **more: Any) -> tuple[int, str]:
    system = start_system(*arguments, ready=False, **more)
    code = system.process.wait(60)
    said = system.said()
    assert "Traceback" not in said, said
    return code, said


def test_two_starts_in_one_runtime_folder(start_system: Start) -> None:
    first = start_system("--instances", "1")
    code, said = fails(start_system, "--instances", "1")
    assert code == 1
    assert f"(pid {first.process.pid}) already runs" in said
    assert "--runtime-dir" in said
    assert len(first.embed("the first is not disturbed")) == 384


def test_a_port_that_is_taken(start_system: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = fails(start_system, "--port", str(port))
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in said


def test_more_instances_than_cores(start_system: Start) -> None:
    count = len(os.sched_getaffinity(0)) + 1
    code, said = fails(start_system, "--instances", str(count))
    assert code == 78
    assert str(count) in said


def test_a_model_that_does_not_exist(start_system: Start) -> None:
    code, said = fails(start_system, "--model", "/nowhere/at/all")
    assert code == 78
    assert "/nowhere/at/all" in said


def test_a_layout_with_an_unknown_field_names_its_line(start_system: Start, tmp_path: Path) -> None:
    layout = tmp_path / "bad.yaml"
    layout.write_text("version: 1\ninstances:\n  - {name: short, coers: 1}\n")
    code, said = fails(start_system, "--layout", str(layout))
    assert code == 78
    assert "bad.yaml:3:19" in said
    assert "cores" in said


def test_a_runtime_folder_that_is_a_file(start_system: Start, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    code, said = fails(start_system)
    assert code == 78
    assert "--runtime-dir" in said


def test_a_runtime_folder_whose_name_is_too_long_for_a_socket(start_system: Start) -> None:
    code, said = fails(start_system, runtime="x" * 120)
    assert code == 78
    assert "too long for a unix socket" in said


@pytest.mark.parametrize(
    "arguments", [("--instances", "zero"), ("--instances", "0"), ("--policy", "best"), ("--prot", "1")]
)
def test_wrong_usage_exits_with_2(start_system: Start, arguments: tuple[str, ...]) -> None:
    code, said = fails(start_system, *arguments)
    assert code == 2
    assert "usage:" in said
