"""What is seen of the running system from outside? Deaths and returns of its parts, and what each process holds. Linux only."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedule import Blow

from orchestrator.status import Status
from orchestrator.supervisor.control import ControlError

SAMPLE_SECONDS = 1.0
LOOK_SECONDS = 0.1
BACK_DEADLINE_SECONDS = 60.0
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Death:
    """A blow that was dealt."""

    blow: Blow
    part: str
    pid: int
    at: float
    back_at: float | None = None
    """When the part was ready again, as a new process."""
    shrugged_off: bool = False
    """The part lives on: router and gateways leave SIGTERM to their supervisor."""


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    part: str
    pid: int
    rss: int
    descriptors: int
    """Without those of its clients' connections."""
    quiet: bool
    """Nothing was dying or coming back."""


def kind_of(part: str) -> str:
    return part if part in ("router", "supervisor") else "gateway" if part.startswith("gateway-") else "worker"


def pids_of(status: Status) -> dict[str, int]:
    """Of all parts that are ready."""
    parts = [("router", status.router), *((one.name, one) for one in (*status.gateways, *status.instances))]
    return {name: part.pid for name, part in parts if part.pid is not None and part.state == "ready"}


class Watch:
    """Deals the blows of a schedule at their times, and looks meanwhile. Runs in the caller's thread."""

    def __init__(self, system: Any, parts: set[str]) -> None:
        self.deaths: list[Death] = []
        self.samples: list[Sample] = []
        self.seen: dict[tuple[int, int], str] = {}
        """Every process that ever was a part, by (pid, start time in clock ticks)."""
        self._system = system
        self._parts = parts
        self._sampled_at = 0.0

    def run(self, blows: list[Blow], seconds: float, enough: threading.Event) -> None:
        """Until `seconds` have passed and every part is back, or `enough` is set."""
        began = time.monotonic()
        waiting = list(blows)
        while not enough.is_set():
            now = time.monotonic()
            up = self._look(now)
            if waiting and now >= began + waiting[0].at and up:
                self._deal(waiting, up)
            elif not waiting and now >= began + seconds and set(up) == self._parts:
                return
            elif now > began + seconds + BACK_DEADLINE_SECONDS:
                return  # the judge sees who did not come back
            next_blow = began + waiting[0].at if waiting else now + LOOK_SECONDS
            enough.wait(max(0.0, min(LOOK_SECONDS, next_blow - time.monotonic())))

    def _deal(self, waiting: list[Blow], up: dict[str, int]) -> None:
        """The first blow that is due, to its part; while that is away to another of its kind, or as soon as one is up."""
        blow = waiting[0]
        candidates = [blow.part, *sorted(part for part in up if kind_of(part) == kind_of(blow.part))]
        part = next((part for part in candidates if part in up), None)
        if part is None:
            return
        waiting.pop(0)
        death = Death(blow, part, up[part], time.monotonic())
        death.shrugged_off = blow.signal == "SIGTERM" and kind_of(part) != "worker"
        self.deaths.append(death)
        os.kill(up[part], signal.Signals[blow.signal])

    def _look(self, now: float) -> dict[str, int]:
        """Which parts are ready, and their pids."""
        try:
            status = self._system.status()
        except ControlError:
            return {}
        up = pids_of(status)
        for part, pid in up.items():
            started = start_ticks(pid)
            if started is not None:
                self.seen.setdefault((pid, started), part)
        for death in self.deaths:
            if death.back_at is None and not death.shrugged_off and up.get(death.part, death.pid) != death.pid:
                death.back_at = now
        if now - self._sampled_at >= SAMPLE_SECONDS:
            self._sampled_at = now
            quiet = set(up) == self._parts and all(death.shrugged_off or death.back_at for death in self.deaths)
            connections = {one.name: one.connections for one in status.gateways}
            for part, pid in {"supervisor": status.pid, **up}.items():
                self._sample(now, part, pid, quiet, connections.get(part, 0))
        # A dead part's process is known by its old pid until it is replaced: only those that are not struck are up.
        struck = {death.part for death in self.deaths if death.back_at is None and not death.shrugged_off}
        return {part: pid for part, pid in up.items() if part not in struck}

    def _sample(self, now: float, part: str, pid: int, quiet: bool, connections: int) -> None:
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir())) - connections
        except (OSError, IndexError):
            return  # it has just died
        self.samples.append(Sample(now, part, pid, pages * PAGE, descriptors, quiet))


def start_ticks(pid: int) -> int | None:
    """When the process began, which tells it from a later one of the same pid. None if there is none. Source: proc(5), stat, field 22."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def state_of(pid: int) -> str | None:
    """R, S, Z, …; None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return None


def children_of(pid: int) -> dict[int, str]:
    """Its direct children, zombies included, with their states."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found[int(entry.name)] = fields[0]
    return found
