"""What is read back of a process whose threads come and go?"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.supervisor.verify import VanishedError, verify

STATUS = "Name:\tpython3\nCpus_allowed_list:\t{cpus}\nMems_allowed_list:\t0-1\n"


def process(proc: Path, *threads: str | None) -> Path:
    """A folder as /proc has it, of process 7. A thread's text is its CPUs; None: it ended while others were read."""
    root = proc / "7"
    for tid, cpus in enumerate(threads, 7):
        task = root / "task" / str(tid)
        task.mkdir(parents=True)
        if cpus is not None:
            (task / "status").write_text(STATUS.format(cpus=cpus))
    (root / "numa_maps").write_text("00400000 bind:1 file=/usr/bin/python3 N1=1\n")
    (root / "maps").write_text("00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/python3\n")
    return proc


def test_a_thread_that_ends_while_it_is_looked_at_says_nothing_of_the_process(tmp_path: Path) -> None:
    found = verify(7, [4], [1], [], process(tmp_path, "4", None, "4"))
    assert (found.cpus, found.threads, found.matches_plan) == ([4], 2, True)


def test_a_thread_that_may_leave_its_cores_is_named(tmp_path: Path) -> None:
    found = verify(7, [4], [1], [], process(tmp_path, "4", "0-4"))
    assert not found.matches_plan
    assert "thread 8 may run on CPU [0, 1, 2, 3], outside the plan" in found.notes


def test_a_process_without_a_thread_left_has_vanished(tmp_path: Path) -> None:
    with pytest.raises(VanishedError):
        verify(7, [4], [1], [], process(tmp_path, None))
    with pytest.raises(VanishedError):
        verify(8, [4], [1], [], tmp_path)
