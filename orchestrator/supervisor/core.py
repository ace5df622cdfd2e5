"""What is to be done with a child, given what just happened to it? Pure.

Theory of operation. A `Child` is one process that is to exist: a worker, the router or a gateway. Stimuli go in (`handle`), actions come
out; the shell (`runner.py`) performs them and brings back what follows. Time arrives as `now`. At every moment a child has at most
one deadline; `tick` turns a deadline that has passed into the stimulus OVERDUE, whose meaning the table gives per state:
a start that takes too long, beats that stay away, a drain or a stop that does not end, a backoff that is over.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.supervisor.backoff import Backoff
from orchestrator.supervisor.states import State, Stimulus, next_state

Kind = Literal["router", "worker", "gateway"]
Seconds = float


@dataclass(frozen=True, slots=True)
class Timing:
    """Deadlines in seconds."""

    start: Seconds = 120.0
    beat: Seconds = 5.0
    """Without a sign of life for this long a child is killed. Ten beats: a machine under full load delays some."""
    hang: Seconds = 60.0
    """An engine that is busy with one batch for this long hangs."""
    drain: Seconds = 30.0
    stop: Seconds = 3.0
    kill: Seconds = 5.0


@dataclass(frozen=True, slots=True)
class Spawn:
    incarnation: int


@dataclass(frozen=True, slots=True)
class SendDrain:
    pass


@dataclass(frozen=True, slots=True)
class SendStop:
    pass


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the child's whole process group."""


@dataclass(frozen=True, slots=True)
class TellLost:
    """The router must requeue what this incarnation held."""

    incarnation: int


@dataclass(frozen=True, slots=True)
class Changed:
    """One line of the log: a change of state and why."""

    before: State
    after: State
    why: str


Action = Spawn | SendDrain | SendStop | Kill | TellLost | Changed

ABANDONED_AFTER = 3
"""So many starts in a row that never became ready end the start of the whole orchestrator (not the run of one)."""


