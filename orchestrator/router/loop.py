"""How do bytes become events, and actions bytes? The router's sockets, without asyncio.

Two ROUTER sockets: `front` for gateways and clients, `back` for workers. One poller over both and the supervisor's channel. Each
socket is drained without blocking in bursts of at most `BURST` messages, so that neither side starves the other. Nothing
waits in a socket on the way out either: a peer that has gone (EHOSTUNREACH) or never reads (EAGAIN, once the high-water
mark is reached) is noticed at once, thanks to ROUTER_MANDATORY. What does not decode is counted and dropped.
"""

from __future__ import annotations

import math
import os
import resource
import secrets
import stat
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, assert_never

import msgspec
import zmq

from orchestrator.plan.model import Plan
from orchestrator.router.codec import batch_frame, refused_frame, reply_frames, request_from, row_starts
from orchestrator.router.core import RouterCore
from orchestrator.router.events import (
    Action,
    BatchDone,
    BatchFailed,
    Cancel,
    Client,
    ClientGone,
    Dispatch,
    Drain,
    Drained,
    Event,
    Held,
    Hold,
    Note,
    PlanChanged,
    Refuse,
    Release,
    Reply,
    Tick,
    Undelivered,
    WorkerHello,
    WorkerLeft,
    WorkerLost,
)
from orchestrator.router.spec import RouterSpec
from workers import spec as messages
from workers import wire
from workers.channel import Channel
from workers.said import Level, say

BURST: Final = 64
"""Messages that are taken from one socket before the other one is looked at: about 2 ms of work."""
# More than a gateway may have in flight (4096), so that a burst of answers to one gateway never meets the mark.
FRONT_MESSAGES: Final = 8192
# A worker holds two batches at most, and says little.
BACK_MESSAGES: Final = 256
_LARGEST_MESSAGE: Final = 128 << 20
_LARGE_ROWS: Final = 1 << 16
"""From here on pyzmq hands rows over without a copy; below, the copy is cheaper than the bookkeeping."""
_LONGEST_WAIT_SECONDS: Final = 1.0
_LINGER_MS: Final = 500

_NOWAIT: Final = zmq.NOBLOCK
_MORE: Final = zmq.NOBLOCK | zmq.SNDMORE
# The peer is gone, or does not read.
_UNSENDABLE: Final = (zmq.EHOSTUNREACH, zmq.EAGAIN)


class Peer(msgspec.Struct, frozen=True):
    """A worker as its ROUTER identity names it."""

    name: str
    incarnation: int


class BindError(Exception):
    """An endpoint cannot be bound: says which, why and what to do."""


