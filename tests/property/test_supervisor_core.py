"""Does a child's core keep its rules under every sequence of stimuli?"""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.supervisor.backoff import Flapping
from orchestrator.supervisor.core import (
    Action,
    Child,
    Kill,
    SendDrain,
    SendResume,
    SendStop,
    Spawn,
    TellLost,
    Timing,
)
from orchestrator.supervisor.states import ALIVE, State


class ChildMachine(RuleBasedStateMachine):
    """A model beside the core: whether a process exists, and whether the router may give it work, from the actions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.child = Child("short-0", "worker", Timing(), random.Random(0), flapping=Flapping(5, 100.0))
        self.now = 0.0
        self.alive = False
        self.withheld = False
        self.lost: set[int] = set()

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Spawn(incarnation):
                    assert not self.alive, "two processes of one child"
                    assert incarnation not in self.lost
                    self.alive = True
                case TellLost(incarnation):
                    assert incarnation not in self.lost, "the router was told twice"
                    self.lost.add(incarnation)
                case SendDrain():
                    self.withheld = True
                case SendResume():
                    self.withheld = False
                case SendStop() | Kill():
                    assert self.alive, f"{action} to nobody"
                case _:
                    pass

    @initialize(kind=st.sampled_from(["worker", "router", "gateway"]), flaps=st.booleans())
    def is_of_a_kind(self, kind: str, flaps: bool) -> None:
        self.child.kind = kind  # type: ignore[assignment]
        self.child.flapping = Flapping(5, 100.0) if flaps else None

    @rule()
    def start(self) -> None:
        self.perform(self.child.start(self.now))

    @rule()
    def stop(self) -> None:
        self.perform(self.child.stop(self.now))

    @rule()
    def drain(self) -> None:
        self.perform(self.child.drain(self.now))

    @rule()
    def withhold(self) -> None:
        self.perform(self.child.withhold(self.now))

    @rule()
    def resume(self) -> None:
        self.perform(self.child.resume(self.now))

    @rule()
    def restart(self) -> None:
        before = self.child.incarnation
        self.perform(self.child.restart(self.now))
        assert self.child.renewing or self.child.incarnation == before + 1

    @rule()
    @precondition(lambda self: self.alive and self.child.state is State.STARTING)
    def spawn_failed(self) -> None:
        self.alive = False
        self.perform(self.child.spawn_failed("no memory", self.now))

    @rule()
    @precondition(lambda self: self.alive)
    def kill(self) -> None:
        self.perform(self.child.kill(self.now, "asked"))

    @rule()
    def ready(self) -> None:
        self.perform(self.child.said_ready(self.now))

    @rule()
    def drained(self) -> None:
        self.perform(self.child.said_drained(self.now))

    @rule(permanent=st.booleans())
    def fatal(self, permanent: bool) -> None:
        self.perform(self.child.said_fatal("broken", permanent))

    @rule(busy=st.none() | st.floats(0, 100))
    def beat(self, busy: float | None) -> None:
        self.perform(self.child.beat(busy, self.now))

    @rule()
    @precondition(lambda self: self.alive)
    def exit(self) -> None:
        self.alive = False
        self.perform(self.child.exited("exit 1", self.now))

    @rule(seconds=st.floats(0, 200))
    def supervisor_was_away(self, seconds: float) -> None:
        self.now += seconds
        self.child.pardon(seconds)

    @rule(seconds=st.floats(0, 200), may_start=st.booleans())
    def pass_time(self, seconds: float, may_start: bool) -> None:
        self.now += seconds
        before = self.child.state
        self.perform(self.child.tick(self.now, may_start))
        assert may_start or before is not State.BACKOFF or self.child.state is State.BACKOFF

    @invariant()
    def holds(self) -> None:
        self.child.validate()
        assert (self.child.state in ALIVE) == self.alive
        if self.child.state is State.READY:
            assert not self.withheld, "ready, and the router gives it nothing"
        if self.child.state in (State.DRAINING, State.DRAINED):
            assert self.withheld, "wanted without work, and the router gives it some"
        if self.child.state is State.DRAINED:
            assert self.child.wanted == "drain"
        if self.child.serving:
            assert self.alive

    def teardown(self) -> None:
        """Whatever happened: a stop and enough time end it."""
        self.perform(self.child.stop(self.now))
        for _ in range(4):
            if self.alive:
                self.now += 1000
                self.perform(self.child.tick(self.now))
        if self.alive:
            self.alive = False
            self.perform(self.child.exited("SIGKILL", self.now))
        assert self.child.state is State.STOPPED


ChildMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestChild = ChildMachine.TestCase
