"""Does a process that cannot be bound to its CPUs say so, and run all the same?"""

from __future__ import annotations

import subprocess
import sys

SETTLES = """
import os
from orchestrator.settle import settle
before = os.sched_getaffinity(0)
print(settle([4095]))
print(os.sched_getaffinity(0) == before, os.sched_getscheduler(0) == os.SCHED_BATCH)
print(settle(before), settle([]))
"""


def test_cpus_that_are_not_there_are_named_and_the_rest_is_done() -> None:
    said = subprocess.run([sys.executable, "-c", SETTLES], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [
        "['runs anywhere: it cannot be bound to the CPUs [4095]: Invalid argument']",
        "True True",
        "[] []",
    ]
