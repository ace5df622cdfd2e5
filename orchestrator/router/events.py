"""What can happen to the router, and what does the router do about it? Pure.

Events go into `RouterCore.handle`, actions come out. Neither holds tensors: the shell keeps the token ids on the request
(`Request.payload`) and the rows of a result in its own hands while it performs the actions that follow from it. So the
story of events and actions stays small, and what is simulated is what is shipped.

Records that live long (`Request`, `Item`, `Flight`) are mutable and belong to the core; all else is frozen.
`gc=False`: the cycle Request ↔ Item is broken by hand when a request settles.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Literal, NewType

import msgspec

from orchestrator.plan.model import Plan
from workers.said import Level
from workers.wire import Cost

Seconds = float
Client = NewType("Client", bytes)
"""The ZeroMQ identity of a gateway or a client."""

Reason = Literal[
    "queue_full", "too_long", "deadline", "draining", "no_instance", "worker_lost", "model_error", "malformed", "cancelled"
]  # fmt: skip


class State(IntEnum):
    """Where a sequence is. A sequence that leaves SETTLED would be answered twice; nothing does that."""

    QUEUED = 0
    IN_FLIGHT = 1
    SETTLED = 2


# Members of an IntEnum cost a lookup each; the hot path compares with these.
QUEUED = State.QUEUED
IN_FLIGHT = State.IN_FLIGHT
SETTLED = State.SETTLED


class Request(msgspec.Struct, gc=False, eq=False):
    """Event: a client submits sequences. It is also the core's record of them until the last one is settled."""

    client: Client
    request_id: int
    lengths: list[int]
    """Tokens of each sequence."""
    timeout_ms: int = 0
    """0 = no deadline."""
    priority: int = 1
    """Index into `wire.PRIORITIES`."""
    payload: Any = None
    """The shell's: the token ids. Let go when the request is settled."""
    arrived: Seconds = 0.0
    deadline: Seconds = float("inf")
    unsettled: int = 0
    """Sequences that are not answered yet; 0 = nothing more is sent for this request."""
    items: list[Item] = []
    tenant: int = 0
    """Who asks, as the gateway tells them apart (API key, address); 0 = the client itself."""
    tenancy: Any = None
    """The ledger's: how many requests of the tenant are in progress."""
    flow: int = 0
    """Stands for tenant and priority while the request is in progress."""
    turn: Seconds = 0.0
    """Arrival plus what its class has to wait: the earliest goes first between classes."""


class Item(msgspec.Struct, gc=False, eq=False):
    """One sequence."""

    request: Request
    position: int
    length: int
    rank: int
    """Order of arrival; the queue serves the lowest first and a requeued item keeps its own."""
    state: State = QUEUED
    attempts: int = 1
    deaths: int = 0
    """Workers that died while they computed it."""
    blame: int = 0
    """How much speaks for it that they died of it (`core.CRASHED`, `core.KILLED`)."""
    alone: bool = False
    """Its batch failed or killed a worker: next time it computes alone, so that it cannot harm others again."""
    lane: int = -1


class Flight(msgspec.Struct, gc=False, eq=False):
    """A batch that a worker holds."""

    batch_id: int
    instance: str
    incarnation: int
    items: list[Item]
    longest: int
    predicted: Seconds
    """Service time."""
    sent: Seconds
    started: Seconds
    """When the worker began with it as far as the router knows; infinity while it is only prefetched."""
    home: bool
    """False where the batch was taken over from another instance's lane."""


class WorkerHello(msgspec.Struct, frozen=True):
    """A worker is connected and idle."""

    name: str
    incarnation: int
    max_seqlen: int
    pid: int = 0
    costs: tuple[Cost, ...] = ()
    """What it measured before it was ready."""


class BatchDone(msgspec.Struct, frozen=True, gc=False):
    name: str
    incarnation: int
    batch_id: int
    rows: int
    """How many rows the worker answered with."""
    infer_us: int


class BatchFailed(msgspec.Struct, frozen=True):
    """The engine raised an error; the worker lives."""

    name: str
    incarnation: int
    batch_id: int
    message: str


class WorkerLost(msgspec.Struct, frozen=True):
    """The supervisor says that this incarnation is dead."""

    name: str
    incarnation: int
    from_outside: bool = False
    """Somebody ended it with a signal. Otherwise it crashed or hung."""


class WorkerLeft(msgspec.Struct, frozen=True):
    """The worker says BYE: it computes nothing any more."""

    name: str
    incarnation: int


class Undelivered(msgspec.Struct, frozen=True):
    """The transport could not hand this batch to its worker. The same incarnation may come back with a HELLO."""

    name: str
    incarnation: int
    batch_id: int


class Cancel(msgspec.Struct, frozen=True):
    client: Client
    request_id: int


class ClientGone(msgspec.Struct, frozen=True):
    """The transport has no way to this client any more."""

    client: Client


class Tick(msgspec.Struct, frozen=True):
    """Time has passed. Sent when `RouterCore.next_wake` says so."""


class PlanChanged(msgspec.Struct, frozen=True):
    plan: Plan


class Hold(msgspec.Struct, frozen=True):
    """This instance gets nothing new, over all its incarnations, until it is released. What it holds, it answers."""

    name: str


class Release(msgspec.Struct, frozen=True):
    """It gets work again."""

    name: str


class Drain(msgspec.Struct, frozen=True):
    """Take nothing new, finish what is there."""


Event = (
    Request | BatchDone | Tick | WorkerHello | BatchFailed | WorkerLost | WorkerLeft | Undelivered
    | Cancel | ClientGone | PlanChanged | Hold | Release | Drain
)  # fmt: skip


class Dispatch(msgspec.Struct, frozen=True, gc=False):
    """Send this batch to its worker."""

    flight: Flight


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Answer these sequences of one request with rows `rows` of the batch that has just come back."""

    request: Request
    items: list[Item]
    rows: list[int]
    flight: Flight
    infer_us: int


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """Tell the client that what is unanswered of this request will not be answered."""

    request: Request
    reason: Reason
    message: str
    retry_after_ms: int = 0


class Drained(msgspec.Struct, frozen=True):
    """Nothing is queued or in flight and nothing new is taken. Said once."""


class Held(msgspec.Struct, frozen=True):
    """A withheld instance holds nothing any more. Each Hold is answered so in the end."""

    name: str


class Note(msgspec.Struct, frozen=True):
    """One line for the log: a change of state, or what befell requests."""

    text: str
    level: Level = "info"
    requests: tuple[str, ...] = ()
    """As `workers.said.request_name` calls them."""
    batch: int | None = None


Action = Dispatch | Reply | Refuse | Held | Drained | Note
