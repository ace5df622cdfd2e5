"""In which states can a child be, and what moves it? Pure.

The table is the whole truth: what is not in it is ignored (a late message is normal). `python -m orchestrator.supervisor.states`
prints it as the diagram of the docs. Intent (`wanted`) is kept apart from state: `wanted=RUN, state=STOPPING` explains itself.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    INITIAL = "initial"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    KILLING = "killing"
    BACKOFF = "backoff"
    FAILED = "failed"
    STOPPED = "stopped"


class Stimulus(StrEnum):
    START_ASKED = "start asked"
    STOP_ASKED = "stop asked"
    DRAIN_ASKED = "drain asked"
    KILL_ASKED = "kill asked"
    READY_SAID = "ready said"
    FATAL_SAID = "permanent failure said"
    DRAINED_SAID = "drained said"
    SPAWN_FAILED = "spawn failed"
    HUNG = "engine hung"
    OVERDUE = "overdue"
    EXITED_WANTED = "exited, wanted to stop"
    EXITED_UNWANTED = "exited, wanted to run"
    EXITED_HOPELESS = "exited, a restart cannot help"


_S, _I = State, Stimulus
_ALIVE = (_S.STARTING, _S.READY, _S.DRAINING, _S.STOPPING, _S.KILLING)

TABLE: dict[tuple[State, Stimulus], State] = {
    (_S.INITIAL, _I.START_ASKED): _S.STARTING,
    (_S.STOPPED, _I.START_ASKED): _S.STARTING,
    (_S.FAILED, _I.START_ASKED): _S.STARTING,
    (_S.STARTING, _I.READY_SAID): _S.READY,
    (_S.STARTING, _I.OVERDUE): _S.KILLING,  # the start-up deadline
    (_S.STARTING, _I.SPAWN_FAILED): _S.BACKOFF,
    (_S.READY, _I.OVERDUE): _S.KILLING,  # no beat: stopped or starved
    (_S.READY, _I.HUNG): _S.KILLING,
    (_S.READY, _I.DRAIN_ASKED): _S.DRAINING,
    (_S.DRAINING, _I.DRAINED_SAID): _S.STOPPING,
    (_S.DRAINING, _I.OVERDUE): _S.STOPPING,
    (_S.STOPPING, _I.OVERDUE): _S.KILLING,
    (_S.KILLING, _I.OVERDUE): _S.KILLING,  # said once more: a process in uninterruptible sleep dies when it wakes
    (_S.BACKOFF, _I.OVERDUE): _S.STARTING,
    (_S.BACKOFF, _I.STOP_ASKED): _S.STOPPED,
    (_S.BACKOFF, _I.DRAIN_ASKED): _S.STOPPED,
    (_S.INITIAL, _I.STOP_ASKED): _S.STOPPED,
    (_S.FAILED, _I.STOP_ASKED): _S.STOPPED,
    (_S.STARTING, _I.STOP_ASKED): _S.KILLING,  # it holds nothing yet
    (_S.STARTING, _I.DRAIN_ASKED): _S.KILLING,
    (_S.READY, _I.STOP_ASKED): _S.STOPPING,
    (_S.DRAINING, _I.STOP_ASKED): _S.STOPPING,
    **{(state, _I.KILL_ASKED): _S.KILLING for state in _ALIVE},
    **{(state, _I.EXITED_WANTED): _S.STOPPED for state in _ALIVE},
    **{(state, _I.EXITED_UNWANTED): _S.BACKOFF for state in _ALIVE},
    **{(state, _I.EXITED_HOPELESS): _S.FAILED for state in _ALIVE},
}


def next_state(state: State, stimulus: Stimulus) -> State | None:
    """Where a stimulus leads, None where it means nothing in this state."""
    return TABLE.get((state, stimulus))


def diagram() -> str:
    """The table as a Mermaid state diagram, one line a transition."""
    lines = ["stateDiagram-v2"]
    lines += [f"    {state} --> {after}: {stimulus}" for (state, stimulus), after in TABLE.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
