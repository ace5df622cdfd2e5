"""In which states can a child be, and what moves it? Pure.

The table is the whole truth: what is not in it is ignored (a late message is normal). `python -m orchestrator.supervisor.states`
prints it as the diagram of the docs. Intent (`Child.wanted`, `Child.renewing`) is kept apart from state: `wanted=run,
state=stopping, renewing` explains itself. Where the same event leads to different states by intent, it is two stimuli.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    INITIAL = "initial"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    DRAINED = "drained"
    STOPPING = "stopping"
    KILLING = "killing"
    BACKOFF = "backoff"
    FAILED = "failed"
    STOPPED = "stopped"


class Stimulus(StrEnum):
    START_ASKED = "start asked"
    STOP_ASKED = "stop asked"
    DRAIN_ASKED = "drain asked"
    RESUME_ASKED = "resume asked"
    RESTART_ASKED = "restart asked"
    KILL_ASKED = "kill asked"
    READY_SAID = "ready said"
    READY_SAID_UNUSED = "ready said, wanted without work"
    DRAINED_SAID = "drained said"
    DRAINED_SAID_KEPT = "drained said, wanted without work"
    SPAWN_FAILED = "spawn failed"
    SILENT = "silent"
    HUNG = "engine hung"
    OVERDUE = "overdue"
    EXITED_WANTED = "exited, wanted to stop"
    EXITED_TO_RETURN = "exited, wanted to start again"
    EXITED_UNWANTED = "exited, wanted to run"
    EXITED_HOPELESS = "exited, a restart cannot help"
    FLAPPED = "failed too often"


_S, _I = State, Stimulus
ALIVE = (_S.STARTING, _S.READY, _S.DRAINING, _S.DRAINED, _S.STOPPING, _S.KILLING)
"""There is a process."""
AT_REST = (_S.STOPPED, _S.FAILED)
"""There is none, and nobody will start one by himself."""

TABLE: dict[tuple[State, Stimulus], State] = {
    (_S.INITIAL, _I.START_ASKED): _S.STARTING,
    (_S.STOPPED, _I.START_ASKED): _S.STARTING,
    (_S.FAILED, _I.START_ASKED): _S.STARTING,
    (_S.STARTING, _I.READY_SAID): _S.READY,
    (_S.STARTING, _I.READY_SAID_UNUSED): _S.DRAINED,
    (_S.STARTING, _I.OVERDUE): _S.KILLING,  # the start-up deadline
    (_S.STARTING, _I.SPAWN_FAILED): _S.BACKOFF,
    (_S.STARTING, _I.FLAPPED): _S.FAILED,
    (_S.READY, _I.DRAIN_ASKED): _S.DRAINING,
    (_S.READY, _I.RESTART_ASKED): _S.DRAINING,
    (_S.DRAINING, _I.DRAINED_SAID): _S.STOPPING,
    (_S.DRAINING, _I.DRAINED_SAID_KEPT): _S.DRAINED,
    (_S.DRAINING, _I.RESUME_ASKED): _S.READY,
    (_S.DRAINING, _I.OVERDUE): _S.STOPPING,
    (_S.DRAINED, _I.RESUME_ASKED): _S.READY,
    (_S.DRAINED, _I.DRAIN_ASKED): _S.STOPPING,  # to stop: it holds nothing
    (_S.DRAINED, _I.RESTART_ASKED): _S.STOPPING,
    (_S.STOPPING, _I.OVERDUE): _S.KILLING,
    (_S.KILLING, _I.OVERDUE): _S.KILLING,  # said once more: a process in uninterruptible sleep dies when it wakes
    (_S.BACKOFF, _I.OVERDUE): _S.STARTING,
    (_S.STARTING, _I.STOP_ASKED): _S.KILLING,  # it holds nothing yet
    (_S.STARTING, _I.DRAIN_ASKED): _S.KILLING,
    (_S.STARTING, _I.RESTART_ASKED): _S.KILLING,
    (_S.READY, _I.STOP_ASKED): _S.STOPPING,
    (_S.DRAINING, _I.STOP_ASKED): _S.STOPPING,
    (_S.DRAINED, _I.STOP_ASKED): _S.STOPPING,
    **{(state, _I.STOP_ASKED): _S.STOPPED for state in (_S.INITIAL, _S.BACKOFF, _S.FAILED)},
    **{(state, _I.DRAIN_ASKED): _S.STOPPED for state in (_S.INITIAL, _S.BACKOFF, _S.FAILED)},
    **{(state, _I.RESTART_ASKED): _S.STARTING for state in (_S.INITIAL, _S.BACKOFF, _S.FAILED, _S.STOPPED)},
    **{(state, _I.SILENT): _S.KILLING for state in (_S.READY, _S.DRAINING, _S.DRAINED)},  # stopped or starved
    **{(state, _I.HUNG): _S.KILLING for state in (_S.READY, _S.DRAINING)},
    **{(state, _I.KILL_ASKED): _S.KILLING for state in ALIVE},
    **{(state, _I.EXITED_WANTED): _S.STOPPED for state in ALIVE},
    **{(state, _I.EXITED_TO_RETURN): _S.STARTING for state in ALIVE},
    **{(state, _I.EXITED_UNWANTED): _S.BACKOFF for state in ALIVE},
    **{(state, _I.EXITED_HOPELESS): _S.FAILED for state in ALIVE},
    **{(state, _I.FLAPPED): _S.FAILED for state in ALIVE},
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
