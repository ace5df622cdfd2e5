"""How does one deployment take the place of another while both serve? Performs the steps of plan/order.py.

Theory of operation. A `Stage` knows which seat is played by which child. `become` asks for the steps from what is there to what is wanted,
and performs them one after another, each to its end. If one fails, `become` of what was there before leads back from wherever it
stands. Of two children with one name the newcomer is called NAME.next until the other has gone. In a change of worlds the router comes in
two as well: `router.next` routes for the newcomers, and gateways open to it once they are ready. Gateways are numbered, and replaced by
gateways with other numbers: the new ones accept before the old ones stop to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, assert_never

import msgspec

from orchestrator.plan.order import Enter, Leave, Retire, Seat, Start, Step, interrupts, order
from orchestrator.supervisor.arrangement import Arrangement, differences, named
from orchestrator.supervisor.deployment import ChildPlan
from orchestrator.supervisor.operations import Operations
from orchestrator.supervisor.states import AT_REST
from topology.cpuset import format_cpulist
from workers.spec import Configure

ROUTER = "router"
NEWCOMER = ".next"
"""Behind the name of a child that waits for another one's name."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Gateway:
    plan: ChildPlan
    world: int


class Stage:
    def __init__(
        self, operations: Operations, arrangement: Arrangement, on_worlds: Callable[[int, frozenset[int]], None]
    ) -> None:
        """`on_worlds`: the child named `router` is that of the first world; these are the worlds that still have one."""
        self._operations = operations
        self._runner = operations.runner
        self._on_worlds = on_worlds
        self._reached = arrangement
        """What was last reached, or what everything started with."""
        self._played: dict[Seat, str] = {seat: plan.name for seat, plan in arrangement.seats.items()}
        """By which child each is played."""
        self._instances = dict(zip(arrangement.seats, arrangement.deployment.plan.instances, strict=True))
        self._routers: dict[int, str] = {arrangement.world: ROUTER}
        self._gateways: dict[str, _Gateway] = {
            plan.name: _Gateway(plan, arrangement.world) for plan in arrangement.gateways
        }
        self._serving: int | None = arrangement.world

    @property
    def names(self) -> list[str]:
        """All children, for whoever claims them."""
        return list(self._runner.children)

    def steps(self, target: Arrangement, spare: int) -> list[Step]:
        """What `become` would do with the instances."""
        return order(self._alive(), list(target.seats), serving=self._serving, spare=spare)

    def interrupts(self, target: Arrangement, spare: int) -> bool:
        """Whether nobody would serve at some step of `become`."""
        return self._serving is None or interrupts(self._alive(), self.steps(target, spare), serving=self._serving)

    async def become(self, target: Arrangement, spare: int, within: float | None, say: Say) -> None:
        """Ends when `target` runs and nothing else does. OperationError says which step failed; then everything stands still there."""
        await self._tidy(within)
        steps = self.steps(target, spare)
        self._runner.adopt(target.deployment)
        self._show(target)
        if target.world not in self._routers:
            await self._add_router(target, within)
        for number, step in enumerate(steps, 1):
            say(f"step {number} of {len(steps)}: {in_words(step)}")
            await self._perform(step, target, within)
            self._show(target)
        await self._settle(target, within, say)

    def _alive(self) -> list[Seat]:
        """Those with a process, or about to have one again."""
        return [seat for seat, name in self._played.items() if self._stays(name)]

    def _stays(self, name: str) -> bool:
        child = self._runner.children.get(name)
        return child is not None and child.state not in AT_REST and child.wanted != "stop"

    async def _tidy(self, within: float | None) -> None:
        """Forgets what has failed, or what a change that was broken off has left half stopped."""
        await _together(
            self._forget(seat, within) for seat, name in list(self._played.items()) if not self._stays(name)
        )
        gone = [name for name in self._gateways if not self._stays(name)]
        await self._close_gateways(gone, within)
        for world, name in list(self._routers.items()):
            if not self._stays(name):
                await self._end_router(world, within)

    # ---- instances

    async def _perform(self, step: Step, target: Arrangement, within: float | None) -> None:
        match step:
            case Start(seats):
                for seat in seats:
                    self._instances[seat] = target.instance(seat)
                self._route(target, seats)
                await _together(self._start(seat, target, within) for seat in seats)
            case Retire(seats):
                await _together(self._retire(seat, within) for seat in seats)
                self._route(target, ())
            case Enter():
                await self._open_gateways(target, within)
                self._serving = target.world
            case Leave(world):
                await self._leave(world, within)
            case _:
                assert_never(step)

    async def _start(self, seat: Seat, target: Arrangement, within: float | None) -> None:
        name = seat.name if seat.name not in self._runner.children else f"{seat.name}{NEWCOMER}"
        self._played[seat] = name
        plan = named(target.seats[seat], name, role=seat.name, router=self._routers[seat.world])
        await self._operations.add(plan, within)

    async def _retire(self, seat: Seat, within: float | None) -> None:
        twins = [other for other in self._played if other.name == seat.name and other.world == seat.world]
        if seat.world not in self._routers or len(twins) > 1:
            # Its router has gone, or has put the newcomer of the same name in its place: it holds nothing.
            await self._forget(seat, within)
        else:
            await self._operations.retire(self._played[seat], within)
            self._gone(seat)

    async def _forget(self, seat: Seat, within: float | None) -> None:
        if self._played[seat] in self._runner.children:
            await self._operations.dismiss(self._played[seat], within)
        self._gone(seat)

    def _gone(self, seat: Seat) -> None:
        name = self._played.pop(seat)
        del self._instances[seat]
        newcomer = f"{name}{NEWCOMER}"
        for other, played in self._played.items():
            if played == newcomer:
                self._runner.rename(newcomer, name)
                self._played[other] = name

    def _route(self, target: Arrangement, coming: Sequence[Seat]) -> None:
        """Tells the router who is there and who is about to be. With nobody there, requests wait for those that are to come."""
        world = target.world
        there = {seat.name: self._instances[seat] for seat in self._alive() if seat.world == world}
        there |= {seat.name: target.instance(seat) for seat in coming}
        plan = self._reached.deployment.plan if self._reached.world == world else target.deployment.plan
        plan = msgspec.structs.replace(plan, instances=list(there.values()) or target.deployment.plan.instances)
        self._runner.configure(self._routers[world], Configure(msgspec.Raw(msgspec.json.encode(plan))))

    # ---- routers and gateways

    async def _add_router(self, target: Arrangement, within: float | None) -> None:
        name = ROUTER if ROUTER not in self._runner.children else f"{ROUTER}{NEWCOMER}"
        self._routers[target.world] = name
        await self._operations.add(named(target.router, name, role=ROUTER), within)

    async def _leave(self, world: int, within: float | None) -> None:
        """Closes the gateways into a world and then its router, when all that they accepted is answered."""
        if self._serving == world:
            self._serving = None
        await self._close_gateways([name for name, one in self._gateways.items() if one.world == world], within)
        await self._end_router(world, within)

    async def _end_router(self, world: int, within: float | None) -> None:
        name = self._routers[world]
        if name in self._runner.children:
            await self._operations.retire(name, within)
        del self._routers[world]
        for other, other_name in list(self._routers.items()):
            if other_name == f"{name}{NEWCOMER}":
                self._runner.rename(other_name, name)
                self._routers[other] = name
        for other, other_name in self._routers.items():
            if other_name == ROUTER:
                self._on_worlds(other, frozenset(self._routers))

    async def _open_gateways(self, target: Arrangement, within: float | None) -> None:
        opened = []
        for plan in target.gateways:
            number = next(
                number for number in count() if f"gateway-{number}" not in {*self._runner.children, *self._gateways}
            )
            name = f"gateway-{number}"
            self._gateways[name] = _Gateway(plan, target.world)
            opened.append(named(plan, name))
        await _together(self._operations.add(plan, within) for plan in opened)

    async def _close_gateways(self, names: Iterable[str], within: float | None) -> None:
        async def close(name: str) -> None:
            if name in self._runner.children:
                await self._operations.retire(name, within)
            del self._gateways[name]

        await _together(close(name) for name in names)

    # ---- the whole

    def _show(self, target: Arrangement) -> None:
        """What is planned, but of who is still another one under the same name, what he was started as."""
        deployment = target.deployment
        there = {name: self._instances[seat] for seat, name in self._played.items() if seat not in target.seats}
        instances = [there.get(one.name, one) for one in deployment.plan.instances]
        model = deployment.model if self._serving == target.world else None
        plan = msgspec.structs.replace(deployment.plan, instances=instances)
        self._runner.observer.configure(plan, model, deployment.warnings, deployment.left_out)
        self._runner.publish_soon.set()

    async def _settle(self, target: Arrangement, within: float | None, say: Say) -> None:
        """What else differs: routing, gateways, the router's place; and what is left of a world that was not reached."""
        deployment = target.deployment
        for world in [world for world in self._routers if world != target.world]:
            await self._leave(world, within)
        router = self._routers[target.world]
        self._runner.amend(named(target.router, router))
        plan = msgspec.Raw(msgspec.json.encode(deployment.plan))
        self._runner.configure(router, Configure(plan, deployment.description))
        self._resettle(router, deployment.plan.housekeeping.cpus)
        present = [one.plan for one in self._gateways.values()]
        failed = any(self._runner.children[name].state in AT_REST for name in self._gateways)
        if failed or len(present) != len(target.gateways) or differences(present[0], target.gateways[0]):
            say("gateways are replaced")
            old = list(self._gateways)
            await self._open_gateways(target, within)
            await self._close_gateways(old, within)
        self._reached = target
        self._show(target)
        self._runner.verify()

    def _resettle(self, router: str, cpus: list[int]) -> None:
        """Onto its CPUs, every thread of it. A CPU set that has become impossible costs speed, not service."""
        pid = self._runner.observer.of(router).pid
        if pid is None or not cpus:
            return
        with contextlib.suppress(OSError):  # it is just dying: its next incarnation goes there by itself
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cpus)


async def _together(actions: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Side by side, each to its end; then the first error, if there is one."""
    results = await asyncio.gather(*actions, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def in_words(step: Step) -> str:
    """For the log and for whoever waits."""
    match step:
        case Start(seats):
            return f"start {_listed(seats)}"
        case Retire(seats):
            return f"retire {_listed(seats)}"
        case Enter():
            return "open gateways to the new model"
        case Leave():
            return "close the gateways to the old model"
        case _:
            assert_never(step)


def _listed(seats: Iterable[Seat]) -> str:
    return ", ".join(f"{seat.name} (CPUs {format_cpulist(seat.cpus)})" for seat in seats)
