"""Who performs what the supervisor's core decides? The parent of all processes, on asyncio.

Theory of operation. The router starts first, then workers and gateways at once: each connects to the router by itself, so that
any of them can die and come back without the others. Every child has a core (`core.Child`) and, while it runs, a `Process`.
What happens to a process becomes a stimulus to its core at once; a tick ten times a second turns deadlines that have passed
into stimuli. The listening socket is the supervisor's own: connections wait in it while a gateway restarts. Draining goes with
the stream: gateways finish what they accepted, then the router what it queued, then workers are stopped.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.listening import Listening
from orchestrator.logs.journal import Journal, Speaker
from orchestrator.plan.model import Plan
from orchestrator.status import ModelStatus, Status, Verified
from orchestrator.supervisor import control
from orchestrator.supervisor.core import (
    Action,
    Changed,
    Child,
    Kill,
    Kind,
    SendDrain,
    SendStop,
    Spawn,
    TellLost,
    Timing,
)
from orchestrator.supervisor.observe import Observer
from orchestrator.supervisor.process import Process
from orchestrator.supervisor.sdnotify import Notifier
from orchestrator.supervisor.states import State
from topology.model import Machine
from workers.said import Level
from workers.spec import Beat, Configure, Drain, Drained, Fatal, FromChild, Lost, Ready, Start, Stats, Stop
from workers.spec import State as StateMessage

AT_REST = (State.STOPPED, State.FAILED)
TICK_SECONDS = 0.1
PUBLISH_SECONDS = 1.0
_LEVELS: dict[State, Level] = {State.FAILED: "error", State.BACKOFF: "warning", State.KILLING: "warning"}
"""Of the line that tells of a state."""
VERIFY_SECONDS = 15.0
"""How often a running worker is read back: threads may be born late, and somebody may use taskset."""


class StartError(Exception):
    """The start was given up: says which child, why, and its last output. `unworkable`: a restart cannot help."""

    def __init__(self, message: str, unworkable: bool) -> None:
        super().__init__(message)
        self.unworkable = unworkable


@dataclass(frozen=True)
class ChildPlan:
    """How one child is to be started, again and again."""

    name: str
    kind: Kind
    make_spec: Callable[[int], object]
    """From the incarnation (1, 2, …) to its specification."""
    threads: int = 1
    pass_fds: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its environment says otherwise than the supervisor's own."""


@dataclass(frozen=True)
class Deployment:
    """Everything that the supervisor runs, decided before it starts."""

    plan: Plan
    machine: Machine
    model: ModelStatus
    children: list[ChildPlan]
    listening: Listening
    endpoint: str
    control_socket: Path
    timing: Timing = field(default_factory=Timing)
    warnings: tuple[str, ...] = ()
    chore: Callable[[], None] = lambda: None
    """Something small that is due about once a second."""


