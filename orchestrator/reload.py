"""How does the running orchestrator take over a changed layout, or do without an instance that has failed for good?

Theory of operation. What would run is worked out in a process of its own (draft.py); meanwhile nothing changes. If it cannot work, or
changes what only a start can change, it is refused and nothing has changed. Else the CPUs that are new are claimed, and the stage
(supervisor/change.py) goes from what runs to what shall, step by step. If a step fails it goes back, and what was in force stays in force.
One change at a time; whoever asks is told each step. An instance that has failed for good is left out in the same way, after a while.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psutil

from orchestrator import draft as drafts
from orchestrator.assemble import AppError, Options
from orchestrator.claims import ClaimError, Claims
from orchestrator.deploy import deploy
from orchestrator.difference import ReloadReport, changed, report_of
from orchestrator.draft import Draft, Question
from orchestrator.listening import Listening
from orchestrator.logs.journal import Journal
from orchestrator.paths import point_front_to, remove_sockets
from orchestrator.supervisor.arrangement import Arrangement, arranged, first, same_world
from orchestrator.supervisor.change import Stage, in_words
from orchestrator.supervisor.control import Answer, Caller, Request
from orchestrator.supervisor.deployment import Deployment, LeftOut
from orchestrator.supervisor.life import Supervisor
from orchestrator.supervisor.oom import room_bytes
from orchestrator.supervisor.operations import BusyError, OperationError
from orchestrator.supervisor.sdnotify import Notifier
from orchestrator.supervisor.states import State

CLAIM = "the plan"
"""What a change claims besides the children, so that there is one at a time."""
ONLY_AT_START = ("host", "port", "cpu_latency_us", "logs.dir", "logs.format", "logs.max_mb", "logs.keep")
"""Options of the layout that a running orchestrator cannot change."""
UNWORKABLE = 78
MEMORY_SHARE = 0.7
"""So much of the memory that is free may new instances take while the old ones still live."""
ASK_AGAIN_SECONDS = 2.0

Tell = Callable[[str], None]


class ReloadAsked(msgspec.Struct, frozen=True):
    """Arguments of the request."""

    layout: str | None = None
    """Absolute path; None reads the one in force again."""
    dry_run: bool = False
    timeout: float | None = None
    """Seconds for the whole; afterwards it goes back."""


@dataclass(frozen=True)
class _InForce:
    options: Options
    draft: Draft
    arrangement: Arrangement
    left_out: tuple[LeftOut, ...] = ()


class Reloader:
    """Made before the supervisor, whose deployment it draws up; `attach` makes them known to each other."""

    def __init__(
        self, options: Options, draft: Draft, listening: Listening, claims: Claims, notifier: Notifier, journal: Journal
    ) -> None:
        self._listening = listening
        self._claims = claims
        self._notifier = notifier
        self._journal = journal
        self._worlds = count(1)
        self._editions = count(1_000_000)
        self.deployment = self._deployed(draft, options, 0, ())
        self._force = _InForce(options, draft, first(self.deployment))
        self._tasks: set[asyncio.Task[None]] = set()
        self._supervisor: Supervisor
        self._stage: Stage
        self._on_terminal = sys.stderr.isatty()

    def attach(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._stage = Stage(supervisor.operations, self._force.arrangement, self._worlds_changed)
        self._restart = supervisor.requests.handlers["restart"]
        supervisor.requests.handlers |= {"reload": self._asked, "restart": self._restart_or_bring_back}
        supervisor.on_hangup = self.hang_up

    # ---- who asks

    async def _asked(self, request: Request, caller: Caller) -> Answer:
        asked = msgspec.convert(request.arguments, ReloadAsked)
        caller.tell("working out what changes")
        options = self._force.options
        if asked.layout is not None:
            options = dataclasses.replace(options, layout=Path(asked.layout))
        try:
            report = await self._change(
                Question(options, os.getpid()),
                (),
                "reload",
                caller.who,
                caller.tell,
                dry_run=asked.dry_run,
                seconds=asked.timeout,
            )
        except AppError as error:
            return Answer(False, f"{error}\nnothing was changed", exit_code=UNWORKABLE if error.unworkable else 1)
        return Answer(True, body=msgspec.Raw(msgspec.json.encode(report)))

    async def _restart_or_bring_back(self, request: Request, caller: Caller) -> Answer:
        """`restart` of an instance that was left out brings it back."""
        name = request.arguments.get("name")
        gone = next((one for one in self._force.left_out if one.instance.name == name), None)
        if gone is None or name in self._supervisor.runner.children:
            return await self._restart(request, caller)
        caller.tell(f"{name} was left out of the plan; working out the plan with it")
        since = time.monotonic()
        left_out = tuple(one for one in self._force.left_out if one is not gone)
        try:
            await self._change(self._as_it_is(left_out), left_out, f"restart {name}", caller.who, caller.tell)
        except AppError as error:
            return Answer(False, f"{error}\nnothing was changed", exit_code=UNWORKABLE if error.unworkable else 1)
        return self._supervisor.requests.outcomes([str(name)], since)

    def hang_up(self) -> None:
        """SIGHUP: reload, or the terminal has gone in which this was started: then drain and stop."""
        if self._on_terminal and not sys.stderr.isatty():
            self._supervisor.ask_to_end()
            return
        self._spawn(self._reload_on_signal())

    async def _reload_on_signal(self) -> None:
        question = Question(self._force.options, os.getpid())
        try:
            report = await self._change(question, (), "reload", "SIGHUP", self._journal)
        except (AppError, OperationError) as error:
            if isinstance(error, BusyError) and not self._supervisor.ending:
                # Refused before it began: a manager of Type=notify-reload waits for a begin and an end after its own signal.
                self._say_reloading()
                self._notifier.send(READY="1")
            self._journal(f"reload failed: {error}", level="error", event="reload")
            return
        self._journal("reload: nothing to change" if report.is_empty else f"reload done in {report.seconds:.1f} s")

    def _say_reloading(self) -> None:
        """As sd_notify(3) wants it of Type=notify-reload: with the time."""
        self._notifier.send(RELOADING="1", MONOTONIC_USEC=str(time.monotonic_ns() // 1000))

    def failed(self, name: str, why: str) -> None:
        """An instance has failed for good. If nobody has helped it until the quarantine is over, the plan is made without it."""
        supervision = self._force.draft.layout.supervision
        if supervision.replan:
            self._spawn(self._do_without(name, why, supervision.quarantine_s))

    async def _do_without(self, name: str, why: str, quarantine: float) -> None:
        await asyncio.sleep(quarantine)
        children = self._supervisor.runner.children
        while name in children and children[name].state is State.FAILED:
            planned = {str(one.name): one for one in self.deployment.plan.instances}
            if name not in planned or len(planned) == 1:
                return
            left_out = (*self._force.left_out, LeftOut(planned[name], why))
            try:
                await self._change(
                    self._as_it_is(left_out), left_out, f"do without {name}", "supervisor", self._journal
                )
            except BusyError:
                if self._supervisor.ending:
                    return
                await asyncio.sleep(ASK_AGAIN_SECONDS)
                continue
            except (AppError, OperationError) as error:
                self._journal(f"the plan stays as it is, with {name} failed: {error}", level="error", event="replan")
                return
            self._journal(
                f"instance={name} is left out of the plan; `orchestrator restart {name}` or `reload` brings it back",
                event="replan",
            )

    def _spawn(self, what: Any) -> None:
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._journal(f"a change of the plan ended by a bug: {task.exception()!r}", level="error", event="reload")

    # ---- the change

    def _as_it_is(self, left_out: tuple[LeftOut, ...]) -> Question:
        """The layout in force, whatever its file says by now, without some instances."""
        force = self._force
        return Question(
            force.options,
            os.getpid(),
            layout=drafts.as_text(force.draft.layout),
            without=[one.instance.name for one in left_out],
        )

    async def _change(
        self,
        question: Question,
        left_out: tuple[LeftOut, ...],
        what: str,
        who: str,
        tell: Tell,
        *,
        dry_run: bool = False,
        seconds: float | None = None,
    ) -> ReloadReport:
        """AppError if it cannot work, OperationError if a step failed; both leave in force what was in force."""
        operations = self._supervisor.operations
        since = time.monotonic()
        if not self._supervisor.ever_served:
            raise BusyError(f"{what} is refused: the orchestrator is still starting")

        def say(line: str) -> None:
            tell(line)
            if tell is not self._journal:
                self._journal(f"{what}: {line}", event="reload")
            if not dry_run:
                self._notifier.send(STATUS=f"{what}: {line}", EXTEND_TIMEOUT_USEC=str(600 * 1_000_000))

        with operations.claim([CLAIM], what, who):
            if not dry_run:
                self._say_reloading()
            try:
                async with asyncio.timeout(seconds):
                    made = await drafts.ask(self._around_others(question), say)
                target, report = self._compared(question.options, made, left_out)
                if left_out and question.without and self._stage.interrupts(target, self._spare()):
                    # Nobody has asked for a pause: what serves goes on serving where it is.
                    question = msgspec.structs.replace(question, others_stay=True)
                    made = await drafts.ask(self._around_others(question), say)
                    target, report = self._compared(question.options, made, left_out)
                if dry_run:
                    return report
                until = None if seconds is None else since + seconds
                with operations.claim(self._stage.names, what, who):
                    await self._go(_InForce(question.options, made, target, left_out), until, say)
            except TimeoutError:
                raise OperationError(f"{what}: not worked out after {seconds:g} s; nothing was changed") from None
            finally:
                if not dry_run and not self._supervisor.ending:
                    self._notifier.send(READY="1")
        return msgspec.structs.replace(report, applied=True, dry_run=False, seconds=round(time.monotonic() - since, 3))

    async def _go(self, wanted: _InForce, until: float | None, say: Tell) -> None:
        before, target = self._force, wanted.arrangement
        shared = "overlap" in wanted.draft.layout.allow
        cpus = [] if shared else [cpu for instance in target.deployment.plan.instances for cpu in instance.cpus]
        try:
            self._claims.claim(cpus)
        except ClaimError as error:
            raise AppError(f"{error}; ask again for a plan around it") from None
        try:
            async with asyncio.timeout_at(until):  # the loop's clock is the monotonic one
                await self._stage.become(target, self._spare(), None, say)
        except (OperationError, TimeoutError) as error:
            why = str(error) or "not done within --timeout"
            if self._supervisor.ending:
                raise OperationError(why) from None
            await self._go_back(before.arrangement, why, say)
        else:
            self._force = wanted
            self.deployment = target.deployment
            self._claims.keep_only(cpus)

    async def _go_back(self, before: Arrangement, why: str, say: Tell) -> None:
        say(f"going back: {why}")
        try:
            await self._stage.become(before, self._spare(), None, say)
        except OperationError as error:
            raise OperationError(f"{why}\nand the way back failed as well: {error}\nwhat is ready serves") from None
        self._claims.keep_only({cpu for instance in before.deployment.plan.instances for cpu in instance.cpus})
        raise OperationError(f"{why}\nwhat was in force before is in force again")

    def _compared(
        self, options: Options, made: Draft, left_out: tuple[LeftOut, ...]
    ) -> tuple[Arrangement, ReloadReport]:
        """What is wanted, and what is different about it. AppError if only a start can change it."""
        force = self._force
        if different := changed(force.draft.layout, made.layout, ONLY_AT_START):
            raise AppError(
                f"a running orchestrator cannot change {', '.join(different)}; restart it (`orchestrator down`, then `up`), "
                "or take that out of the layout",
                unworkable=True,
            )
        now = force.arrangement
        world = now.world
        deployment = self._deployed(made, options, world, left_out)
        if not same_world(now.deployment, deployment):
            world = next(self._worlds)
            deployment = self._deployed(made, options, world, left_out)
        target = arranged(deployment, world, now, self._editions)
        steps = [in_words(step) for step in self._stage.steps(target, self._spare())]
        return target, report_of(now, target, force.draft.layout, made.layout, steps)

    def _deployed(self, made: Draft, options: Options, world: int, left_out: tuple[LeftOut, ...]) -> Deployment:
        deployment = deploy(made.prelude, made.layout, options, self._listening, self._claims, world)
        return dataclasses.replace(deployment, on_failed=self.failed, left_out=left_out)

    def _around_others(self, question: Question) -> Question:
        cpus = [cpu.cpu for cpu in self._force.draft.prelude.machine.cpus]
        return msgspec.structs.replace(question, taken=self._claims.taken(cpus))

    def _spare(self) -> int:
        """How many more instances than now fit into the memory that is free, judged by those that run."""
        largest = max(
            (
                self._supervisor.runner.observer.of(child.name).rss_bytes or 0
                for child in self._supervisor.runner.of("worker")
            ),
            default=0,
        )
        free = psutil.virtual_memory().available
        allowed = room_bytes(Path("/proc/self/cgroup").read_text()) if Path("/proc/self/cgroup").exists() else None
        free = free if allowed is None else min(free, allowed)
        return int(free * MEMORY_SHARE // largest) if largest else 0

    def _worlds_changed(self, world: int, all_worlds: frozenset[int]) -> None:
        """Clients of the router that start from now on find the one of this world under the usual name; no other sockets are left."""
        runtime = self._force.options.runtime
        remove_sockets(runtime, but=all_worlds)
        point_front_to(runtime, world)
