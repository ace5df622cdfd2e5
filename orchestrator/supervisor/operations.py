"""How is one part restarted, drained, replaced, added or taken away while the others serve? Each operation waits for its outcome.

Theory of operation. An operation gives a child's core its new intent and waits until the child is where it is wanted, or until that
has become pointless; the core's own deadlines see to every step. Nothing here loses a request: the router gives a withheld instance
nothing new, what it holds is answered, and only then it is stopped. Whoever works on a child claims it first (`claim`), so that two
operators do not pull one instance in two directions. When the whole is to end, every operation is given up.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import msgspec

from orchestrator.config.suggest import did_you_mean
from orchestrator.plan.model import Plan
from orchestrator.status import ModelStatus
from orchestrator.supervisor.core import ABANDONED_AFTER, Action, Child, Kind
from orchestrator.supervisor.deployment import ChildPlan
from orchestrator.supervisor.runner import Runner
from orchestrator.supervisor.states import State
from workers.spec import Configure

Say = Callable[[str], None]


class OperationError(Exception):
    """What was asked for did not come about: says what, why, and what is to be done."""


class UnknownNameError(OperationError):
    """There is no such instance or part."""


class BusyError(OperationError):
    """Somebody else is just doing something with it: says who, what and since when."""


@dataclass(frozen=True)
class Ongoing:
    """What is just being done, and by whom."""

    what: str
    who: str
    since: float
    """Monotonic."""


class Operations:
    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self._claims: dict[str, Ongoing] = {}
        self._end: str | None = None
        """Why everything is given up."""

    # ---- who works on what

    @contextlib.contextmanager
    def claim(self, names: Iterable[str], what: str, who: str) -> Iterator[None]:
        """These children are this operation's own meanwhile. BusyError if one of them is another's, or the whole is ending."""
        if self._end is not None:
            raise BusyError(f"{what} is refused: {self._end}")
        names = list(dict.fromkeys(names))
        for name in names:
            other = self._claims.get(name)
            if other is not None:
                raise BusyError(
                    f"{what} is refused: {other.who} has asked for `{other.what}` {time.monotonic() - other.since:.1f} s ago, "
                    f"and that is not done with {name} yet; wait for it and ask again"
                )
        ongoing = Ongoing(what, who, time.monotonic())
        self._claims.update(dict.fromkeys(names, ongoing))
        try:
            yield
        finally:
            for name in names:
                del self._claims[name]

    @property
    def ongoing(self) -> dict[str, Ongoing]:
        """By name, what is being done with a child."""
        return dict(self._claims)

    def give_up(self, why: str) -> None:
        """Every operation that waits ends with an OperationError, and none begins any more."""
        self._end = self._end or why
        self.runner.changed.beat()

    def find(self, name: str, kinds: tuple[Kind, ...]) -> Child:
        """The child of this name and one of these kinds; UnknownNameError says which there are."""
        child = self.runner.children.get(name)
        known = [one.name for one in self.runner.of(*kinds)]
        if child is not None and child.kind not in kinds:
            raise UnknownNameError(f"{name} is a {child.kind}, and this can be asked of {', '.join(known)} only")
        if child is None:
            meant = did_you_mean(name, known)
            raise UnknownNameError(f"there is no {name!r}{f', {meant}' if meant else ''}; there are {', '.join(known)}")
        return child

    # ---- the operations. All want the names claimed, and raise OperationError when they fail or time runs out.

    async def add(self, plan: ChildPlan, within: float | None = None) -> Child:
        """A new child, ready when this returns. One that fails stays, in backoff or failed; `retire` takes it away."""
        child = self.runner.add(plan)
        before = child.incarnation
        self.runner.start(child)
        await self._until_serving(child, before, within)
        return child

    async def retire(self, name: str, within: float | None = None) -> None:
        """It gets nothing new, what it holds is answered, it stops, it is forgotten. Its bucket is the others' meanwhile."""
        child = self.runner.children[name]
        self._perform(child, child.drain(self._now()))
        await self._until(
            lambda: child.state is State.STOPPED, within, f"{name} has not stopped; it is {{state}}", child
        )
        self.runner.forget(name)

    async def dismiss(self, name: str, within: float | None = None) -> None:
        """One that holds nothing, or whose router is gone, stops and is forgotten."""
        child = self.runner.children[name]
        self._perform(child, child.stop(self._now()))
        await self._until(
            lambda: child.state is State.STOPPED, within, f"{name} has not stopped; it is {{state}}", child
        )
        self.runner.forget(name)

    async def replace(self, name: str, plan: ChildPlan, within: float | None = None) -> Child:
        """What it holds is answered, it stops, and the next incarnation is started after `plan`; ready when this returns."""
        self.runner.amend(plan)
        return await self.restart(name, within, why="replaced")

    def configure(
        self, plan: Plan, *, model: ModelStatus | None = None, warnings: tuple[str, ...] | None = None
    ) -> None:
        """The router routes after `plan` from now on, and status shows it. Children are not touched."""
        self.runner.configure("router", Configure(msgspec.Raw(msgspec.json.encode(plan))))
        self.runner.observer.configure(plan, model, warnings)
        self.runner.publish_soon.set()

    async def restart(self, name: str, within: float | None = None, why: str = "restart asked") -> Child:
        """Ends this incarnation once it holds nothing, starts the next; ready (or drained, if it was) when this returns."""
        child = self.runner.children[name]
        before = child.incarnation
        self._perform(child, child.restart(self._now(), why))
        await self._until_serving(child, before, within)
        return child

    async def drain(self, name: str, within: float | None = None) -> Child:
        """The process stays and gets no work; it holds nothing when this returns."""
        child = self.runner.children[name]
        if child.state in (State.FAILED, State.BACKOFF, State.STOPPED):
            raise OperationError(f"{name} is {child.state} and holds nothing: {child.last_error}")
        self._perform(child, child.withhold(self._now()))
        await self._until(
            lambda: child.state is State.DRAINED, within, f"{name} is not drained; it is {{state}}", child
        )
        return child

    async def resume(self, name: str, within: float | None = None) -> Child:
        """It gets work again."""
        child = self.runner.children[name]
        if child.state is State.FAILED:
            raise OperationError(
                f"{name} has failed: {child.last_error}\nstart it again with `orchestrator restart {name}`"
            )
        self._perform(child, child.resume(self._now()))
        await self._until_serving(child, child.incarnation - 1, within)
        return child

    # ---- waiting

    async def _until_serving(self, child: Child, before: int, within: float | None) -> None:
        """Until an incarnation after `before` is where it is wanted, or that has become pointless."""

        def hopeless() -> bool:
            return child.incarnation > before and (
                child.state is State.FAILED or (child.failures >= ABANDONED_AFTER and child.state is State.BACKOFF)
            )

        await self._until(
            lambda: (child.incarnation > before and child.serving) or hopeless(),
            within,
            f"{child.name} is not ready; it is {{state}}",
            child,
        )
        if not child.serving:
            raise OperationError(self._why_not(child))

    def _why_not(self, child: Child) -> str:
        times = f" {child.failures} times in a row" if child.failures > 1 else ""
        lines = "".join(f"\n    {line}" for line in self.runner.last_words(child.name))
        return f"{child.name} did not become ready, it failed{times}: {child.last_error}" + (
            f"\n  its last output:{lines}" if lines else ""
        )

    async def _until(self, reached: Callable[[], bool], within: float | None, otherwise: str, child: Child) -> None:
        """`within` seconds at most, or as long as all deadlines of one drain, stop and start together."""
        timing = self.runner.what.timing
        if within is None:
            within = timing.drain + timing.stop + timing.kill + ABANDONED_AFTER * (timing.start + timing.kill)
        done = await self.runner.changed.until(lambda: self._end is not None or reached(), within)
        if reached():
            return
        if done:
            raise OperationError(f"given up: {self._end}")
        cause = f" (last error: {child.last_error})" if child.last_error else ""
        raise OperationError(f"{otherwise.format(state=child.state)} after {within:g} s{cause}")

    def _perform(self, child: Child, actions: list[Action]) -> None:
        self.runner.perform(child, actions)
        self.runner.changed.beat()

    @staticmethod
    def _now() -> float:
        return time.monotonic()
