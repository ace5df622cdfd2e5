"""What is seen of the running system from outside? Deaths and returns of its parts, and what each process holds. Linux only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedule import EVERY_WORKER, Blow

from orchestrator.status import Status
from orchestrator.supervisor.control import ControlError

SAMPLE_SECONDS = 1.0
LOOK_SECONDS = 0.1
BACK_DEADLINE_SECONDS = 60.0
APART_SECONDS = 1.0
"""A request that two workers die over is refused as poison, by design: whether it killed them nobody can know. So no worker is struck while
another is away, whose requests it has just taken over, nor within this time after: a deadly request would be a coincidence of ours. That
all die at once is a blow of its own, from which each request sees one death."""
OPERATION_SECONDS = 60.0
REST_SECONDS = 10.0
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
class Operation:
    """What an operator did, and how the command ended."""

    blow: Blow
    seconds: float
    code: int
    said: str


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
    """Deals the blows of a schedule at their times, and looks meanwhile. Runs in the caller's thread, operations in one of their own."""

    def __init__(self, system: Any, parts: set[str], layouts: list[Path]) -> None:
        self.deaths: list[Death] = []
        self.operations: list[Operation] = []
        self.samples: list[Sample] = []
        self.undealt: list[Blow] = []
        """For which there was no time: those that they were meant for were away too long."""
        self.seen: dict[tuple[int, int], str] = {}
        """Every process that ever was a part, by (pid, start time in clock ticks)."""
        self._system = system
        self._parts = parts
        self._layouts = layouts
        self._operating: threading.Thread | None = None
        self._sampled_at = 0.0
        self._workers_complete_since: float | None = None

    def run(self, blows: list[Blow], seconds: float, enough: threading.Event) -> None:
        """Until `seconds` have passed and every part is back, or `enough` is set."""
        began = time.monotonic()
        waiting = list(blows)
        while not enough.is_set():
            now = time.monotonic()
            up = self._look(now)
            due = now >= began + waiting[0].at if waiting else now >= began + seconds
            if not due or self._busy():
                pass
            elif not waiting:
                if set(up) == self._parts:
                    return
            elif waiting[0].is_operation:
                if set(up) == self._parts and self._settled(now):
                    self._operate(waiting.pop(0))
            elif self._deal(waiting[0], up, now):
                waiting.pop(0)
            if now > began + seconds + BACK_DEADLINE_SECONDS:
                break  # the judge sees what was not dealt, and who did not come back
            next_blow = began + waiting[0].at if waiting else now + LOOK_SECONDS
            enough.wait(min(LOOK_SECONDS, max(0.02, next_blow - time.monotonic())))
        self.undealt = waiting
        if self._operating is not None:
            self._operating.join(OPERATION_SECONDS)

    def rest(self, closed: Callable[[list[Sample]], bool], enough: threading.Event) -> None:
        """After the load: goes on looking until what was connected is `closed` or `enough` is set, ten seconds at most.

        Each look is a connection of its own to the supervisor, which may have it still open when its descriptors are counted.
        """
        until = time.monotonic() + REST_SECONDS
        while not enough.is_set() and not closed(self.samples) and time.monotonic() < until:
            self._look(time.monotonic())
            enough.wait(LOOK_SECONDS)

    def _busy(self) -> bool:
        return self._operating is not None and self._operating.is_alive()

    def _settled(self, now: float) -> bool:
        """Whether all workers have been there for long enough that no request of a dead one is still the first in line."""
        return self._workers_complete_since is not None and now - self._workers_complete_since >= APART_SECONDS

    def _deal(self, blow: Blow, up: dict[str, int], now: float) -> bool:
        """A blow that is due: to its part, or while that is away to another of its kind. False if it has to wait."""
        kind = "worker" if blow.part == EVERY_WORKER else kind_of(blow.part)
        those = sorted(part for part in up if kind_of(part) == kind)
        if not those or (kind == "worker" and not self._settled(now)):
            return False
        struck = those if blow.part == EVERY_WORKER else [blow.part if blow.part in up else those[0]]
        for part in struck:
            death = Death(blow, part, up[part], time.monotonic())
            death.shrugged_off = blow.how == "SIGTERM" and kind != "worker"
            self.deaths.append(death)
            os.kill(up[part], signal.Signals[blow.how])
        return True

    def _operate(self, blow: Blow) -> None:
        self._operating = threading.Thread(target=self._command, args=(blow,), daemon=True)
        self._operating.start()

    def _command(self, blow: Blow) -> None:
        began = time.monotonic()
        commands = {
            "restart --all": [["restart", "--all"]],
            "drain and resume": [["drain", blow.part], ["resume", blow.part]],
        }
        if blow.how == "reload":
            self._layouts.append(self._layouts.pop(0))
            commands["reload"] = [["reload", "--layout", str(self._layouts[0])]]
        code, said = 0, ""
        for words in commands.get(blow.how, [["restart", blow.part]]):
            done = subprocess.run(
                [sys.executable, "-m", "orchestrator.cli.main", *words, "--runtime-dir", str(self._system.runtime)],
                capture_output=True, text=True, timeout=OPERATION_SECONDS, check=False,
            )  # fmt: skip
            code, said = code or done.returncode, f"{said}{done.stdout}{done.stderr}"
        self.operations.append(Operation(blow, time.monotonic() - began, code, said))

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
            quiet = (
                set(up) == self._parts
                and not self._busy()
                and all(death.shrugged_off or death.back_at for death in self.deaths)
            )
            connections = {one.name: one.connections for one in status.gateways}
            for part, pid in {"supervisor": status.pid, **up}.items():
                self._sample(now, part, pid, quiet, connections.get(part, 0))
        # A dead part's process is known by its old pid until it is replaced: only those that are not struck are up.
        struck = {death.part for death in self.deaths if death.back_at is None and not death.shrugged_off}
        alive = {part: pid for part, pid in up.items() if part not in struck}
        if {part for part in alive if kind_of(part) == "worker"} != {
            part for part in self._parts if kind_of(part) == "worker"
        }:
            self._workers_complete_since = None
        elif self._workers_complete_since is None:
            self._workers_complete_since = now
        return alive

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
