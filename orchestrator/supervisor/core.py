"""What is to be done with a child, given what just happened to it? Pure.

Theory of operation. A `Child` is one process that is to exist: a worker, the router or a gateway. Stimuli go in (`handle`), actions come
out; the shell (`runner.py`) performs them and brings back what follows. Time arrives as `now`. Two clocks run against a child:
`deadline` is that of its state (a start that takes too long, a drain or a stop that does not end, a backoff that is over), and
`silent_at` that of its signs of life. `tick` turns what has passed into a stimulus, whose meaning the table gives per state.

What is wanted of it is kept beside its state: to run, to run without work (`drain`), to stop; and `renewing` says that this
incarnation is to end and the next one to follow without being counted as a failure.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from orchestrator.supervisor.backoff import Backoff, Flapping
from orchestrator.supervisor.states import ALIVE, AT_REST, State, Stimulus, next_state

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
    """A gateway or the router finishes what it has; of a worker the router is asked to give it nothing more."""


@dataclass(frozen=True, slots=True)
class SendResume:
    """The router may give this worker work."""


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
    from_outside: bool = False
    """Somebody ended it with a signal, and not for want of memory as far as is known."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One line of the log: a change of state and why."""

    before: State
    after: State
    why: str


Action = Spawn | SendDrain | SendResume | SendStop | Kill | TellLost | Changed

FROM_OUTSIDE = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"})
"""Signals that a process does not bring upon itself."""
ABANDONED_AFTER = 3
"""So many starts in a row that never became ready end the start of the whole orchestrator, or an operation that waits for one
instance (not the run of either)."""

_TIMED = (State.STARTING, State.DRAINING, State.STOPPING, State.KILLING, State.BACKOFF)
_BEATING = (State.READY, State.DRAINING, State.DRAINED)


