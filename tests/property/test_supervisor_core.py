"""Does a child's core keep its rules under every sequence of stimuli?"""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.supervisor.core import Action, Child, Kill, SendStop, Spawn, TellLost, Timing
from orchestrator.supervisor.states import State

ALIVE = (State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.KILLING)


class ChildMachine(RuleBasedStateMachine):
    """A model beside the core: whether a process exists, counted from the actions alone."""

    def __init__(self) -> None:
        super().__init__()
        self.child = Child("short-0", "worker", Timing(), random.Random(0))
        self.now = 0.0
        self.alive = False
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
                case SendStop() | Kill():
                    assert self.alive, f"{action} to nobody"
                case _:
                    pass

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
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.child.tick(self.now))

    @invariant()
    def holds(self) -> None:
        self.child.validate()
        assert (self.child.state in ALIVE) == self.alive

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