class RouterLoop:
    def __init__(
        self,
        spec: RouterSpec,
        channel: Channel,
        *,
        clock: Callable[[], float] = time.monotonic,
        boot: int | None = None,
    ) -> None:
        self._spec = spec
        self._channel = channel
        self._clock = clock
        self.boot = secrets.randbits(64) if boot is None else boot
        # Batch ids begin with 31 bits of the boot number: a worker may still answer a batch of the router before this one.
        self.core = RouterCore(spec.plan, first_batch_id=(self.boot & 0x7FFFFFFF) << 32 | 1)
        self.malformed_frames = 0
        self.undelivered_replies = 0
        self._peers: dict[bytes, Peer] = {}
        """By identity, those that the core has taken in."""
        self._identities: dict[str, bytes] = {}
        """By name, the identity of the latest incarnation that the core has taken in."""
        self._troubles: deque[ClientGone | Undelivered] = deque()
        self._bundlers: set[Client] = set()
        """Clients that have sent a BUNDLE, and so take them."""
        """What went wrong while actions were performed; the core has not been told yet."""
        self._description = wire.encode_json(wire.DESCRIPTION, spec.description)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._front = self._context.socket(zmq.ROUTER)
        self._back = self._context.socket(zmq.ROUTER)
        self._stopped = False

    # ---- life ---------------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Binds both sockets; BindError if one cannot be."""
        for socket, endpoint, mark in (
            (self._front, self._spec.front, FRONT_MESSAGES),
            (self._back, self._spec.back, BACK_MESSAGES),
        ):
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
            socket.setsockopt(zmq.SNDHWM, mark)
            socket.setsockopt(zmq.RCVHWM, mark)
            socket.setsockopt(zmq.MAXMSGSIZE, _LARGEST_MESSAGE)
            socket.setsockopt(zmq.LINGER, _LINGER_MS)
            remove_stale(endpoint)
            try:
                socket.bind(endpoint)
            except zmq.ZMQError as error:
                raise BindError(f"cannot bind {endpoint}: {error}; is another router running there?") from None

    def close(self) -> None:
        """Lets go of the sockets; waits for what is still being sent, half a second at most."""
        self._front.close()
        self._back.close()
        self._context.term()

    def run(self) -> None:
        """Serves until the supervisor says Stop; SupervisorGone if it has gone."""
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        poller.register(self._channel.fileno(), zmq.POLLIN)
        channel = self._channel.fileno()
        clock = self._clock
        next_report = clock() + self._spec.report_seconds
        while not self._stopped:
            now = clock()
            if now >= next_report:
                self._report(now)
                next_report = now + self._spec.report_seconds
            wake = self.core.next_wake(now)
            if wake <= now:
                self._handle(Tick(), now)
                wake = self.core.next_wake(now)
            wait = min(wake, next_report, now + _LONGEST_WAIT_SECONDS) - now
            for source, _ in poller.poll(max(0, math.ceil(wait * 1e3))):
                # Workers first: what they bring makes room for what the clients bring.
                if source is self._back:
                    self._read_back()
                elif source is self._front:
                    self._read_front()
                elif source == channel:
                    self._read_channel()

    # ---- clients ------------------------------------------------------------------------------------------------

    def _read_front(self) -> None:
        socket = self._front
        receive = socket.recv
        try:
            for _ in range(BURST):
                client = receive(_NOWAIT)
                last = receive(_NOWAIT, copy=False)  # a Frame says whether more follow for half the price of RCVMORE
                frame = last.bytes
                if last.more:
                    self._malformed("client", f"{1 + self._skip(socket)} frames, expected 1", client, frame)
                    continue
                try:
                    self._from_client(client, frame)
                except wire.WireError as error:
                    self._malformed("client", str(error), client, frame)
        except zmq.Again:
            return

    def _from_client(self, client: bytes, frame: wire.Buffer) -> None:
        kind = wire.kind_of(frame)
        if kind == wire.SUBMIT:
            self._handle(request_from(client, frame, self._spec.pixel_bytes), self._clock())
        elif kind == wire.BUNDLE:
            self._bundlers.add(Client(client))
            for one in wire.decode_bundle(frame):
                try:
                    if wire.kind_of(one) == wire.BUNDLE:
                        raise wire.WireError("a bundle in a bundle")
                    self._from_client(client, one)
                except wire.WireError as error:  # the others of the bundle are none the worse for it
                    self._malformed("client", str(error), client, one)
        elif kind == wire.CANCEL:
            self._handle(Cancel(Client(client), wire.decode_id(frame)), self._clock())
        elif kind == wire.PING:
            self._send_client(client, wire.encode_pong(wire.decode_id(frame), self.boot))
        elif kind == wire.DESCRIBE:
            self._send_client(client, self._description)
        else:
            raise wire.WireError(f"kind {kind} is nothing that a client sends")

    def _send_client(self, client: bytes, frame: bytes, rows: wire.Buffer | None = None) -> None:
        """One that does not read misses the message; one that has gone is cancelled. Both are counted."""
        send = self._front.send
        try:
            send(client, _MORE)
            if rows is None:
                send(frame, _NOWAIT)
            else:
                send(frame, _MORE)
                send(rows, _NOWAIT, len(rows) < _LARGE_ROWS)
        except zmq.ZMQError as error:
            if error.errno not in _UNSENDABLE:
                raise
            self.undelivered_replies += 1
            if error.errno == zmq.EHOSTUNREACH:
                self._troubles.append(ClientGone(Client(client)))
                self._bundlers.discard(Client(client))

    # ---- workers ------------------------------------------------------------------------------------------------

    def _read_back(self) -> None:
        socket = self._back
        receive = socket.recv
        try:
            for _ in range(BURST):
                identity = receive(_NOWAIT)
                last = receive(_NOWAIT, copy=False)
                frame, rows = last.bytes, None
                if last.more:
                    last = receive(_NOWAIT, copy=False)
                    rows = last.bytes
                if last.more:
                    why = f"{2 + self._skip(socket)} frames, expected 1 or 2"
                    self._malformed("worker", why, identity)
                    self._unreadable(identity, frame, why)
                    continue
                try:
                    self._from_worker(identity, frame, rows)
                except wire.WireError as error:
                    self._malformed("worker", str(error), identity)
                    self._unreadable(identity, frame, str(error))
        except zmq.Again:
            return

    def _from_worker(self, identity: bytes, frame: bytes, rows: bytes | None) -> None:
        kind = wire.kind_of(frame)
        if rows is not None and kind != wire.BATCH_RESULT:
            raise wire.WireError(f"kind {kind} with 2 frames, expected 1")
        if kind == wire.HELLO:
            self._hello(identity, wire.decode_hello(frame))
            return
        peer = self._peers.get(identity)
        if peer is None:
            # This router is younger than the worker's last HELLO.
            self._send_worker(identity, wire.encode_bare(wire.WHO))
            return
        now = self._clock()
        if kind == wire.BATCH_RESULT:
            if rows is None:
                raise wire.WireError("batch result of 1 frame, expected 2")
            result = wire.decode_batch_result(frame, rows)
            done = BatchDone(peer.name, peer.incarnation, result.batch_id, len(result.row_bytes), result.infer_us)
            self._handle(done, now, result)
        elif kind == wire.BATCH_FAILED:
            batch_id, message = wire.decode_batch_failed(frame)
            self._handle(BatchFailed(peer.name, peer.incarnation, batch_id, message), now)
        elif kind == wire.BYE:
            del self._peers[identity]
            self._handle(WorkerLeft(peer.name, peer.incarnation), now)
        else:
            raise wire.WireError(f"kind {kind} is nothing that a worker sends")

    def _unreadable(self, identity: bytes, frame: bytes, why: str) -> None:
        """An answer that cannot be read ends its batch all the same: its worker will not answer it a second time."""
        batch_id, peer = wire.batch_id_of(frame), self._peers.get(identity)
        if batch_id is not None and peer is not None:
            message = f"{peer.name} gave an answer that cannot be read: {why}"
            self._handle(BatchFailed(peer.name, peer.incarnation, batch_id, message), self._clock())

    def _hello(self, identity: bytes, hello: wire.Hello) -> None:
        expected = identity_of(hello.name, hello.incarnation)
        if identity != expected:
            raise wire.WireError(f"hello of {expected!r} from the identity {identity!r}")
        if identity in self._peers and self.core.is_current(hello.name, hello.incarnation):
            return  # an idle worker repeats itself five times a second: that is no event, and would fill the story
        # Known before the core is told, whose first batch may follow at once; forgotten again if it does not take it in.
        before = self._identities.get(hello.name)
        self._identities[hello.name] = identity
        said = WorkerHello(hello.name, hello.incarnation, hello.max_seqlen, hello.pid, tuple(hello.costs))
        self._handle(said, self._clock())
        if self.core.is_current(hello.name, hello.incarnation):
            if before is not None and before != identity:
                self._peers.pop(before, None)
            if identity not in self._peers:
                self._peers[identity] = Peer(hello.name, hello.incarnation)
        elif before is not None:
            self._identities[hello.name] = before
        else:
            del self._identities[hello.name]

    def _send_worker(self, identity: bytes, frame: bytes) -> bool:
        """False if there is no way to this worker, or it does not read although it holds two batches at most."""
        try:
            self._back.send(identity, _MORE)
            self._back.send(frame, _NOWAIT)
        except zmq.ZMQError as error:
            if error.errno not in _UNSENDABLE:
                raise
            return False
        return True

    # ---- the core -----------------------------------------------------------------------------------------------

    def _handle(self, event: Event, now: float, result: wire.BatchResult | None = None) -> None:
        """Lets the core decide and performs what it decided; `result` holds the rows that replies to this event carry.

        What goes wrong meanwhile is an event of its own, told to the core once all actions of this one are performed: until
        then they stand for what the core believes.
        """
        actions = self.core.handle(event, now)
        if actions:
            starts = row_starts(result) if result is not None else []
            if result is not None and self._bundlers and len(actions) > 1:
                actions = self._answer_bundlers(actions, result, starts)
            for action in actions:
                self._perform(action, result, starts)
        while self._troubles:
            trouble = self._troubles.popleft()
            for action in self.core.handle(trouble, now):
                self._perform(action, None, [])

    def _answer_bundlers(self, actions: list[Action], result: wire.BatchResult, starts: list[int]) -> list[Action]:
        """Sends the replies of one batch to one client as one message, where the client bundles; returns what is left to do."""
        left: list[Action] = []
        bundles: dict[Client, tuple[list[bytes], list[wire.Buffer]]] = {}
        for action in actions:
            if not isinstance(action, Reply) or action.request.client not in self._bundlers:
                left.append(action)
                continue
            instance = self.core.roster.instances[action.flight.instance]
            meta, rows = reply_frames(action, result, starts, instance.label, instance.bucket)
            metas, parts = bundles.setdefault(action.request.client, ([], []))
            metas.append(meta)
            parts.append(rows)
        for client, (metas, parts) in bundles.items():
            if len(metas) == 1:
                self._send_client(client, metas[0], parts[0])
            else:
                self._send_client(client, wire.encode_bundle(metas), b"".join(parts))
        return left

    def _perform(self, action: Action, result: wire.BatchResult | None, starts: list[int]) -> None:
        match action:
            case Reply():
                if result is None:
                    raise LookupError("a reply to an event that brought no rows")
                instance = self.core.roster.instances[action.flight.instance]
                meta, rows = reply_frames(action, result, starts, instance.label, instance.bucket)
                self._send_client(action.request.client, meta, rows)
            case Dispatch():
                flight = action.flight
                identity = self._identities[flight.instance]
                if not self._send_worker(identity, batch_frame(action)):
                    self._peers.pop(identity, None)
                    self._troubles.append(Undelivered(flight.instance, flight.incarnation, flight.batch_id))
            case Refuse():
                self._send_client(action.request.client, refused_frame(action))
            case Note():
                log(action.text)
            case Held():
                log(f"instance={action.name} holds nothing")
                self._channel.send(messages.Held(action.name))
            case Drained():
                log("drained")
                self._channel.send(messages.Drained())
            case _:
                assert_never(action)

    # ---- the supervisor -----------------------------------------------------------------------------------------

    def _read_channel(self) -> None:
        for message in self._channel.receive():
            now = self._clock()
            match message:
                case messages.Lost():
                    self._peers.pop(identity_of(message.name, message.incarnation), None)
                    self._handle(WorkerLost(message.name, message.incarnation), now)
                case messages.Configure():
                    try:
                        plan = msgspec.json.decode(message.plan, type=Plan)
                    except msgspec.DecodeError as error:
                        log(f"kept the plan: what the supervisor sent is none: {error}")
                        continue
                    self._handle(PlanChanged(plan), now)
                case messages.Hold():
                    self._handle(Hold(message.name), now)
                case messages.Release():
                    self._handle(Release(message.name), now)
                case messages.Drain():
                    log("draining")
                    self._handle(Drain(), now)
                case messages.Stop():
                    self._stopped = True
                case messages.Start() | messages.State():
                    log(f"ignored a {type(message).__name__} from the supervisor")
                case _:
                    assert_never(message)

    def _report(self, now: float) -> None:
        report = self.core.report(now, "draining" if self.core.draining else "ready")
        status = report.router
        status.pid = os.getpid()
        status.malformed_frames = self.malformed_frames
        status.undelivered_replies = self.undelivered_replies
        status.cpu_seconds = time.process_time()
        status.rss_bytes = _rss_bytes()
        self._channel.send(messages.Stats(msgspec.Raw(msgspec.json.encode(report))))

    # ---- what does not decode -----------------------------------------------------------------------------------

    def _malformed(self, who: str, why: str, identity: bytes, submit: wire.Buffer | None = None) -> None:
        """Counts a message and drops it. A SUBMIT that still names its request is refused, so that nobody waits for it."""
        self.malformed_frames += 1
        if self.malformed_frames & (self.malformed_frames - 1) == 0:  # the 1st, 2nd, 4th, 8th, …: a flood fills no disk
            log(f"dropped a malformed message of a {who} {identity[:32]!r} (number {self.malformed_frames}): {why}")
        if submit is not None and (request_id := wire.request_id_of(submit)) is not None:
            self._send_client(identity, wire.encode_refused(request_id, "malformed", message=why))

    @staticmethod
    def _skip(socket: zmq.Socket[bytes]) -> int:
        """Reads the rest of a message of too many frames, returns how many there were."""
        skipped = 0
        while socket.get(zmq.RCVMORE):
            socket.recv(_NOWAIT)
            skipped += 1
        return skipped


def identity_of(name: str, incarnation: int) -> bytes:
    """The routing id that a worker gives its DEALER."""
    return f"{name}#{incarnation}".encode()


def remove_stale(endpoint: str) -> None:
    """Removes the socket file that a killed router left behind; BindError if something else is there."""
    if not endpoint.startswith("ipc:///"):
        return
    path = Path(endpoint.removeprefix("ipc://"))
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"cannot bind {endpoint}: {path} is there and is no socket; remove it or choose another place")
    path.unlink()


def log(text: str, level: Level = "info") -> None:
    say(text, level=level)


def _rss_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * resource.getpagesize()
