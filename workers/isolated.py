"""What does an instance do on CPUs that the scheduler does not balance?

Under `isolcpus=` every new thread stays on the CPU that its parent ran on, however wide its affinity is: the threads of an engine take
turns on one core while the others idle (seen on Linux 6.1: two busy threads bound to two isolated CPUs were on the same one in 31 of 31
samples, without `isolcpus=` in 3 of 31). So there each thread is given a CPU of its own.
Source: isolcpus= in Documentation/admin-guide/kernel-parameters.txt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from workers.bind import kernel_list


def isolated_cpus(path: Path = Path("/sys/devices/system/cpu/isolated")) -> set[int]:
    """Empty where there are none, or the kernel does not say."""
    try:
        text = path.read_text().strip()
    except OSError:
        return set()
    return kernel_list(text) if text and text[0].isdigit() else set()  # before Linux 4.17 an empty one read `(null)`


def threads() -> set[int]:
    """Of this process."""
    return {int(entry.name) for entry in Path("/proc/self/task").iterdir()}


def pinned(main: int, started: Iterable[int], cpus: list[int]) -> dict[int, int]:
    """Thread → CPU: the main thread, which computes as well, on the first; those that the engine started on the others in turn."""
    others = sorted(cpus)[1:]
    places = {main: min(cpus)}
    places.update({thread: others[turn % len(others)] for turn, thread in enumerate(sorted(set(started) - {main}))})
    return places


def spread(cpus: list[int], isolated: set[int], before: set[int]) -> list[str]:
    """Gives the engine's threads, those that were not there `before`, a CPU each if any of `cpus` is isolated; notes for status."""
    if len(cpus) < 2 or not isolated & set(cpus):
        return []
    for thread, cpu in pinned(os.getpid(), threads() - before, cpus).items():
        try:
            os.sched_setaffinity(thread, {cpu})
        except ProcessLookupError:
            continue  # it has ended meanwhile
        except OSError as error:
            return [f"its CPUs are isolated, and its threads cannot be spread over them: {error.strerror}"]
    return ["its CPUs are isolated from the scheduler's balancing: each thread of the engine has one of its own"]