class Supervisor:
    def __init__(self, deployment: Deployment, notifier: Notifier, rng: random.Random, log: Journal) -> None:
        self._what = deployment
        self._notifier = notifier
        self._log = log
        self._plans = {child.name: child for child in deployment.children}
        self._children = {
            child.name: Child(child.name, child.kind, deployment.timing, random.Random(rng.random()))
            for child in deployment.children
        }
        self._running: dict[str, Process] = {}
        self._observer = Observer(
            self._children,
            deployment.plan,
            deployment.machine,
            deployment.model,
            deployment.endpoint,
            deployment.warnings,
        )
        self._draining = False
        self._stop_now = asyncio.Event()
        self._drain_asked = asyncio.Event()
        self._changed = asyncio.Event()
        self._publish_soon = asyncio.Event()
        self._ever_served = False

    # ---- life

    async def run(self, on_ready: Callable[[Status], None]) -> None:
        """Starts everything, serves until asked to drain, drains, stops. StartError if the start has to be given up.

        `on_ready` is called once, when every child has become ready.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        server = await control.serve(self._what.control_socket, self._control)
        life = asyncio.create_task(self._live(on_ready))
        endless = [asyncio.create_task(self._ticking()), asyncio.create_task(self._publishing())]
        try:
            # The endless ones only end by a bug of ours: then everything stops in order and the error is shown.
            ended, _ = await asyncio.wait((life, *endless), return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            await self._stop_all()
            for task in (life, *endless):
                task.cancel()
            await asyncio.gather(life, *endless, return_exceptions=True)
            server.close()
            self._what.control_socket.unlink(missing_ok=True)
            self._what.listening.close()

    async def _live(self, on_ready: Callable[[Status], None]) -> None:
        await self._until_asked(on_ready)
        await self._wind_down()

    async def _until_asked(self, on_ready: Callable[[Status], None]) -> None:
        self._notifier.send(STATUS="starting")
        await self._start_kind("router")
        for child in self._of("worker", "gateway"):
            self._perform(child, child.start(time.monotonic()))
        await self._until(lambda: all(child.ever_ready for child in self._children.values()))
        if self._drain_asked.is_set():
            return
        self._ever_served = True
        status = self._publish()  # first the gateways: whoever is told that all is ready may ask them at once
        on_ready(status)
        self._notifier.send(READY="1", STATUS=_one_line(status))
        await self._drain_asked.wait()

    async def _start_kind(self, kind: Kind) -> None:
        for child in self._of(kind):
            self._perform(child, child.start(time.monotonic()))
        await self._until(lambda: all(child.ever_ready for child in self._of(kind)))

    async def _until(self, reached: Callable[[], bool]) -> None:
        """Waits for a state of the children; returns early if asked to drain, StartError if one has been abandoned."""
        while not reached() and not self._drain_asked.is_set():
            for child in self._children.values():
                if child.abandoned and not child.ever_ready:
                    raise StartError(self._why_abandoned(child), child.hopeless)
            self._changed.clear()
            await self._either(self._changed.wait(), self._drain_asked.wait())

    def _why_abandoned(self, child: Child) -> str:
        tries = f"after {child.failures} tries" if child.failures > 1 else "at its start"
        process = self._running.get(child.name)
        tail = list(process.tail)[-8:] if process is not None else []
        last = "".join(f"\n    {line}" for line in tail)
        return f"{child.kind} {child.name} failed {tries}: {child.last_error}" + (
            f"\n  its last output:{last}" if last else ""
        )

    async def _wind_down(self) -> None:
        """Answers all that was accepted, as long as the drain deadline allows."""
        self._draining = True
        self._notifier.send(STOPPING="1", STATUS="draining")
        self._log("draining: answering what was accepted; once more to stop at once")
        self._publish_soon.set()
        self._what.listening.close()
        stages: tuple[Kind, ...] = ("gateway", "router")
        for kind in stages:
            for child in self._of(kind):
                self._perform(child, child.drain(time.monotonic()))
            while not self._stop_now.is_set() and any(child.state not in AT_REST for child in self._of(kind)):
                self._changed.clear()
                await self._either(self._changed.wait(), self._stop_now.wait())

    async def _stop_all(self) -> None:
        order: tuple[Kind, ...] = ("gateway", "worker", "router")
        now = time.monotonic()
        for kind in order:
            for child in self._of(kind):
                actions = (
                    child.stop(now) if not self._stop_now.is_set() else [*child.stop(now), *child.kill(now, "asked")]
                )
                self._perform(child, actions)
        while any(process.pid is not None for process in self._running.values()):
            self._changed.clear()
            await self._either(self._changed.wait(), within=TICK_SECONDS)
            self._tick()

    def _signalled(self) -> None:
        if self._drain_asked.is_set():
            self._stop_now.set()
        self._drain_asked.set()

    @property
    def stopped_at_once(self) -> bool:
        """Whether a second signal cut the drain short."""
        return self._stop_now.is_set()

    # ---- stimuli and actions

    def _of(self, *kinds: Kind) -> list[Child]:
        return [child for child in self._children.values() if child.kind in kinds]

    def _perform(self, child: Child, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(incarnation):
                    self._spawn(child, incarnation)
                case SendStop():
                    self._send(child.name, Stop())
                case SendDrain():
                    # Unless we are the last, somebody else accepts what comes after it.
                    self._send(child.name, Drain(handover=not self._draining or self._what.listening.kept))
                case Kill():
                    process = self._running.get(child.name)
                    if process is not None:
                        process.kill()
                case TellLost(incarnation):
                    if child.kind == "worker":
                        for router in self._of("router"):
                            self._send(router.name, Lost(child.name, incarnation))
                case Changed():
                    self._log_change(child, action)
        if actions:
            self._changed.set()

    def _spawn(self, child: Child, incarnation: int) -> None:
        plan = self._plans[child.name]
        process = Process(
            child.name,
            child.kind,
            incarnation,
            on_message=lambda message: self._message(child, message),
            on_output=self._log.heard,
            on_exit=lambda how: self._exited(child, how),
        )
        spec = msgspec.Raw(msgspec.json.encode(plan.make_spec(incarnation)))
        self._running[child.name] = process
        try:
            pid = process.spawn(
                threads=plan.threads,
                pass_fds=plan.pass_fds,
                start=Start(os.getpid(), spec),
                environment=plan.environment,
            )
        except OSError as error:
            why = f"cannot start a process: {error.strerror}"
            self._perform(child, child.spawn_failed(why, time.monotonic()))
            return
        self._observer.spawned(child.name, pid)

    def _exited(self, child: Child, how: str) -> None:
        if how == "SIGKILL" and child.state is not State.KILLING and child.cause is None:
            child.cause = self._observer.why_killed(child.name)
        self._observer.gone(child)
        lines = " | ".join(list(self._running[child.name].tail)[-3:])
        self._perform(child, child.exited(how, time.monotonic(), lines))
        self._changed.set()
        self._publish_soon.set()

    def _message(self, child: Child, message: FromChild) -> None:
        now = time.monotonic()
        match message:
            case Ready():
                self._ready(child, message, now)
            case Beat():
                self._observer.of(child.name).engine_cpu_seconds = message.engine_cpu_seconds
                self._perform(child, child.beat(message.busy_seconds, now))
            case Fatal():
                self._perform(child, child.said_fatal(message.error, message.permanent))
            case Drained():
                self._perform(child, child.said_drained(now))
            case Stats():
                self._stats(child, message, now)

    def _ready(self, child: Child, message: Ready, now: float) -> None:
        self._observer.ready(child, message, now)
        self._perform(child, child.said_ready(now))
        self._publish_soon.set()

    def _stats(self, child: Child, message: Stats, now: float) -> None:
        try:
            self._observer.statistics(child, message, now)
        except msgspec.DecodeError as error:
            self._log(f"dropped malformed statistics of {child.name}: {error}", level="warning")
            return
        self._perform(child, child.beat(None, now))

    def _send(self, name: str, message: Stop | Drain | Lost | Configure | StateMessage) -> None:
        process = self._running.get(name)
        if process is not None:
            process.send(message)

    def _log_change(self, child: Child, change: Changed) -> None:
        seen = self._observer.of(child.name)
        what = f"instance={child.name}" if child.kind == "worker" else f"{child.kind}={child.name}"
        words = [f"{what} {change.before}->{change.after}"]
        if change.after is State.READY:
            words.append(f"after={seen.ready_seconds:.1f}s pid={seen.pid}")
            words += [_where(seen.verified)] if seen.verified is not None else []
        elif change.after is State.BACKOFF:
            words.append(f"for={(child.deadline or 0) - time.monotonic():.1f}s why={change.why!r}")
        elif change.after not in (State.STARTING, State.STOPPED) or change.why != "asked":
            words.append(f"why={change.why!r}")
        process = self._running.get(child.name)
        speaker = Speaker(child.name, child.kind, child.incarnation, None) if process is None else process.speaker
        self._log.about(
            speaker,
            " ".join(words),
            level=_LEVELS.get(change.after, "info"),
            event="state",
            before=str(change.before),
            after=str(change.after),
            why=change.why,
        )

    # ---- time

    async def _ticking(self) -> None:
        watchdog = self._notifier.watchdog_seconds
        verified_at = watched_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._tick()
            now = time.monotonic()
            if now - verified_at >= VERIFY_SECONDS:
                verified_at = now
                for child in self._of("worker"):
                    moved = self._observer.verify(child.name)
                    if moved is not None:
                        self._log(moved, level="warning")
            # Fed only while the router really answers: its statistics come from its one loop.
            answering = now - self._observer.router_alive_at < self._what.timing.beat
            if watchdog is not None and now - watched_at >= watchdog / 3 and (answering or not self._ever_served):
                watched_at = now
                self._notifier.send(WATCHDOG="1")

    def _tick(self) -> None:
        now = time.monotonic()
        for name, child in self._children.items():
            process = self._running.get(name)
            if process is not None:
                process.reap()
            self._perform(child, child.tick(now))

    async def _publishing(self) -> None:
        while True:
            await self._either(self._publish_soon.wait(), within=PUBLISH_SECONDS)
            self._publish_soon.clear()
            self._what.chore()
            self._publish()
            await asyncio.sleep(TICK_SECONDS)  # several changes at once make one document

    def _publish(self) -> Status:
        """Tells every gateway how all are."""
        self._observer.measure()
        status = self.status()
        body = msgspec.Raw(msgspec.json.encode(status))
        for gateway in self._of("gateway"):
            self._send(gateway.name, StateMessage(body))
        if self._ever_served:
            self._notifier.send(STATUS=_one_line(status))
        return status

    @staticmethod
    async def _either(*waits: Coroutine[Any, Any, Any], within: float | None = None) -> None:
        tasks = [asyncio.create_task(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    # ---- requests

    def status(self) -> Status:
        trouble = self._log.trouble
        return self._observer.status(
            draining=self._draining or self._drain_asked.is_set(),
            ever_served=self._ever_served,
            troubles=() if trouble is None else (trouble,),
        )

    async def _control(self, request: control.Request) -> control.Answer:
        match request.command:
            case "status":
                self._observer.measure()
                return control.Answer(True, body=msgspec.Raw(msgspec.json.encode(self.status())))
            case "down":
                if request.arguments.get("now"):
                    self._stop_now.set()
                self._drain_asked.set()
                return control.Answer(True, body=msgspec.Raw(msgspec.json.encode({"pid": os.getpid()})))
            case _:
                return control.Answer(False, f"unknown request {request.command!r}; known are status, down")


def _where(verified: Verified) -> str:
    cpus = ",".join(map(str, verified.cpus))
    nodes = ",".join(map(str, verified.membind))
    return f"cpus={cpus} memory={verified.policy}:{nodes} threads={verified.threads}"


def _one_line(status: Status) -> str:
    """For `systemctl status`."""
    ready = sum(instance.state == "ready" for instance in status.instances)
    rate = sum(instance.sequences_per_second for instance in status.instances)
    return (
        f"{status.state}: {ready} of {len(status.instances)} instances ready, {rate:.0f} sequences/s, {status.endpoint}"
    )
