"""Was a child killed because memory ran out? What the kernel counts, before and after.

The kernel kills with SIGKILL and tells nobody why. But it counts: per memory cgroup the processes of it that any of its out-of-memory
killers ended. A SIGKILL that we did not send, beside a count that has just risen, is most probably one of them. Sources:
Documentation/admin-guide/cgroup-v2.rst (memory.events, `oom_kill`), cgroup-v1/memory.rst (memory.oom_control), /proc/vmstat (`oom_kill`)
for a process in no cgroup that counts.
"""

from __future__ import annotations

import posixpath
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

RECENT_SECONDS = 10.0
"""A kill that was counted this long before a process ended may be what ended it: a process dies slowly when memory is short."""
_UNLIMITED = 1 << 60
"""cgroup v1 says `no limit` with a number near 2^63."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the kills that concern one process are counted."""

    counts: Path
    """A file with a line `oom_kill N`."""
    limit: Path | None
    """The file of the limit, None where the machine is the limit."""


def place_of(cgroups: str, root: Path = Path("/")) -> Place | None:
    """`cgroups` is what /proc/PID/cgroup says. None if nothing is counted here."""
    try:
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    own = dict(line.split(":", 2)[1:] for line in cgroups.splitlines() if line.count(":") >= 2)
    by_controller = {name: path for names, path in own.items() for name in names.split(",")}
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(tail) < 3:
            continue
        if tail[0] == "cgroup" and "memory" in tail[2].split(",") and "memory" in by_controller:
            files, path = ("memory.oom_control", "memory.limit_in_bytes"), by_controller["memory"]
        elif tail[0] == "cgroup2" and "" in by_controller and "memory" not in by_controller:
            files, path = ("memory.events", "memory.max"), by_controller[""]
        else:
            continue
        folder = root / _inside(fields[4], fields[3], path).lstrip("/")
        if kills(folder / files[0]) is not None:
            return Place(folder / files[0], folder / files[1])
    everywhere = root / "proc/vmstat"
    return Place(everywhere, None) if kills(everywhere) is not None else None


def _inside(point: str, mounted: str, path: str) -> str:
    """Where a cgroup is seen, whose hierarchy is mounted at `point` from its own cgroup `mounted` on."""
    below = posixpath.relpath(path, mounted)
    return point if below.startswith("..") else posixpath.normpath(posixpath.join(point, below))


def kills(counts: Path) -> int | None:
    """How many processes the kernel has killed for want of memory; None if this file does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)$", counts.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found is not None else None


def room_bytes(cgroups: str, root: Path = Path("/")) -> int | None:
    """What the memory cgroup still allows, its page cache counted as used; None where it has no limit."""
    place = place_of(cgroups, root)
    limit = None if place is None else _limit(place)
    if place is None or place.limit is None or limit is None:
        return None
    used = place.limit.with_name("memory.current" if place.limit.name == "memory.max" else "memory.usage_in_bytes")
    try:
        return max(0, limit - int(used.read_text()))
    except (OSError, ValueError):
        return None


class Witness:
    """Looks at the count of one process while it lives, and says after its death whether it has risen."""

    def __init__(self, pid: int, now: float, root: Path = Path("/")) -> None:
        self._pid = pid
        self._root = root
        self._cgroups = ""
        self._place: Place | None = None
        self._seen: dict[Place, deque[tuple[float, int]]] = {}
        """(when, count) at each change that was seen, by the place. An exiting process is shown in the root of cgroup v1: where it was
        before must not be forgotten for that."""
        self.look(now)

    def look(self, now: float) -> None:
        """Now and then, since somebody may move the process into another cgroup, and kills of others grow old."""
        try:
            cgroups = (self._root / f"proc/{self._pid}/cgroup").read_text()
        except OSError:
            return  # it is gone: what is known is from when it lived
        if cgroups != self._cgroups:
            self._cgroups, self._place = cgroups, place_of(cgroups, self._root)
        count = None if self._place is None else kills(self._place.counts)
        if self._place is not None and count is not None:
            seen = self._seen.setdefault(self._place, deque(maxlen=16))
            if not seen or seen[-1][1] != count:
                seen.append((now, count))

    def testimony(self, now: float) -> str | None:
        """What speaks for it that memory ran out, in words with what to do; None if nothing does."""
        for place, seen in self._seen.items():
            count = kills(place.counts)
            before = next((was for at, was in reversed(seen) if at <= now - RECENT_SECONDS), seen[0][1])
            if count is not None and count > before:
                limit = _limit(place)
                return (
                    f"killed, probably out of memory: oom_kill in {place.counts} rose from {before} to {count}"
                    + (f", the limit is {limit >> 20} MiB" if limit is not None else "")
                    + "; give it more memory, or run fewer instances or a smaller batch"
                )
        return None


def _limit(place: Place) -> int | None:
    """Bytes; None where the machine is the limit."""
    if place.limit is None:
        return None
    try:
        limit = int(place.limit.read_text())
    except (OSError, ValueError):  # `max`
        return None
    return limit if limit < _UNLIMITED else None
