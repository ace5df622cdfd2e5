"""Who performs what the core of each child decides? The parent of all processes, on asyncio.

Theory of operation. Every child has a core (`core.Child`) and, while it runs, a `Process`. What happens to a process becomes a
stimulus to its core at once; `tick`, ten times a second, turns deadlines that have passed into stimuli. Children come and go:
`add`, `amend` and `forget` change who they are, `operations.py` in which order. Of an instance that is to get no work the router is told
(Hold), and told again whenever it is a new router; that the instance holds nothing any more, the router says (Held).
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import time
from collections import deque
from collections.abc import Iterator
from itertools import count

import msgspec

from orchestrator.history import LONGEST_SECONDS
from orchestrator.logs.journal import Journal, Speaker
from orchestrator.status import Status, Verified
from orchestrator.supervisor.core import (
    Action,
    Changed,
    Child,
    Kill,
    Kind,
    SendDrain,
    SendResume,
    SendStop,
    Spawn,
    TellLost,
)
from orchestrator.supervisor.deployment import ChildPlan, Deployment
from orchestrator.supervisor.observe import Observer
from orchestrator.supervisor.process import Process
from orchestrator.supervisor.pulse import Pulse
from orchestrator.supervisor.states import AT_REST, State
from workers.said import Level
from workers.spec import (
    Beat,
    Configure,
    Drain,
    Drained,
    Fatal,
    FromChild,
    Held,
    Hold,
    Lost,
    Ready,
    Recall,
    Recalled,
    Release,
    Start,
    Stats,
    Stop,
    ToChild,
)
from workers.spec import State as StateMessage

_LEVELS: dict[State, Level] = {State.FAILED: "error", State.BACKOFF: "warning", State.KILLING: "warning"}
"""Of the line that tells of a state."""

AWAY_SECONDS = 1.0
"""A tick is due every tenth of a second. One that comes this much later means that the supervisor itself stood still."""


class Runner:
    def __init__(self, deployment: Deployment, rng: random.Random, log: Journal) -> None:
        self.what = deployment
        self.log = log
        self.children: dict[str, Child] = {}
        self.ending = False
        """Nobody comes after those that are drained now."""
        self.changed = Pulse()
        """Something happened to a child."""
        self.publish_soon = asyncio.Event()
        """Everybody should hear of it."""
        self.observer = Observer(
            self.children,
            deployment.plan,
            deployment.machine,
            deployment.model,
            deployment.endpoint,
            deployment.warnings,
        )
        self._rng = rng
        self._plans: dict[str, ChildPlan] = {}
        self._running: dict[str, Process] = {}
        self._ticked_at: float | None = None
        self._waiting: deque[str] = deque()
        """Children that are to start as soon as they may, in order."""
        self._numbers: dict[str, Iterator[int]] = {}
        """Of incarnations, by role, over all children that come and go."""
        self._new_plans: dict[str, Configure] = {}
        """What a router must be told after its specification, which is that of the start."""
        for child in deployment.children:
            self.add(child)

    # ---- who the children are

    def add(self, plan: ChildPlan) -> Child:
        """A new child, which `start` starts. KeyError if one of this name exists."""
        if plan.name in self.children:
            raise KeyError(f"there is a child {plan.name} already; amend or forget it first")
        child = Child(
            plan.name,
            plan.kind,
            self.what.timing,
            random.Random(self._rng.random()),
            flapping=self.what.flapping if plan.kind == "worker" else None,
            numbers=self._numbers.setdefault(plan.called, count(1)),
        )
        self._plans[plan.name] = plan
        self.children[plan.name] = child
        self.observer.add(plan.name)
        return child

    def amend(self, plan: ChildPlan) -> None:
        """From its next incarnation on, this child starts so."""
        if plan.kind != self.children[plan.name].kind:
            raise ValueError(f"{plan.name} is a {self.children[plan.name].kind}, not a {plan.kind}")
        self._plans[plan.name] = plan

    def forget(self, name: str) -> None:
        """A child that is at rest is no more."""
        child = self.children[name]
        if child.state not in (*AT_REST, State.INITIAL):
            raise ValueError(f"{name} is {child.state}: it must be at rest before it is forgotten")
        self._to_router(child, Release(self._plans[name].called))
        del self.children[name], self._plans[name]
        self._running.pop(name, None)
        self._new_plans.pop(name, None)
        self.observer.remove(name)
        self.changed.beat()

    def rename(self, old: str, new: str) -> None:
        """A child takes over a name that is free; its process does not notice."""
        if new in self.children:
            raise KeyError(f"there is a child {new} already; forget it first")
        child = self.children.pop(old)
        child.name = new
        self.children[new] = child
        plan = dataclasses.replace(self._plans.pop(old), name=new)
        self._plans[new] = dataclasses.replace(plan, role="") if plan.role == new else plan
        for known in (self._running, self._new_plans):
            if old in known:
                known[new] = known.pop(old)  # type: ignore[assignment]
        if child.kind == "router":
            for name, one in self._plans.items():
                if one.router == old:
                    self._plans[name] = dataclasses.replace(one, router=new)
        self.observer.rename(old, new)
        self.changed.beat()

    def adopt(self, deployment: Deployment) -> None:
        """Deadlines and limits of another deployment; its children come by `add` and `amend`."""
        self.what = deployment
        for child in self.children.values():
            child.timing = deployment.timing
            child.flapping = deployment.flapping if child.kind == "worker" else None

    def configure(self, router: str, message: Configure) -> None:
        """This router gets a changed plan, now and whenever it starts."""
        self._new_plans[router] = message
        self.send(router, message)

    def of(self, *kinds: Kind) -> list[Child]:
        return [child for child in self.children.values() if child.kind in kinds]

    # ---- stimuli and actions

    def start(self, child: Child) -> None:
        """Starts it as soon as not too many are starting already."""
        self._waiting.append(child.name)
        self._start_waiting(time.monotonic())

    def _start_waiting(self, now: float) -> None:
        while self._waiting and self._may_start():
            child = self.children.get(self._waiting.popleft())
            if child is not None and child.state is State.INITIAL and child.wanted == "run":
                self.perform(child, child.start(now))

    def _may_start(self) -> bool:
        return sum(child.state is State.STARTING for child in self.children.values()) < self.what.parallel_starts

    def perform(self, child: Child, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(incarnation):
                    self._spawn(child, incarnation)
                case SendStop():
                    self.send(child.name, Stop())
                case SendDrain():
                    if child.kind == "worker":
                        self._to_router(child, Hold(self._plans[child.name].called))
                    else:
                        # Unless we are the last, somebody else accepts what comes after it.
                        self.send(child.name, Drain(handover=not self.ending or self.what.listening.kept))
                case SendResume():
                    if child.kind == "worker":
                        self._to_router(child, Release(self._plans[child.name].called))
                case Kill():
                    process = self._running.get(child.name)
                    if process is not None:
                        process.kill()
                case TellLost(incarnation, from_outside):
                    if child.kind == "worker":
                        self._to_router(child, Lost(self._plans[child.name].called, incarnation, from_outside))
                case Changed():
                    self.observer.changed(child, action)
                    self._log_change(child, action)
        if actions:
            self.changed.beat()
            self.publish_soon.set()

    def send(self, name: str, message: ToChild) -> None:
        process = self._running.get(name)
        if process is not None:
            process.send(message)

    def _to_router(self, child: Child, message: ToChild) -> None:
        self.send(self._plans[child.name].router, message)

    def _spawn(self, child: Child, incarnation: int) -> None:
        plan = self._plans[child.name]
        process = Process(
            plan.called,
            child.kind,
            incarnation,
            on_message=lambda message: self._message(child, message),
            on_output=self.log.heard,
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
                limits=self.what.limits,
            )
        except OSError as error:
            why = f"cannot start a process: {error.strerror}"
            self.perform(child, child.spawn_failed(why, time.monotonic()))
            return
        self.observer.spawned(child.name, pid)
        if child.kind == "router":
            self._brief_router(child.name)

    def _brief_router(self, name: str) -> None:
        """What has changed since its specification was written: the plan, and who is to get no work."""
        if name in self._new_plans:
            self.send(name, self._new_plans[name])
        for child in self.of("worker"):
            plan = self._plans[child.name]
            if plan.router == name and (child.wanted == "drain" or child.state in (State.DRAINING, State.DRAINED)):
                self.send(name, Hold(plan.called))

    def _exited(self, child: Child, how: str) -> None:
        if how == "SIGKILL" and child.state is not State.KILLING and child.cause is None:
            child.cause = self.observer.why_killed(child.name)
        self.observer.gone(child)
        lines = " | ".join(list(self._running[child.name].tail)[-3:])
        self.perform(child, child.exited(how, time.monotonic(), lines))

    def _message(self, child: Child, message: FromChild) -> None:
        now = time.monotonic()
        match message:
            case Ready():
                self.observer.ready(child, message, now)
                self.perform(child, child.said_ready(now))
            case Beat():
                self.observer.of(child.name).engine_cpu_seconds = message.engine_cpu_seconds
                self.perform(child, child.beat(message.busy_seconds, now))
            case Fatal():
                self.perform(child, child.said_fatal(message.error, message.permanent))
            case Drained():
                self.perform(child, child.said_drained(now))
            case Held():
                for worker in self.of("worker"):
                    plan = self._plans[worker.name]
                    if plan.router == child.name and plan.called == message.name:
                        self.perform(worker, worker.said_drained(now))
            case Stats():
                self._stats(child, message, now)
            case Recall(step):
                past = self.observer.history(step, LONGEST_SECONDS)
                self.send(child.name, Recalled(step, msgspec.Raw(msgspec.json.encode(past))))

    def _stats(self, child: Child, message: Stats, now: float) -> None:
        try:
            self.observer.statistics(child, message, now)
        except msgspec.DecodeError as error:
            self.log(f"dropped malformed statistics of {child.name}: {error}", level="warning")
            return
        self.perform(child, child.beat(None, now))

    def _log_change(self, child: Child, change: Changed) -> None:
        seen = self.observer.of(child.name)
        what = f"instance={child.name}" if child.kind == "worker" else f"{child.kind}={child.name}"
        words = [f"{what} {change.before}->{change.after}"]
        if change.before is State.STARTING and change.after in (State.READY, State.DRAINED):
            words.append(f"after={seen.ready_seconds or 0:.1f}s pid={seen.pid}")
            words += [_where(seen.verified)] if seen.verified is not None else []
        elif change.after is State.BACKOFF:
            words.append(f"for={(child.deadline or 0) - time.monotonic():.1f}s why={change.why!r}")
        elif change.after not in (State.STARTING, State.STOPPED) or change.why != "asked":
            words.append(f"why={change.why!r}")
        process = self._running.get(child.name)
        speaker = Speaker(child.name, child.kind, child.incarnation, None) if process is None else process.speaker
        self.log.about(
            speaker,
            " ".join(words),
            level=_LEVELS.get(change.after, "info"),
            event="state",
            before=str(change.before),
            after=str(change.after),
            why=change.why,
        )
        if change.after is State.FAILED and child.kind == "worker":
            self.what.on_failed(child.name, child.last_error or change.why)

    # ---- time

    def tick(self) -> None:
        """What has become due. Processes that have ended are noticed here where the kernel has no pidfd."""
        now = time.monotonic()
        away = 0.0 if self._ticked_at is None else now - self._ticked_at
        self._ticked_at = now
        if away > AWAY_SECONDS:
            self.log(f"the supervisor was away for {away:.1f} s; no child is blamed for it", level="warning")
            for child in self.children.values():
                child.pardon(away)
        for name, child in list(self.children.items()):
            process = self._running.get(name)
            if process is not None:
                process.reap()
            self.perform(child, child.tick(now, self._may_start()))
        self._start_waiting(now)

    def verify(self) -> None:
        """Reads every worker back: threads may be born late, and somebody may use taskset."""
        for child in self.of("worker"):
            moved = self.observer.verify(child.name)
            if moved is not None:
                self.log(moved, level="warning")

    @property
    def alive(self) -> bool:
        """Whether any process is left."""
        return any(process.pid is not None for process in self._running.values())

    def last_words(self, name: str, lines: int = 8) -> list[str]:
        """The end of what the present or last incarnation printed."""
        process = self._running.get(name)
        return list(process.tail)[-lines:] if process is not None else []

    def publish(self, status: Status) -> None:
        """Tells every gateway how all are, and remembers it."""
        self.observer.remember(status)
        body = msgspec.Raw(msgspec.json.encode(status))
        for gateway in self.of("gateway"):
            self.send(gateway.name, StateMessage(body))


def _where(verified: Verified) -> str:
    cpus = ",".join(map(str, verified.cpus))
    nodes = ",".join(map(str, verified.membind))
    return f"cpus={cpus} memory={verified.policy}:{nodes} threads={verified.threads}"
