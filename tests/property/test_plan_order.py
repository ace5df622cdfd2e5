"""Does a change of plan, and the way back from the middle of it, keep each core to one instance and somebody serving?"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.order import Enter, Leave, Retire, Seat, Start, Step, interrupts, order

CORES = range(8)


class Stage:
    """Performs steps as the supervisor would, and checks what must hold after each."""

    def __init__(self, live: Sequence[Seat], serving: int | None, most: int) -> None:
        self.live = list(live)
        self.serving = serving
        self.most = most
        self.silent = 0
        """Steps after which nobody served."""

    def perform(self, step: Step) -> None:
        match step:
            case Start(seats):
                assert seats
                self.live += seats
            case Retire(seats):
                assert seats
                for seat in seats:
                    self.live.remove(seat)
            case Enter(world):
                assert any(seat.world == world for seat in self.live), "gateways open to nobody"
                assert self.serving != world
                self.serving = world
            case Leave(world):
                assert any(seat.world == world for seat in self.live), "nobody to answer what was accepted"
                if self.serving == world:
                    self.serving = None
        held = [cpu for seat in self.live for cpu in seat.cpus]
        assert len(held) == len(set(held)), "two live instances on one core"
        assert len(self.live) <= self.most
        if not self.serves():
            self.silent += 1

    def serves(self) -> bool:
        return self.serving is not None and any(seat.world == self.serving for seat in self.live)


@st.composite
def seats(draw: st.DrawFn, world: int, edition: int, least: int = 1) -> list[Seat]:
    """Disjoint sets of cores; some cores may stay free."""
    owners = draw(st.lists(st.integers(-1, 3), min_size=len(CORES), max_size=len(CORES)))
    names = sorted({owner for owner in owners if owner >= 0})
    if len(names) < least:
        owners, names = [*range(least), *[-1] * (len(CORES) - least)], list(range(least))
    return [
        Seat(f"all-{name}", world, edition, frozenset(cpu for cpu in CORES if owners[cpu] == name)) for name in names
    ]


@st.composite
def changes(draw: st.DrawFn) -> tuple[list[Seat], list[Seat], int]:
    old = draw(seats(0, 0))
    world = draw(st.integers(0, 1))
    new = draw(seats(world, 1))
    if world == 0:  # what has not changed is the same process
        known = {(seat.name, seat.cpus): seat for seat in old}
        new = [known.get((seat.name, seat.cpus), seat) for seat in new]
    return old, new, draw(st.integers(0, 3))


def most_of(old: list[Seat], new: list[Seat], spare: int) -> int:
    return max(len(old), len(new)) + spare


@given(changes())
def test_each_step_keeps_each_core_to_one_instance_and_the_end_is_what_was_wanted(
    change: tuple[list[Seat], list[Seat], int],
) -> None:
    old, new, spare = change
    stage = Stage(old, 0, most_of(old, new, spare))
    for step in order(old, new, serving=0, spare=spare):
        stage.perform(step)
    assert sorted(stage.live, key=lambda seat: seat.name) == sorted(new, key=lambda seat: seat.name)
    assert stage.serving == new[0].world


@given(changes())
def test_somebody_serves_at_every_step_unless_one_set_of_cores_has_to_do_for_both(
    change: tuple[list[Seat], list[Seat], int],
) -> None:
    old, new, spare = change
    stage = Stage(old, 0, most_of(old, new, spare))
    for step in order(old, new, serving=0, spare=spare):
        stage.perform(step)
    kept = [seat for seat in old if seat in new]
    # A way without silence: somebody stays; or somebody new fits beside all that is old, or beside one that is left when the
    # owners of its cores have gone.
    fits = spare > 0 or len(new) > len(old)
    possible = bool(kept) or any(
        (bool(blocking := [seat for seat in old if seat.cpus & one.cpus]) and len(blocking) < len(old))
        or (not blocking and (fits or len(old) > 1))
        for one in new
    )
    assert stage.silent == 0 or not possible
    assert interrupts(old, order(old, new, serving=0, spare=spare), serving=0) == (stage.silent > 0)


@given(changes(), st.integers(0, 40), st.booleans())
def test_from_every_step_the_way_back_leads_back(
    change: tuple[list[Seat], list[Seat], int], after: int, half: bool
) -> None:
    old, new, spare = change
    most = most_of(old, new, spare)
    stage = Stage(old, 0, most)
    steps = order(old, new, serving=0, spare=spare)
    for step in steps[:after]:
        stage.perform(step)
    if half and after < len(steps) and isinstance(step := steps[after], Start) and len(step.seats) > 1:
        stage.perform(Start(step.seats[: len(step.seats) // 2]))  # one of them did not become ready and was retired
    back = order(stage.live, old, serving=stage.serving, spare=spare)
    stage.most = max(most, len(stage.live) + spare)
    for step in back:
        stage.perform(step)
    assert sorted(stage.live, key=lambda seat: seat.name) == sorted(old, key=lambda seat: seat.name)
    assert stage.serving == 0


def test_nothing_is_done_where_nothing_changes() -> None:
    live = [Seat("all-0", 0, 0, frozenset({0})), Seat("all-1", 0, 0, frozenset({1}))]
    assert order(live, list(reversed(live)), serving=0, spare=1) == []


def test_free_cores_are_started_on_before_anybody_leaves() -> None:
    old, new = Seat("all-0", 0, 0, frozenset({0})), Seat("all-0", 0, 1, frozenset({1}))
    assert order([old], [new], serving=0, spare=1) == [Start((new,)), Retire((old,))]


def test_without_memory_for_one_more_the_old_one_leaves_first() -> None:
    old, new = Seat("all-0", 0, 0, frozenset({0})), Seat("all-0", 0, 1, frozenset({1}))
    assert order([old], [new], serving=0, spare=0) == [Retire((old,)), Start((new,))]


def test_with_memory_short_one_leaves_for_a_newcomer_on_free_cores_before_both_leave_for_another() -> None:
    old = [Seat("all-0", 0, 0, frozenset({0, 1, 2, 4})), Seat("all-1", 0, 0, frozenset({6}))]
    new = [Seat("all-0", 0, 1, frozenset({3, 5, 7})), Seat("all-1", 0, 1, frozenset({0, 1, 2, 4, 6}))]
    assert order(old, new, serving=0, spare=0) == [
        Retire((old[1],)), Start((new[0],)), Retire((old[0],)), Start((new[1],)),
    ]  # fmt: skip


def test_without_free_cores_one_set_of_cores_changes_hands_at_a_time() -> None:
    old = [Seat(f"all-{cpu}", 0, 0, frozenset({cpu})) for cpu in (0, 1)]
    new = [Seat(f"all-{cpu}", 0, 1, frozenset({cpu})) for cpu in (0, 1)]
    assert order(old, new, serving=0, spare=2) == [
        Retire((old[0],)), Start((new[0],)), Retire((old[1],)), Start((new[1],)),
    ]  # fmt: skip


def test_another_model_is_entered_when_half_of_the_cores_have_changed_hands() -> None:
    old = [Seat(f"all-{cpu}", 0, 0, frozenset({cpu})) for cpu in (0, 1)]
    new = [Seat(f"all-{cpu}", 1, 1, frozenset({cpu})) for cpu in (0, 1)]
    assert order(old, new, serving=0, spare=2) == [
        Retire((old[0],)), Start((new[0],)), Enter(1), Leave(0), Retire((old[1],)), Start((new[1],)),
    ]  # fmt: skip


def test_another_model_on_the_only_core_is_entered_after_the_old_one_was_left() -> None:
    old, new = Seat("all-0", 0, 0, frozenset({0})), Seat("all-0", 1, 1, frozenset({0}))
    assert order([old], [new], serving=0, spare=1) == [Leave(0), Retire((old,)), Start((new,)), Enter(1)]
