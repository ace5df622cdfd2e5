"""What can an operator ask of the running supervisor, and what is he told? The requests of the control socket."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any

import msgspec

from orchestrator.history import LONGEST_SECONDS, Step
from orchestrator.status import Status
from orchestrator.supervisor.control import Answer, Caller, Request
from orchestrator.supervisor.core import Child, Kind
from orchestrator.supervisor.operations import OperationError, Operations, UnknownNameError

FAILED = 1
USAGE = 2
LONGEST_WAIT_SECONDS = 86_400.0

Handler = Callable[[Request, Caller], Awaitable[Answer]]

PARTS: tuple[Kind, ...] = ("worker", "router", "gateway")


class Asked(msgspec.Struct, frozen=True):
    """Arguments of the operations on one part."""

    name: str | None = None
    all: bool = False
    timeout: float | None = None
    """Seconds for each part; None: as long as the supervisor's own deadlines take."""


class AskedPast(msgspec.Struct, frozen=True):
    """Arguments of `history`."""

    step: Step = 2
    seconds: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_SECONDS)] = LONGEST_SECONDS
    """How far back."""


class Outcome(msgspec.Struct, frozen=True):
    """What has become of one part."""

    name: str
    state: str
    pid: int | None
    incarnation: int
    seconds: float
    """From the request until it was there."""
    ready_seconds: float | None
    """What its last start took, as it said itself."""

    def in_words(self) -> str:
        return f"{self.name} {self.state} after {self.seconds:.1f} s, pid {self.pid or '-'}, incarnation {self.incarnation}"


class Requests:
    """`handlers` is open: whoever builds the supervisor may add requests of his own."""

    def __init__(
        self, operations: Operations, status: Callable[[], Status], ask_to_end: Callable[[bool], None]
    ) -> None:
        self._operations = operations
        self._status = status
        self._ask_to_end = ask_to_end
        self.handlers: dict[str, Handler] = {
            "status": self._say_status,
            "history": self._say_history,
            "down": self._down,
            "restart": self._restart,
            "drain": self._drain,
            "resume": self._resume,
        }

    async def handle(self, request: Request, caller: Caller) -> Answer:
        handler = self.handlers.get(request.command)
        if handler is None:
            return Answer(
                False, f"unknown request {request.command!r}; known are {', '.join(self.handlers)}", exit_code=USAGE
            )
        try:
            return await handler(request, caller)
        except msgspec.ValidationError as error:
            return Answer(False, f"{request.command}: {error}", exit_code=USAGE)
        except UnknownNameError as error:
            return Answer(False, str(error), exit_code=USAGE)
        except OperationError as error:
            return Answer(False, str(error), exit_code=FAILED)

    async def _say_status(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002 - the shape of a handler
        self._operations.runner.observer.measure()
        return _body(self._status())

    async def _say_history(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002 - the shape of a handler
        asked = msgspec.convert(request.arguments, AskedPast)
        return _body(self._operations.runner.observer.history(asked.step, asked.seconds))

    async def _down(self, request: Request, caller: Caller) -> Answer:  # noqa: ARG002 - the shape of a handler
        self._ask_to_end(bool(request.arguments.get("now")))
        return _body({"pid": os.getpid()})

    async def _restart(self, request: Request, caller: Caller) -> Answer:
        asked = _asked(request)
        if asked.all:
            return await self._restart_all(asked, caller)
        name = self._operations.find(asked.name or "", PARTS).name
        with self._operations.claim([name], f"restart {name}", caller.who):
            caller.tell(f"restarting {name}")
            since = time.monotonic()
            child = await self._operations.restart(name, asked.timeout)
            return _body([self._outcome(child, since)])

    async def _restart_all(self, asked: Asked, caller: Caller) -> Answer:
        """One instance after another, the next only when the last is ready: at every moment all but one serve."""
        operations = self._operations
        names = [child.name for child in operations.runner.of("worker")]
        outcomes: list[Outcome] = []
        with operations.claim(names, "restart --all", caller.who):
            caller.tell(f"restarting {', '.join(names)}, one after another")
            for name in names:
                since = time.monotonic()
                try:
                    child = await operations.restart(name, asked.timeout, why="rolling restart")
                except OperationError as error:
                    left = names[names.index(name) + 1 :]
                    raise OperationError(
                        f"{error}\nthe rolling restart stopped there: {len(outcomes)} of {len(names)} restarted"
                        + (f", untouched are {', '.join(left)}" if left else "")
                    ) from None
                outcomes.append(self._outcome(child, since))
                caller.tell(outcomes[-1].in_words())
        return _body(outcomes)

    async def _drain(self, request: Request, caller: Caller) -> Answer:
        asked = _asked(request)
        name = self._operations.find(asked.name or "", ("worker",)).name
        with self._operations.claim([name], f"drain {name}", caller.who):
            caller.tell(f"draining {name}")
            since = time.monotonic()
            return _body([self._outcome(await self._operations.drain(name, asked.timeout), since)])

    async def _resume(self, request: Request, caller: Caller) -> Answer:
        asked = _asked(request)
        name = self._operations.find(asked.name or "", ("worker",)).name
        with self._operations.claim([name], f"resume {name}", caller.who):
            caller.tell(f"resuming {name}")
            since = time.monotonic()
            return _body([self._outcome(await self._operations.resume(name, asked.timeout), since)])

    def outcomes(self, names: Iterable[str], since: float) -> Answer:
        """What has become of these parts, asked for at `since` (monotonic)."""
        return _body([self._outcome(self._operations.find(name, PARTS), since) for name in names])

    def _outcome(self, child: Child, since: float) -> Outcome:
        seen = self._operations.runner.observer.of(child.name)
        took = round(time.monotonic() - since, 3)
        return Outcome(child.name, child.state.value, seen.pid, child.incarnation, took, seen.ready_seconds)


def _asked(request: Request) -> Asked:
    asked = msgspec.convert(request.arguments, Asked)
    if asked.timeout is not None and not 0 < asked.timeout <= LONGEST_WAIT_SECONDS:
        raise msgspec.ValidationError(f"timeout {asked.timeout:g}: expected seconds, at most {LONGEST_WAIT_SECONDS:g}")
    if asked.all == (asked.name is not None):
        raise msgspec.ValidationError("name one part, or all")
    return asked


def _body(value: Any) -> Answer:
    return Answer(True, body=msgspec.Raw(msgspec.json.encode(value)))
