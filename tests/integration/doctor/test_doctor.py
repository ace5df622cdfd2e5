"""Does `orchestrator doctor` tell the truth of this host, of a running system, and of a container that forbids what workers need?"""

from __future__ import annotations

import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from topology.sysfs import read_machine

# A seccomp filter (seccomp(2)) over the numbers in argv[2:], with the action argv[1], then the rest after `--`.
FORBID = """
import ctypes, os, struct, sys
action, split = int(sys.argv[1], 0), sys.argv.index("--")
numbers = [int(word) for word in sys.argv[2:split]]
line = lambda code, yes, no, k: struct.pack("HBBI", code, yes, no, k)
program = line(0x20, 0, 0, 0)  # load the system call's number
for place, number in enumerate(numbers):
    program += line(0x15, len(numbers) - place, 0, number)  # equal: to the action
program += line(0x06, 0, 0, 0x7FFF0000) + line(0x06, 0, 0, action)  # allow; the action
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(program)
filter = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0, "no_new_privs"
assert libc.prctl(22, 2, ctypes.c_char_p(filter)) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.executable, [sys.executable, *sys.argv[split + 1:]])
"""
KILL, EPERM = 0x80000000, 0x00050001
SET_MEMPOLICY, GET_MEMPOLICY, PIDFD_OPEN = 238, 239, 434
"""On x86-64."""


def doctor(
    tmp_path: Path, *words: str, before: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code, and the findings by their check."""
    ended = subprocess.run(
        [sys.executable, *before, "-m", "orchestrator.cli.main", "doctor", "--json", "--cache-dir", str(tmp_path),
         *(() if "--runtime-dir" in words else ("--runtime-dir", str(tmp_path / "run"))), *words],
        capture_output=True, text=True, timeout=60, env={**os.environ, **(environment or {})}, check=False,
    )  # fmt: skip
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode, {each["check"]: each for each in json.loads(ended.stdout)["findings"]}


def test_this_host_is_fit_for_tests_and_the_trials_were_really_made(tmp_path: Path) -> None:
    code, found = doctor(tmp_path, "--port", "0")
    assert code == 0, [each for each in found.values() if each["level"] == "broken"]
    assert found["affinity"]["found"].startswith("a child bound itself to CPU")
    assert found["pidfd_open"]["level"] == "ok"
    assert "ns to read" in found["clock source"]["found"] or found["clock source"]["level"] == "unknown"
    cores = {cpu.core for cpu in read_machine().cpus if cpu.allowed}
    assert ("wakes up after" in found["idle states"]["found"]) == (len(cores) > 1)
    assert found["orchestrator"]["found"] == "none runs here"


def test_a_port_that_is_taken_and_a_folder_of_others_are_broken(tmp_path: Path) -> None:
    open_to_all = tmp_path / "run"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        code, found = doctor(tmp_path, "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "Address already in use" in found["port"]["found"]
    assert found["runtime folder"]["level"] == "broken"
    assert "others may write to it" in found["runtime folder"]["found"]


def test_a_low_limit_of_open_files_is_seen(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    script = (
        "import os,resource,sys; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    assert hard >= 200
    code, found = doctor(tmp_path, "--port", "0", before=("-c", script))
    assert code == 1
    assert found["open files"]["level"] == "broken"
    assert found["open files"]["found"].startswith("200 for this shell")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the system calls are those of x86-64")
def test_a_trial_that_is_killed_is_told_and_the_doctor_lives(tmp_path: Path) -> None:
    forbid = ("-c", FORBID, str(KILL), str(SET_MEMPOLICY), "--")
    code, found = doctor(tmp_path, "--port", "0", before=forbid)
    assert code == 1
    # Which of the two asks the kernel first depends on the version of libnuma.
    (deadly,) = [each for each in found.values() if "killed by SIGSYS" in each["found"]]
    assert (deadly["check"], deadly["level"]) in (("libnuma", "broken"), ("memory policy", "broken"))
    assert found["affinity"]["level"] == "ok"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the system calls are those of x86-64")
def test_what_a_container_refuses_is_told(tmp_path: Path) -> None:
    forbid = ("-c", FORBID, str(EPERM), str(SET_MEMPOLICY), str(GET_MEMPOLICY), str(PIDFD_OPEN), "--")
    _, found = doctor(tmp_path, "--port", "0", before=forbid)
    assert "permitted" in found["memory policy"]["found"] or "refused here" in found["memory policy"]["found"]
    assert found["pidfd_open"]["level"] == "note"
    assert "Operation not permitted" in found["pidfd_open"]["found"]


def test_an_inherited_allocator_is_seen_even_where_the_library_is_not_there(tmp_path: Path) -> None:
    _, found = doctor(tmp_path, "--port", "0", environment={"LD_PRELOAD": "/nowhere/libjemalloc.so.2"})
    assert found["allocator"]["level"] == "note"
    assert "this shell brings jemalloc" in found["allocator"]["found"]


def test_a_running_system_is_as_planned_and_one_that_was_moved_is_not(
    tmp_path: Path, start_system: Callable[..., Any]
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU: there is nowhere to move to")
    system = start_system("--instances", "1")
    words = ("--runtime-dir", str(system.runtime))
    code, found = doctor(tmp_path, *words)
    assert code == 0, [each for each in found.values() if each["level"] == "broken"]
    assert found["placement"]["found"] == "1 of 1 instance read back from the kernel, as planned"
    assert found["port"]["found"].endswith("is held by the orchestrator that runs here")
    assert found["swapped out"]["level"] == "ok"
    assert "the running gateways" in found["open files"]["found"]
    (instance,) = system.status().instances
    others = os.sched_getaffinity(0) - set(instance.cpus)
    if not others:
        return  # the instance has every CPU that there is
    os.sched_setaffinity(instance.pid, others)
    code, found = doctor(tmp_path, *words)
    assert found["placement"]["level"] == "costs"
    assert "outside the plan" in found["placement"]["found"]


def test_a_supervisor_that_hangs_is_broken_and_not_taken_for_none(
    tmp_path: Path, start_system: Callable[..., Any]
) -> None:
    system = start_system("--instances", "1")
    system.process.send_signal(signal.SIGSTOP)
    try:
        code, found = doctor(tmp_path, "--port", "0", "--runtime-dir", str(system.runtime))
    finally:
        system.process.send_signal(signal.SIGCONT)
    assert code == 1
    assert "did not answer" in found["orchestrator"]["found"]
    assert "kill -CONT" in found["orchestrator"]["mend"]


@pytest.mark.parametrize("bad", ["version: 2\n", "version: 1\nallocator: tcmalloc\nengine: openvino\n"])
def test_a_layout_that_cannot_be_is_refused_with_its_place(tmp_path: Path, bad: str) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text(bad)
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "doctor", "--layout", str(layout)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 78
    assert f"{layout}:" in ended.stderr
    assert ended.stdout == ""


def test_a_sysroot_that_is_nothing_is_wrong_usage(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "doctor", "--sysroot", str(tmp_path / "absent")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "no such file or directory" in ended.stderr
