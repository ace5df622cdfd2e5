"""In which order do instances go and come when one plan replaces another? Pure.

Theory of operation. A *seat* is one instance as a process on its cores. Seats that are wanted and live already stay. Each of the others is
started as soon as no seat that leaves holds one of its cores and memory allows one more; only when nothing can start is a seat made
to leave, the one whose cores bring the most for the least, and the last one that serves only if nothing else helps. What leaves
without anybody needing its cores leaves at the end, when all that is new is warm.
Seats of one *world* share a router and a model. Another model is another world: its seats serve nobody until the gateways of that world
have opened (`Enter`), and the old world is left (`Leave`) once they have, so that no request sees both. Until about half of the old
cores have changed hands the old world serves, afterwards the new one. Where one single set of cores has to do for both, the old world
is left first, and connections wait in the listening socket.
The way back from the middle of a change is the order from what lives there to what lived before.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Seat(msgspec.Struct, frozen=True):
    """Two seats are the same process if they are equal."""

    name: str
    world: int
    """Which router it belongs to."""
    edition: int
    """Two processes of one name in one world differ by this."""
    cpus: frozenset[int]


class Start(msgspec.Struct, frozen=True):
    """Start these side by side; go on when all are ready."""

    seats: tuple[Seat, ...]


class Retire(msgspec.Struct, frozen=True):
    """Let these answer what they hold, then stop them; go on when all are gone."""

    seats: tuple[Seat, ...]


class Enter(msgspec.Struct, frozen=True):
    """Open gateways into this world."""

    world: int


class Leave(msgspec.Struct, frozen=True):
    """Close the gateways into this world and its router, when all that they accepted is answered."""

    world: int


Step = Start | Retire | Enter | Leave


def order(live: Sequence[Seat], wanted: Sequence[Seat], *, serving: int | None, spare: int) -> list[Step]:
    """The steps from the seats that live to those that are wanted, all of one world.

    `serving` is the world that gateways are open to, None if to none. `spare`: so many more instances than before or after
    may live at once, as memory allows. Seats that are wanted may overlap one another (a layout may allow it), but nothing new is
    started beside what leaves.
    """
    if not wanted:
        raise ValueError("a plan without instances is none")
    change = _Change(live, wanted, serving, max(len(live), len(wanted)) + max(0, spare))
    change.run()
    return change.steps


def interrupts(live: Sequence[Seat], steps: Sequence[Step], *, serving: int) -> bool:
    """Whether these steps leave a moment in which nobody serves."""
    there, world = set(live), serving
    for step in steps:
        match step:
            case Start(seats):
                there |= set(seats)
            case Retire(seats):
                there -= set(seats)
            case Enter(entered):
                world = entered
            case Leave(left):
                there = {seat for seat in there if seat.world != left}
        if not any(seat.world == world for seat in there):
            return True
    return False


class _Change:
    def __init__(self, live: Sequence[Seat], wanted: Sequence[Seat], serving: int | None, most: int) -> None:
        self.steps: list[Step] = []
        self._live = list(live)
        self._pending = [seat for seat in wanted if seat not in live]
        self._leaving = [seat for seat in live if seat not in wanted]
        self._world = wanted[0].world
        self._serving = serving
        self._most = most
        self._old_cores = sum(len(seat.cpus) for seat in live if seat.world == serving)

    def run(self) -> None:
        while self._pending:
            if (startable := self._startable()) and not self._time_to_move():
                self._start(startable)
            elif self._time_to_move():
                self._move()
            else:
                self._retire(self._cheapest())
        if self._serving != self._world:
            self._move()
        if self._leaving:
            self._retire(list(self._leaving))

    def _startable(self) -> list[Seat]:
        held = {cpu for seat in self._leaving for cpu in seat.cpus}
        return [seat for seat in self._pending if not seat.cpus & held][: max(0, self._most - len(self._live))]

    def _cheapest(self) -> list[Seat]:
        """What leaves next: enough for one that waits, and of such sets one that leaves somebody to serve, then the smallest."""
        choices: list[list[Seat]] = []
        for waiting in self._pending:
            blocking = [seat for seat in self._leaving if seat.cpus & waiting.cpus]
            # Whom nobody's cores block, memory does: then anybody's leaving helps.
            choices += [blocking] if blocking else [[seat] for seat in self._leaving]
        return min(choices, key=lambda seats: (self._silences(seats), sum(len(seat.cpus) for seat in seats)))

    def _silences(self, seats: Sequence[Seat]) -> bool:
        """Whether nobody would serve without these."""
        serving = [seat for seat in self._live if seat.world == self._serving]
        return bool(serving) and all(seat in seats for seat in serving)

    # ---- another world

    def _time_to_move(self) -> bool:
        """Whether the gateways change worlds now: in a change of worlds, when nothing more can be had from the old one."""
        if self._serving == self._world:
            return False
        if self._serving is None:
            return self._stands()
        if self._startable():
            return False
        going = self._cheapest()
        if self._silences(going):
            return True
        left = sum(len(seat.cpus) for seat in self._live if seat.world == self._serving and seat not in going)
        return self._stands() and 2 * left < self._old_cores

    def _stands(self) -> bool:
        """Whether somebody of the wanted world is there to serve."""
        return any(seat.world == self._world for seat in self._live)

    def _move(self) -> None:
        old = self._serving
        if self._stands():
            self._enter()
        if old is not None:
            self.steps.append(Leave(old))
            if self._serving == old:
                self._serving = None
            if gone := [seat for seat in self._leaving if seat.world == old]:
                self._retire(gone)

    def _enter(self) -> None:
        self.steps.append(Enter(self._world))
        self._serving = self._world

    # ---- the two movements

    def _start(self, seats: list[Seat]) -> None:
        self.steps.append(Start(tuple(seats)))
        self._live += seats
        self._pending = [seat for seat in self._pending if seat not in seats]

    def _retire(self, seats: list[Seat]) -> None:
        self.steps.append(Retire(tuple(seats)))
        self._live = [seat for seat in self._live if seat not in seats]
        self._leaving = [seat for seat in self._leaving if seat not in seats]
