"""Does each thread of an engine get a CPU of its own where the kernel does not spread them?

That the kernel does not, needs a machine booted with `isolcpus=`; here the CPUs are only said to be isolated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workers.isolated import isolated_cpus, pinned, spread

SPREAD = """
import json, os, sys, threading
from workers.isolated import spread, threads
cpus = json.loads(sys.argv[1])
os.sched_setaffinity(0, cpus)
early = threading.Event()
threading.Thread(target=early.wait, daemon=True).start()
before = threads()
for _ in range(3):
    threading.Thread(target=early.wait, daemon=True).start()
born = sorted(threads() - before)
notes = spread(cpus, set(cpus[1:]), before)
print(json.dumps([notes, sorted(os.sched_getaffinity(0)), [sorted(os.sched_getaffinity(one)) for one in born],
                  [sorted(os.sched_getaffinity(one)) for one in before - {os.getpid()}]]))
"""


def test_the_main_thread_has_the_first_cpu_and_the_others_take_turns() -> None:
    assert pinned(100, [103, 101, 102, 100], [4, 2, 6]) == {100: 2, 101: 4, 102: 6, 103: 4}


def test_where_no_cpu_is_isolated_or_there_is_but_one_nothing_is_pinned() -> None:
    mine = os.sched_getaffinity(0)
    assert spread([0, 1], set(), set()) == []
    assert spread([0, 1], {7}, set()) == []
    assert spread([3], {3}, set()) == []
    assert os.sched_getaffinity(0) == mine


@pytest.mark.parametrize(("text", "cpus"), [("2-3,8\n", {2, 3, 8}), ("\n", set()), ("(null)\n", set())])
def test_isolated_cpus_are_what_the_kernel_says(tmp_path: Path, text: str, cpus: set[int]) -> None:
    (tmp_path / "isolated").write_text(text)
    assert isolated_cpus(tmp_path / "isolated") == cpus
    assert isolated_cpus(tmp_path / "absent") == set()


def test_threads_of_the_engine_are_pinned_and_those_before_it_are_not() -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("one CPU: nothing to spread over")
    ended = subprocess.run(
        [sys.executable, "-c", SPREAD, str(cpus)], capture_output=True, text=True, timeout=30, check=True
    )
    notes, main, born, early = json.loads(ended.stdout)
    assert "each thread of the engine has one of its own" in notes[0]
    assert main == cpus[:1]
    assert born == [cpus[1:]] * 3
    assert early == [cpus]
