"""What is each part doing, as it last said itself or as the kernel shows it? Feeds the Status document."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import psutil

from orchestrator import __version__
from orchestrator.history import History, Step
from orchestrator.plan.model import Plan
from orchestrator.status import EVENTS_SHOWN, Event, GatewayStatus, ModelStatus, RouterReport, RouterStatus, Status
from orchestrator.supervisor import report
from orchestrator.supervisor.core import Changed, Child
from orchestrator.supervisor.deployment import LeftOut
from orchestrator.supervisor.oom import Witness
from orchestrator.supervisor.past import Past
from orchestrator.supervisor.states import State
from orchestrator.supervisor.verify import VanishedError, verify
from topology.model import Machine
from workers.spec import Binding, Ready, Stats

_Part = TypeVar("_Part", RouterStatus, GatewayStatus)

ROUTER = "router"
RATE_WINDOW_SECONDS = 10.0
"""The window of the router's rates and quantiles."""


class Observer:
    def __init__(
        self,
        children: dict[str, Child],
        plan: Plan,
        machine: Machine,
        model: ModelStatus,
        endpoint: str,
        warnings: tuple[str, ...],
    ) -> None:
        self._children = children
        self._plan = plan
        self._planned = {str(instance.name): instance for instance in plan.instances}
        self._where = machine
        self._machine = report.machine_status(machine, plan)
        self._model = model
        self._endpoint = endpoint
        self._warnings = warnings
        self._started = time.monotonic()
        self._seen: dict[str, report.Observed] = {}
        self._bindings: dict[str, Binding] = {}
        self._witnesses: dict[str, Witness] = {}
        self._left_out: tuple[LeftOut, ...] = ()
        self._totals = report.Totals()
        self._router = RouterStatus(State.INITIAL.value)
        self._gateways: dict[str, GatewayStatus] = {}
        self._past = Past()
        self.router_alive_at = 0.0
        """When the router last said anything, monotonic."""

    def add(self, name: str) -> None:
        """There is a child of this name from now on."""
        self._seen[name] = report.Observed()

    def remove(self, name: str) -> None:
        """It is no more."""
        del self._seen[name]
        for known in (self._bindings, self._gateways, self._witnesses):
            known.pop(name, None)
        if name not in {instance.name for instance in self._plan.instances}:
            self._planned.pop(name, None)

    def rename(self, old: str, new: str) -> None:
        """A child is called otherwise from now on."""
        for known in (self._seen, self._bindings, self._gateways, self._witnesses):
            if old in known:
                known[new] = known.pop(old)  # type: ignore[assignment]

    def configure(
        self,
        plan: Plan,
        model: ModelStatus | None,
        warnings: tuple[str, ...] | None,
        left_out: tuple[LeftOut, ...] | None = None,
    ) -> None:
        """What is planned from now on. An instance that is no longer planned is shown for as long as it is there."""
        self._left_out = self._left_out if left_out is None else left_out
        planned = {str(instance.name): instance for instance in plan.instances}
        staying = {name: one for name, one in self._planned.items() if name in self._seen and name not in planned}
        self._plan = plan
        self._planned = {**planned, **staying}
        self._machine = report.machine_status(self._where, plan)
        self._model = model or self._model
        self._warnings = self._warnings if warnings is None else warnings

    def of(self, name: str) -> report.Observed:
        return self._seen[name]

    def spawned(self, name: str, pid: int) -> None:
        self._seen[name].pid = pid
        self._witnesses[name] = Witness(pid, time.monotonic())

    def ready(self, child: Child, message: Ready, now: float) -> None:
        """It has just said ready: where is it really?"""
        self._seen[child.name].ready_seconds = round(message.seconds, 3)
        if message.binding is not None:
            self._bindings[child.name] = message.binding
            self.verify(child.name)
        if child.kind == "router":
            self.router_alive_at = now

    def why_killed(self, name: str) -> str | None:
        """What the kernel's counts say of a process that was killed, and not by us."""
        witness = self._witnesses.get(name)
        return None if witness is None else witness.testimony(time.monotonic())

    def gone(self, child: Child) -> None:
        seen = self._seen[child.name]
        seen.pid = seen.verified = seen.rss_bytes = seen.cpu_seconds = None
        if child.name == ROUTER:
            self._totals.router_gone()
        elif child.kind == "gateway":
            self._gateways.pop(child.name, None)

    def statistics(self, child: Child, message: Stats, now: float) -> None:
        """Takes over what a router or gateway reports. msgspec.DecodeError if it is not what it should be."""
        if child.kind == "router":
            self.router_alive_at = now
            if child.name != ROUTER:
                return
            body = msgspec.json.decode(message.body, type=RouterReport)
            self._router = body.router
            self._totals.update(body)
            self.router_alive_at = now
        elif child.kind == "gateway":
            self._gateways[child.name] = msgspec.json.decode(message.body, type=GatewayStatus)

    def changed(self, child: Child, change: Changed) -> None:
        """A child is in another state."""
        self._past.happened(
            Event(
                self._uptime,
                child.name,
                child.kind,
                child.incarnation,
                str(change.before),
                str(change.after),
                change.why,
            )
        )

    def remember(self, status: Status) -> None:
        """A document that was published."""
        self._past.record(status)

    def history(self, step: Step, seconds: float) -> History:
        """How it was in the last `seconds`, as far back as is known."""
        return self._past.document(
            step, seconds, version=__version__, pid=os.getpid(), time_unix=time.time(), uptime_seconds=self._uptime
        )

    @property
    def _uptime(self) -> float:
        return time.monotonic() - self._started

    def measure(self) -> None:
        """Reads resident memory and CPU time of every process, and the count of those that memory was too short for."""
        for name, seen in self._seen.items():
            if seen.pid is None:
                continue
            if (witness := self._witnesses.get(name)) is not None:
                witness.look(time.monotonic())
            try:
                process = psutil.Process(seen.pid)
                seen.rss_bytes = process.memory_info().rss
                times = process.cpu_times()
                seen.cpu_seconds = times.user + times.system
            except psutil.Error:
                seen.rss_bytes = seen.cpu_seconds = None  # it is just dying; its exit follows

    def held_bytes(self, name: str, above: int) -> int | None:
        """This process's share of memory (PSS: what it shares is divided among those who share it), where its RSS is above this.

        PSS takes the kernel a walk over all pages, and it is never more than RSS: below, RSS answers.
        """
        seen = self._seen[name]
        if seen.pid is None or seen.rss_bytes is None or seen.rss_bytes <= above:
            return seen.rss_bytes
        try:
            rollup = Path(f"/proc/{seen.pid}/smaps_rollup").read_text()
            return next(int(line.split()[1]) << 10 for line in rollup.splitlines() if line.startswith("Pss:"))
        except (OSError, StopIteration):  # before Linux 4.14, or it has just ended
            return seen.rss_bytes

    def verify(self, name: str) -> str | None:
        """Reads one worker back from the kernel; what to tell the operator if it has newly left its place."""
        seen, binding, planned = self._seen[name], self._bindings.get(name), self._planned.get(name)
        if seen.pid is None or binding is None or planned is None:
            return None
        before = seen.verified
        try:
            seen.verified = verify(
                seen.pid,
                planned.cpus,
                planned.membind,
                binding.notes,
                allocator=planned.allocator,
                huge_pages=planned.huge_pages,
            )
        except VanishedError:
            seen.verified = None
            return None
        if seen.verified.matches_plan or (before is not None and not before.matches_plan):
            return None
        return f"instance={name} is not where it was planned: {'; '.join(seen.verified.notes)}"

    @property
    def _the_router(self) -> Child | None:
        """The one that the gateways speak to; there may be two while one model takes another one's place."""
        routers = [child for child in self._children.values() if child.kind == "router"]
        return self._children.get(ROUTER) or (routers[0] if routers else None)

    def status(self, *, draining: bool, ever_served: bool, troubles: Sequence[str] = (), changing: str = "") -> Status:
        """`troubles`: what else an operator must see."""
        gateways, workers = (
            [child for child in self._children.values() if child.kind == kind] for kind in ("gateway", "worker")
        )
        router = self._the_router
        failed = [State.FAILED for one in self._left_out if one.instance.name not in self._planned]
        state = report.overall_state(
            draining=draining,
            router=State.INITIAL if router is None else router.state,
            gateways=[child.state for child in gateways],
            instances=[*(child.state for child in workers), *failed],
            ever_served=ever_served,
        )
        return report.status(
            state=state,
            now_unix=time.time(),
            uptime=self._uptime,
            window=RATE_WINDOW_SECONDS,
            pid=os.getpid(),
            endpoint=self._endpoint,
            plan=self._plan,
            model=self._model,
            router=self._router if router is None else self._with_process(router, self._router),
            gateways=[
                self._with_process(
                    child, self._gateways.get(child.name) or GatewayStatus(child.name, child.state.value)
                )
                for child in gateways
            ],
            instances=[
                report.instance_status(
                    planned,
                    self._children.get(name),
                    self._seen.get(name) or report.Observed(),
                    self._totals.of(name),
                )
                for name, planned in self._planned.items()
            ]
            + [
                report.left_out_status(one, self._totals.of(one.instance.name))
                for one in self._left_out
                if one.instance.name not in self._planned
            ],
            machine=self._machine,
            warnings=[*self._warnings, *self._plan.warnings, *self._troubles(), *troubles],
            changing=changing,
            events=self._past.latest_events(EVENTS_SHOWN),
        )

    def _with_process(self, child: Child, said: _Part) -> _Part:
        """What it said of itself, with what the supervisor knows of its process."""
        seen = self._seen[child.name]
        return msgspec.structs.replace(
            said,
            state=child.state.value,
            pid=seen.pid,
            restarts=child.restarts,
            rss_bytes=seen.rss_bytes,
            cpu_seconds=seen.cpu_seconds,
        )

    def _troubles(self) -> list[str]:
        """What an operator must see first."""
        troubles = [
            f"{one.instance.name} failed and is left out of the plan: {one.why}; `orchestrator restart {one.instance.name}` "
            "or `orchestrator reload` brings it back"
            for one in self._left_out
        ]
        for name, child in self._children.items():
            if child.state in (State.FAILED, State.BACKOFF):
                troubles.append(f"{name} is in {child.state}: {child.last_error}")
            elif child.state is State.STARTING and child.failures:
                troubles.append(f"{name} is starting again, after {child.failures} failures: {child.last_error}")
            verified = self._seen[name].verified
            if verified is not None and not verified.matches_plan:
                troubles.append(f"{name} is not where it was planned: {'; '.join(verified.notes)}")
        return troubles