@dataclass
class Child:
    name: str
    kind: Kind
    timing: Timing
    rng: random.Random
    backoff: Backoff = field(default_factory=Backoff)
    flapping: Flapping | None = None
    """None: it is started again for ever, as are the router and the gateways: without them nothing is served at all."""
    state: State = State.INITIAL
    wanted: Literal["run", "drain", "stop"] = "run"
    renewing: bool = False
    """This incarnation is to end, and the next one to start at once."""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    """Of its incarnations: what has the same role has the same numbers, so that none comes twice."""
    incarnation: int = 0
    restarts: int = 0
    failures: int = 0
    """In a row, without a good run between them."""
    failed_at: deque[Seconds] = field(default_factory=deque)
    """When it failed lately, as far back as flapping is counted."""
    deadline: Seconds | None = None
    silent_at: Seconds | None = None
    """Without a sign of life until then it is taken for dead."""
    ready_at: Seconds | None = None
    ever_ready: bool = False
    last_error: str | None = None
    """Why it last ended when it should not have."""
    cause: str | None = None
    """Why this incarnation is about to end, if that is known before it ends."""
    hopeless: bool = False
    story: deque[tuple[Seconds, str, State]] = field(default_factory=lambda: deque(maxlen=64))

    # ---- what an operator or the end of the whole asks for

    def start(self, now: Seconds) -> list[Action]:
        if self.wanted == "stop" or self.state in (State.INITIAL, *AT_REST):
            self.wanted = "run"
        if self.state in (State.INITIAL, *AT_REST):
            self.failures = 0
            self.failed_at.clear()
        return self._move(Stimulus.START_ASKED, now, "asked")

    def stop(self, now: Seconds) -> list[Action]:
        self.wanted = "stop"
        return self._move(Stimulus.STOP_ASKED, now, "asked")

    def drain(self, now: Seconds) -> list[Action]:
        """Finish what is there, then stop."""
        self.wanted = "stop"
        return self._move(Stimulus.DRAIN_ASKED, now, "asked")

    def withhold(self, now: Seconds) -> list[Action]:
        """Finish what is there, then stay without work until `resume`, over a death as well."""
        if self.wanted == "stop":
            return []
        self.wanted = "drain"
        return self._move(Stimulus.DRAIN_ASKED, now, "asked") if self.state is State.READY else []

    def resume(self, now: Seconds) -> list[Action]:
        """Take work again. One that is just being renewed has it again afterwards."""
        if self.wanted == "stop":
            return []
        self.wanted = "run"
        return [] if self.renewing else self._move(Stimulus.RESUME_ASKED, now, "asked")

    def restart(self, now: Seconds, why: str = "restart asked") -> list[Action]:
        """End this incarnation once it holds nothing, and start the next. Earlier failures are forgotten; one without work stays so."""
        if self.wanted == "stop":
            self.wanted = "run"
        self.failures = 0
        self.failed_at.clear()
        self.renewing = True
        if self.kind == "router" and self.state is State.READY:
            # What it holds is submitted again by the gateways: nothing has to be drained, and everything would wait for that.
            return self._move(Stimulus.STOP_ASKED, now, why)
        return self._move(Stimulus.RESTART_ASKED, now, why)

    def kill(self, now: Seconds, why: str) -> list[Action]:
        return self._move(Stimulus.KILL_ASKED, now, why)

    # ---- what it says, and what becomes of it

    def said_ready(self, now: Seconds) -> list[Action]:
        return self._move(Stimulus.READY_SAID_UNUSED if self.wanted == "drain" else Stimulus.READY_SAID, now, "ready")

    def said_drained(self, now: Seconds) -> list[Action]:
        kept = self.wanted == "drain" and not self.renewing
        return self._move(Stimulus.DRAINED_SAID_KEPT if kept else Stimulus.DRAINED_SAID, now, "drained")

    def said_fatal(self, error: str, permanent: bool) -> list[Action]:
        """It is about to exit, and this is why."""
        self.cause = error
        self.hopeless = permanent
        return []

    def spawn_failed(self, error: str, now: Seconds) -> list[Action]:
        self.last_error = error
        return self._failed(Stimulus.SPAWN_FAILED, now)

    def beat(self, busy_seconds: float | None, now: Seconds) -> list[Action]:
        """A sign of life; `busy_seconds` is how long its engine has been in one batch."""
        if self.state not in _BEATING:
            return []
        self.silent_at = now + self.timing.beat
        if busy_seconds is not None and busy_seconds > self.timing.hang:
            self.cause = f"its engine has been in one batch for {busy_seconds:.0f} s"
            return self._move(Stimulus.HUNG, now, self.cause)
        return []

    def exited(self, how: str, now: Seconds, last_lines: str = "") -> list[Action]:
        """The process is gone. `how` is "exit 1" or "SIGKILL"; `last_lines` the end of its output."""
        if self.state not in ALIVE:
            return []
        ours = self.cause is not None or self.state in (State.STOPPING, State.KILLING)
        lost = TellLost(self.incarnation, from_outside=how in FROM_OUTSIDE and not ours)
        if self.wanted == "stop":
            return [lost, *self._move(Stimulus.EXITED_WANTED, now, how)]
        if self.renewing:
            return [lost, *self._move(Stimulus.EXITED_TO_RETURN, now, how)]
        self.last_error = (
            f"{how}: {self.cause}" if self.cause else f"{how}; last output: {last_lines}" if last_lines else how
        )
        return [lost, *self._failed(Stimulus.EXITED_HOPELESS if self.hopeless else Stimulus.EXITED_UNWANTED, now)]

    def pardon(self, seconds: Seconds) -> None:
        """The supervisor was away for so long (stopped, swapped out, its machine paused): what it did not hear it may not hold against
        a child. Deadlines and the clock of silence move by as much.
        """
        if self.deadline is not None:
            self.deadline += seconds
        if self.silent_at is not None:
            self.silent_at += seconds

    def tick(self, now: Seconds, may_start: bool = True) -> list[Action]:
        """What has become due. `may_start`: whether one more process may start just now; a backoff that is over waits for it."""
        if self.silent_at is not None and now >= self.silent_at:
            self.cause = f"no sign of life for {self.timing.beat:g} s"
            return self._move(Stimulus.SILENT, now, self.cause)
        if self.deadline is None or now < self.deadline or (self.state is State.BACKOFF and not may_start):
            return []
        why = {
            State.STARTING: f"not ready after {self.timing.start:g} s (supervision.start_timeout_s)",
            State.DRAINING: f"not drained after {self.timing.drain:g} s",
            State.STOPPING: f"not stopped after {self.timing.stop:g} s",
            State.KILLING: f"not gone {self.timing.kill:g} s after SIGKILL",
            State.BACKOFF: "backoff over",
        }[self.state]
        if self.state is State.STARTING:
            self.cause = why
        return self._move(Stimulus.OVERDUE, now, why)

    @property
    def serving(self) -> bool:
        """Whether it is where it is wanted to be: ready, or drained where that was asked for."""
        return self.state is (State.DRAINED if self.wanted == "drain" else State.READY) and not self.renewing

    @property
    def abandoned(self) -> bool:
        """Whether waiting for its first readiness has become pointless."""
        return self.state is State.FAILED or (not self.ever_ready and self.failures >= ABANDONED_AFTER)

    def validate(self) -> None:
        """What must hold after each step; called by tests."""
        assert (self.deadline is not None) == (self.state in _TIMED), (self.state, self.deadline)
        assert (self.silent_at is not None) == (self.state in _BEATING), (self.state, self.silent_at)
        assert self.restarts <= max(0, self.incarnation - 1), (self.restarts, self.incarnation)
        if self.state is State.BACKOFF:
            assert self.wanted != "stop"
            assert self.failures >= 1
        if self.state is State.STOPPED:
            assert self.wanted == "stop"
        if self.flapping is not None:
            assert len(self.failed_at) < self.flapping.failures or self.state not in (State.BACKOFF, State.READY)

    def _failed(self, stimulus: Stimulus, now: Seconds) -> list[Action]:
        """One failure more: is it too many of late?"""
        error = self.last_error or "unknown"
        if self.flapping is not None and stimulus is not Stimulus.EXITED_HOPELESS:
            self.failed_at.append(now)
            while now - self.failed_at[0] > self.flapping.window:
                self.failed_at.popleft()
            if len(self.failed_at) >= self.flapping.failures:
                self.last_error = (
                    f"failed {len(self.failed_at)} times within {self.flapping.window:g} s "
                    f"(supervision.flap_failures, flap_window_s); the last time: {error}"
                )
                return self._move(Stimulus.FLAPPED, now, self.last_error)
        return self._move(stimulus, now, error)

    def _move(self, stimulus: Stimulus, now: Seconds, why: str) -> list[Action]:
        after = next_state(self.state, stimulus)
        if after is None:
            return []
        self.story.append((now, f"{stimulus}: {why}", after))
        before, self.state = self.state, after
        return [*self._enter(before, after, now), Changed(before, after, why)]

    def _enter(self, before: State, state: State, now: Seconds) -> list[Action]:
        timing = self.timing
        self.deadline = None
        self.silent_at = now + timing.beat if state in _BEATING else None
        match state:
            case State.STARTING:
                if self.incarnation:
                    self.restarts += 1
                self.incarnation = next(self.numbers)
                self.hopeless = self.renewing = False
                self.cause = None
                self.ready_at = None
                self.deadline = now + timing.start
                return [Spawn(self.incarnation)]
            case State.READY:
                if before is State.STARTING:
                    self.ready_at = now
                    self.ever_ready = True
                return [SendResume()]
            case State.DRAINED:
                if before is not State.STARTING:
                    return []
                self.ready_at = now
                self.ever_ready = True
                return [SendDrain()]
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
                self.renewing = False
                return []
