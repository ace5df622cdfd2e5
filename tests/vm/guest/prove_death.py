"""Does it bear what may be done to a machine of one's own only: its clock set, a worker's memory taken away by a cgroup of version 2?"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proof import WIDTH, Running, check, equal, up

YEAR = 365 * 86_400.0
DEADLINE = 300.0


def prove() -> None:
    with up("death", "--max-seqlen", "64", "--instances", "2") as running:
        _the_clock(running)
        _memory(running)


def _the_clock(running: Running) -> None:
    before = running.status()
    try:
        for jump in (YEAR, -2 * YEAR, YEAR):
            time.clock_settime(time.CLOCK_REALTIME, time.time() + jump)
            check(
                f"the clock set by {jump / YEAR:+.0f} years: a text is answered", len(running.embed("rain")[0]) == WIDTH
            )
        after = running.status()
    finally:
        shown = time.strftime("%Y-%m-%d", time.gmtime())
    restarts = [part["restarts"] for part in (after["router"], *after["gateways"], *after["instances"])]
    equal(f"after it (it is {shown} again) nothing was restarted", set(restarts), {0})
    elapsed = after["uptime_seconds"] - before["uptime_seconds"]
    check("its uptime has not jumped", 0 <= elapsed < DEADLINE, elapsed)


def _memory(running: Running) -> None:
    worker = running.status()["instances"][0]
    folder = Path("/sys/fs/cgroup/proof-memory")
    (folder.parent / "cgroup.subtree_control").write_text("+memory")
    folder.mkdir()
    (folder / "cgroup.procs").write_text(str(worker["pid"]))
    running.status()  # it looks where the worker is now
    (folder / "memory.max").write_text("4096")
    deadline = time.monotonic() + DEADLINE

    def until(reached: Callable[[Any], bool]) -> Any:
        while not reached(now := running.status()["instances"][0]) and time.monotonic() < deadline:
            running.embed("rain")
        return now

    back = until(lambda one: one["restarts"] == 1 and one["state"] == "ready")
    said = back["last_error"] or ""
    check("a worker out of memory is replaced", back["state"] == "ready" and back["restarts"] == 1, back)
    check("and the kernel's count is quoted", f"oom_kill in {folder}/memory.events rose from 0 to 1" in said, said)
    folder.rmdir()
