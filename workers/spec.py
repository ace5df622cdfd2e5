"""What does the supervisor tell a worker, and what does the worker tell it? Pure.

Each child process (worker, router, gateway) holds one end of a socketpair, its *channel*: newline-delimited JSON,
one message a line, in both directions. The first line from the supervisor is the child's specification. End of file on the channel
means that the supervisor is gone, and the child exits at once.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Artefact(msgspec.Struct, frozen=True):
    """A graph that an engine can load, and what its inputs and outputs are.

    Inputs: `input_ids` int32 [batch, length], `attention_mask` int32 [batch, length] (1 = token, 0 = padding), and where
    `token_types` is true `token_type_ids` int32 [batch, length]. One output, float32: [batch, width], or with
    `per_token` [batch, length, width].
    """

    path: str
    """The ONNX file."""
    engine: Literal["onnxruntime", "openvino"]
    precision: Literal["fp32", "bf16", "int8"]
    width: int
    """Floats per row."""
    vocab_size: int
    positions: int
    """The longest sequence that the graph can take."""
    per_token: bool = False
    token_types: bool = False
    pad_id: int = 0
    pixels: tuple[int, int, int] | None = None
    """(channels, height, width): the one input is `pixel_values` float32 [batch, channels, height, width], and an image counts as
    `positions` tokens. None: the inputs are token ids, as above.
    """


class WorkerSpec(msgspec.Struct, frozen=True):
    name: str
    incarnation: int
    cpus: list[int]
    membind: list[int]
    nodes_on_machine: int
    """One node needs no memory policy and no libnuma."""
    threads: int
    endpoint: str
    """Where the router takes workers in: `unix:///…` by a lane (`workers.lane`), `ipc://…` or `tcp://…` by ZeroMQ."""
    max_seqlen: int
    warmup: list[tuple[int, int]]
    """Shapes (batch, length) that are run before the worker says it is ready."""
    artefact: Artefact | None
    """None runs the fake engine of `workers.fake`, for tests of the router and the supervisor."""
    spin_us: int = 50
    """How long the engine's pool spins after a batch: 0 costs 45 % at 1×16 on two cores, 50 keeps the speed without the burn."""
    beat_seconds: float = 0.5
    costs: str = ""
    """The folder in which measured costs are kept; empty = nothing is measured."""
    fake: dict[str, Any] = {}


class Binding(msgspec.Struct, frozen=True):
    """How far the worker got on the ladder bind → preferred → none, in its own words."""

    policy: Literal["bind", "preferred", "default"]
    notes: list[str]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Child → supervisor: loaded, warmed up, serving."""

    seconds: float
    binding: Binding | None = None
    details: dict[str, Any] = {}


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """Child → supervisor: the process lives. `busy_seconds` is how long the engine has been in its current batch, None if idle."""

    busy_seconds: float | None = None
    batches: int = 0
    engine_cpu_seconds: float = 0.0
    """CPU time spent inside the engine since the start; the rest of the process's is messaging and start-up."""


class Fatal(msgspec.Struct, frozen=True, tag="fatal"):
    """Child → supervisor: cannot start, and why. `permanent` means that a restart cannot help."""

    error: str
    permanent: bool = False


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """Router or gateway → supervisor, once a second: a RouterReport or a GatewayStatus as plain JSON."""

    body: msgspec.Raw


class Drained(msgspec.Struct, frozen=True, tag="drained"):
    """Child → supervisor: nothing is in flight any more and nothing new is taken."""


class Held(msgspec.Struct, frozen=True, tag="held"):
    """Router → supervisor: this instance, which was to be held back, holds nothing any more."""

    name: str


class Recall(msgspec.Struct, frozen=True, tag="recall"):
    """Gateway → supervisor: how was it? Answered by Recalled."""

    step_seconds: Literal[2, 60]
    """The last ten minutes every 2 s, or the last six hours every minute."""


FromChild = Ready | Beat | Fatal | Stats | Drained | Held | Recall


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Supervisor → child, the first line. `spec` is a WorkerSpec, RouterSpec or GatewaySpec as JSON."""

    supervisor_pid: int
    spec: msgspec.Raw


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Supervisor → child: take nothing new, finish what is there, say Drained."""

    handover: bool = False
    """A gateway whose work others take over refuses nothing: it accepts no new connection, and answers what comes on the open ones
    with "Connection: close"."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Supervisor → child: exit now, status 0."""


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """Supervisor → router: this incarnation is gone; requeue what it held."""

    name: str
    incarnation: int
    from_outside: bool = False
    """Somebody ended it with a signal: what it was computing is probably not why."""


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Supervisor → router: give this instance nothing more, whatever its incarnation, and say Held when it holds nothing."""

    name: str


class Release(msgspec.Struct, frozen=True, tag="release"):
    """Supervisor → router: this instance gets work again."""

    name: str


class State(msgspec.Struct, frozen=True, tag="state"):
    """Supervisor → gateway, once a second and at each change of state: the Status document."""

    status: msgspec.Raw


class Recalled(msgspec.Struct, frozen=True, tag="recalled"):
    """Supervisor → gateway, when it asks: a History document."""

    step_seconds: Literal[2, 60]
    history: msgspec.Raw


class Configure(msgspec.Struct, frozen=True, tag="configure"):
    """Supervisor → router: a changed plan (JSON of Plan)."""

    plan: msgspec.Raw
    description: dict[str, Any] | None = None
    """What the router tells clients of the model from now on; None leaves it as it is."""


ToChild = Start | Drain | Stop | Lost | State | Recalled | Configure | Hold | Release
