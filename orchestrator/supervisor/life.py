"""How does the whole start, live and end? The supervisor's life, from the first process to the last.

Theory of operation. The router starts first, then workers and gateways: each connects to the router by itself, so that any of
them can die and come back without the others. The listening socket is the supervisor's own: connections wait in it while a
gateway restarts. Draining goes with the stream: gateways finish what they accepted, then the router what it queued, then workers
are stopped. Whatever is being done to an instance when the end is asked for is given up, and the instance may work until the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable

from orchestrator.logs.journal import Journal
from orchestrator.status import Status
from orchestrator.supervisor import control
from orchestrator.supervisor.core import Child, Kind
from orchestrator.supervisor.deployment import Deployment
from orchestrator.supervisor.operations import OperationError, Operations
from orchestrator.supervisor.recycle import Ceiling, Worker, due
from orchestrator.supervisor.requests import Requests
from orchestrator.supervisor.runner import Runner
from orchestrator.supervisor.sdnotify import Notifier
from orchestrator.supervisor.states import AT_REST

TICK_SECONDS = 0.1
PUBLISH_SECONDS = 1.0
RECYCLE_SECONDS = 1.0
VERIFY_SECONDS = 15.0
"""How often a running worker is read back."""


class StartError(Exception):
    """The start was given up: says which child, why, and its last output. `unworkable`: a restart cannot help."""

    def __init__(self, message: str, unworkable: bool) -> None:
        super().__init__(message)
        self.unworkable = unworkable


class Supervisor:
    def __init__(self, deployment: Deployment, notifier: Notifier, rng: random.Random, log: Journal) -> None:
        self._what = deployment
        self._notifier = notifier
        self._log = log
        self.runner = Runner(deployment, rng, log)
        self.operations = Operations(self.runner)
        self.requests = Requests(self.operations, self.status, self.ask_to_end)
        self._draining = False
        self._drain_asked = False
        self._stop_now = False
        self._ever_served = False
        self.on_hangup: Callable[[], None] | None = None
        """What SIGHUP asks for; None: nothing, and it is not heard."""

    @property
    def stopped_at_once(self) -> bool:
        """Whether a second signal cut the drain short."""
        return self._stop_now

    @property
    def ending(self) -> bool:
        """Whether it has been asked to end."""
        return self._drain_asked

    @property
    def ever_served(self) -> bool:
        """Whether everything has been ready once."""
        return self._ever_served

    def status(self) -> Status:
        trouble = self._log.trouble
        return self.runner.observer.status(
            draining=self._draining or self._drain_asked,
            ever_served=self._ever_served,
            troubles=() if trouble is None else (trouble,),
            changing="; ".join(dict.fromkeys(f"{one.what} ({one.who})" for one in self.operations.ongoing.values())),
        )

    def ask_to_end(self, now: bool = False) -> None:
        """Drain and stop; with `now`, or if it was asked for before by a signal, stop at once."""
        self._stop_now = self._stop_now or now
        self._drain_asked = True
        self.operations.give_up("the orchestrator is stopping")
        self.runner.changed.beat()

    # ---- life

    async def run(self, on_ready: Callable[[Status], None]) -> None:
        """Starts everything, serves until asked to drain, drains, stops. StartError if the start has to be given up.

        `on_ready` is called once, when every child has become ready.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: self.ask_to_end(now=self._drain_asked))
        if self.on_hangup is not None:
            loop.add_signal_handler(signal.SIGHUP, self.on_hangup)
        server = await control.serve(self._what.control_socket, self.requests.handle)
        life = asyncio.create_task(self._live(on_ready))
        endless = [asyncio.create_task(each) for each in (self._ticking(), self._publishing(), self._recycling())]
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
        await self._start(self.runner.of("router"))
        await self._start(self.runner.of("worker", "gateway"))
        if self._drain_asked:
            return
        self._ever_served = True
        status = self._publish()  # first the gateways: whoever is told that all is ready may ask them at once
        on_ready(status)
        self._notifier.send(READY="1", STATUS=_one_line(status))
        await self.runner.changed.until(lambda: self._drain_asked)

    async def _start(self, children: list[Child]) -> None:
        """Until all of them have been ready once, or the end is asked for; StartError if one has been abandoned."""
        for child in children:
            self.runner.start(child)

        def reached() -> bool:
            return (
                self._drain_asked
                or all(child.ever_ready for child in children)
                or any(child.abandoned and not child.ever_ready for child in self.runner.children.values())
            )

        await self.runner.changed.until(reached)
        for child in self.runner.children.values():
            if not self._drain_asked and child.abandoned and not child.ever_ready:
                raise StartError(self._why_abandoned(child), child.hopeless)

    def _why_abandoned(self, child: Child) -> str:
        tries = f"after {child.failures} tries" if child.failures > 1 else "at its start"
        last = "".join(f"\n    {line}" for line in self.runner.last_words(child.name))
        return f"{child.kind} {child.name} failed {tries}: {child.last_error}" + (
            f"\n  its last output:{last}" if last else ""
        )

    async def _wind_down(self) -> None:
        """Answers all that was accepted, as long as the drain deadline allows."""
        self._draining = True
        self._notifier.send(STOPPING="1", STATUS="draining")
        self._log("draining: answering what was accepted; once more to stop at once")
        self.runner.publish_soon.set()
        self.runner.ending = True
        self._what.listening.close()
        for worker in self.runner.of("worker"):  # what waits may need one that was drained
            self.runner.perform(worker, worker.resume(time.monotonic()))
        stages: tuple[Kind, ...] = ("gateway", "router")
        for kind in stages:
            for child in self.runner.of(kind):
                self.runner.perform(child, child.drain(time.monotonic()))
            await self.runner.changed.until(
                lambda kind=kind: (  # type: ignore[misc]
                    self._stop_now or all(child.state in AT_REST for child in self.runner.of(kind))
                )
            )

    async def _stop_all(self) -> None:
        order: tuple[Kind, ...] = ("gateway", "worker", "router")
        now = time.monotonic()
        for kind in order:
            for child in self.runner.of(kind):
                actions = child.stop(now)
                if self._stop_now:
                    actions += child.kill(now, "asked")
                self.runner.perform(child, actions)
        while self.runner.alive:
            await self.runner.changed.next(TICK_SECONDS)
            self.runner.tick()

    # ---- time

    async def _ticking(self) -> None:
        watchdog = self._notifier.watchdog_seconds
        verified_at = watched_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.runner.tick()
            now = time.monotonic()
            if now - verified_at >= VERIFY_SECONDS:
                verified_at = now
                self.runner.verify()
            # Fed only while the router really answers: its statistics come from its one loop.
            answering = now - self.runner.observer.router_alive_at < self._what.timing.beat
            if watchdog is not None and now - watched_at >= watchdog / 3 and (answering or not self._ever_served):
                watched_at = now
                self._notifier.send(WATCHDOG="1")

    async def _publishing(self) -> None:
        while True:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the event, and nothing ends any more.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await self.runner.publish_soon.wait()
            self.runner.publish_soon.clear()
            self._what.chore()
            self._publish()
            await asyncio.sleep(TICK_SECONDS)  # several changes at once make one document

    async def _recycling(self) -> None:
        """A worker that is too large or too old is replaced while all others serve, and nobody works on any of them."""
        while True:
            await asyncio.sleep(RECYCLE_SECONDS)
            found = self._due() if self._ever_served and not self._drain_asked else None
            if found is None:
                continue
            name, why = found
            try:
                with self.operations.claim([name], f"recycle {name}", "the supervisor"):
                    await self.operations.restart(name, why=why)
            except OperationError as error:
                self._log(f"{name} was to be replaced because it {why}: {error}", level="warning")

    def _due(self) -> tuple[str, str] | None:
        ceiling, workers = self.runner.what.ceiling, self.runner.of("worker")
        if ceiling == Ceiling() or self.operations.ongoing or not all(child.serving for child in workers):
            return None
        now = time.monotonic()
        return due(
            [
                Worker(
                    child.name,
                    child.incarnation,
                    now - (child.ready_at or now),
                    self.runner.observer.held_bytes(child.name, ceiling.most_bytes)
                    if ceiling.most_bytes is not None
                    else None,
                )
                for child in workers
            ],
            ceiling,
        )

    def _publish(self) -> Status:
        self.runner.observer.measure()
        status = self.status()
        self.runner.publish(status)
        if self._ever_served:
            self._notifier.send(STATUS=_one_line(status))
        return status


def _one_line(status: Status) -> str:
    """For `systemctl status`."""
    ready = sum(instance.state == "ready" for instance in status.instances)
    rate = sum(instance.sequences_per_second for instance in status.instances)
    return (
        f"{status.state}: {ready} of {len(status.instances)} instances ready, {rate:.0f} sequences/s, {status.endpoint}"
    )