@dataclass
class Child:
    name: str
    kind: Kind
    timing: Timing
    rng: random.Random
    backoff: Backoff = field(default_factory=Backoff)
    state: State = State.INITIAL
    wanted: Literal["run", "stop"] = "run"
    incarnation: int = 0
    restarts: int = 0
    failures: int = 0
    """In a row, without a good run between them."""
    deadline: Seconds | None = None
    ready_at: Seconds | None = None
    ever_ready: bool = False
    last_error: str | None = None
    """Why it last ended when it should not have."""
    cause: str | None = None
    """Why this incarnation is about to end, if that is known before it ends."""
    hopeless: bool = False
    story: deque[tuple[Seconds, str, State]] = field(default_factory=lambda: deque(maxlen=64))

    def start(self, now: Seconds) -> list[Action]:
        self.wanted = "run"
        return self._move(Stimulus.START_ASKED, now, "asked")

    def stop(self, now: Seconds) -> list[Action]:
        self.wanted = "stop"
        return self._move(Stimulus.STOP_ASKED, now, "asked")

    def drain(self, now: Seconds) -> list[Action]:
        """Finish what is there, then stop."""
        self.wanted = "stop"
        return self._move(Stimulus.DRAIN_ASKED, now, "asked")

    def kill(self, now: Seconds, why: str) -> list[Action]:
        return self._move(Stimulus.KILL_ASKED, now, why)

    def said_ready(self, now: Seconds) -> list[Action]:
        return self._move(Stimulus.READY_SAID, now, "ready")

    def said_drained(self, now: Seconds) -> list[Action]:
        return self._move(Stimulus.DRAINED_SAID, now, "drained")

    def said_fatal(self, error: str, permanent: bool) -> list[Action]:
        """It is about to exit, and this is why."""
        self.cause = error
        self.hopeless = permanent
        return []

    def spawn_failed(self, error: str, now: Seconds) -> list[Action]:
        self.last_error = error
        return self._move(Stimulus.SPAWN_FAILED, now, error)

    def beat(self, busy_seconds: float | None, now: Seconds) -> list[Action]:
        """A sign of life; `busy_seconds` is how long its engine has been in one batch."""
        if self.state is not State.READY:
            return []
        self.deadline = now + self.timing.beat
        if busy_seconds is not None and busy_seconds > self.timing.hang:
            self.cause = f"its engine has been in one batch for {busy_seconds:.0f} s"
            return self._move(Stimulus.HUNG, now, self.cause)
        return []

    def exited(self, how: str, now: Seconds, last_lines: str = "") -> list[Action]:
        """The process is gone. `how` is "exit 1" or "SIGKILL"; `last_lines` the end of its output."""
        if self.state not in (State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.KILLING):
            return []
        lost = TellLost(self.incarnation)
        if self.wanted == "stop":
            return [lost, *self._move(Stimulus.EXITED_WANTED, now, how)]
        self.last_error = (
            f"{how}: {self.cause}" if self.cause else f"{how}; last output: {last_lines}" if last_lines else how
        )
        stimulus = Stimulus.EXITED_HOPELESS if self.hopeless else Stimulus.EXITED_UNWANTED
        return [lost, *self._move(stimulus, now, self.last_error)]

    def tick(self, now: Seconds) -> list[Action]:
        if self.deadline is None or now < self.deadline:
            return []
        why = {
            State.STARTING: f"not ready after {self.timing.start:g} s (supervision.start_timeout_s)",
            State.READY: f"no sign of life for {self.timing.beat:g} s",
            State.DRAINING: f"not drained after {self.timing.drain:g} s",
            State.STOPPING: f"not stopped after {self.timing.stop:g} s",
            State.KILLING: f"not gone {self.timing.kill:g} s after SIGKILL",
            State.BACKOFF: "backoff over",
        }[self.state]
        if self.state in (State.STARTING, State.READY):
            self.cause = why
        return self._move(Stimulus.OVERDUE, now, why)

    @property
    def abandoned(self) -> bool:
        """Whether waiting for its first readiness has become pointless."""
        return self.state is State.FAILED or (not self.ever_ready and self.failures >= ABANDONED_AFTER)

    def validate(self) -> None:
        """What must hold after each step; called by tests."""
        timed = {State.STARTING, State.READY, State.DRAINING, State.STOPPING, State.KILLING, State.BACKOFF}
        assert (self.deadline is not None) == (self.state in timed), (self.state, self.deadline)
        assert self.restarts <= max(0, self.incarnation - 1), (self.restarts, self.incarnation)
        if self.state is State.BACKOFF:
            assert self.wanted == "run"
            assert self.failures >= 1
        if self.state is State.STOPPED:
            assert self.wanted == "stop"

    def _move(self, stimulus: Stimulus, now: Seconds, why: str) -> list[Action]:
        after = next_state(self.state, stimulus)
        if after is None:
            return []
        self.story.append((now, f"{stimulus}: {why}", after))
        before, self.state = self.state, after
        return [*self._enter(after, now), Changed(before, after, why)]

    def _enter(self, state: State, now: Seconds) -> list[Action]:
        timing = self.timing
        match state:
            case State.STARTING:
                if self.incarnation:
                    self.restarts += 1
                self.incarnation += 1
                self.hopeless = False
                self.cause = None
                self.ready_at = None
                self.deadline = now + timing.start
                return [Spawn(self.incarnation)]
            case State.READY:
                self.ready_at = now
                self.ever_ready = True
                self.deadline = now + timing.beat
                return []
            case State.DRAINING:
                self.deadline = now + timing.drain
                return [SendDrain()]
            case State.STOPPING:
                self.deadline = now + timing.stop
                return [SendStop()]
            case State.KILLING:
                self.deadline = now + timing.kill
                return [Kill()]
            case State.BACKOFF:
                good_run = self.ready_at is not None and now - self.ready_at >= self.backoff.good_run
                self.failures = 1 if good_run else self.failures + 1
                self.deadline = now + self.backoff.delay(self.failures, self.rng, was_ready=self.ready_at is not None)
                return []
            case State.INITIAL | State.FAILED | State.STOPPED:
                self.deadline = None
                return []
