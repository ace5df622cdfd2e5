"""How do bytes become events, and actions bytes? The router's loop, without asyncio.

What comes through the ports is decoded and told to the core; what the core decides is encoded and sent. What does not decode is
counted and dropped. A peer that has gone is an event of its own.
"""

from __future__ import annotations

import os
import resource
import secrets
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, assert_never

import msgspec

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
from orchestrator.router.ports import Ports
from orchestrator.router.spec import RouterSpec
from workers import spec as messages
from workers import wire
from workers.channel import Channel
from workers.said import Level, batch_name, say

_LONGEST_WAIT_SECONDS: Final = 1.0


class Peer(msgspec.Struct, frozen=True):
    """A worker as its ROUTER identity names it."""

    name: str
    incarnation: int


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
        """What went wrong while actions were performed; the core has not been told yet."""
        self._description = wire.encode_json(wire.DESCRIPTION, spec.description)
        self._ports = Ports(spec.front, spec.back, spec.local, self, channel.fileno())
        self._stopped = False

    # ---- life ---------------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Binds all sockets; BindError if one cannot be."""
        self._ports.bind()

    def close(self) -> None:
        """Lets go of the sockets; waits for what is still being sent, half a second at most."""
        self._ports.close()

    def run(self) -> None:
        """Serves until the supervisor says Stop; SupervisorGone if it has gone."""
        clock, ports = self._clock, self._ports
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
            if ports.wait(min(wake, next_report, now + _LONGEST_WAIT_SECONDS) - now):
                self._read_channel()

    # ---- clients ------------------------------------------------------------------------------------------------

    def client_message(self, sender: bytes, frames: list[bytes]) -> None:
        if len(frames) != 1:
            self._malformed("client", f"{len(frames)} frames, expected 1", sender, frames[0] if frames else None)
            return
        try:
            self._from_client(sender, frames[0])
        except wire.WireError as error:
            self._malformed("client", str(error), sender, frames[0])

    def client_gone(self, sender: bytes) -> None:
        """Nobody reads its answers any more: what it asked for and is not computed yet never will be."""
        self._handle(ClientGone(Client(sender)), self._clock())

    def _from_client(self, client: bytes, frame: wire.Buffer) -> None:
        kind = wire.kind_of(frame)
        if kind == wire.SUBMIT:
            self._handle(request_from(client, frame, self._spec.pixel_bytes), self._clock())
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
        sent = self._ports.send_client(client, frame, rows)
        if sent != "sent":
            self.undelivered_replies += 1
            if sent == "gone":
                self._troubles.append(ClientGone(Client(client)))

    # ---- workers ------------------------------------------------------------------------------------------------

    def worker_message(self, sender: bytes, frames: list[bytes]) -> None:
        if not 1 <= len(frames) <= 2:
            why = f"{len(frames)} frames, expected 1 or 2"
            self._malformed("worker", why, sender)
            if frames:
                self._unreadable(sender, frames[0], why)
            return
        try:
            self._from_worker(sender, frames[0], frames[1] if len(frames) == 2 else None)
        except wire.WireError as error:
            self._malformed("worker", str(error), sender)
            self._unreadable(sender, frames[0], str(error))

    def worker_gone(self, sender: bytes) -> None:
        """Most likely it is dead, and the supervisor says so in a moment; until then nothing is concluded from it. If it comes back on
        another connection instead, what went down with this one is taken back (`_hello`)."""
        self._peers.pop(sender, None)

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
            self._ports.send_worker(identity, wire.encode_bare(wire.WHO))
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
        if self.core.is_current(hello.name, hello.incarnation):
            if identity in self._peers:
                return  # an idle worker repeats itself five times a second: that is no event, and would fill the story
            self._returned(hello)
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

    def _returned(self, hello: wire.Hello) -> None:
        """The same process on another connection: it holds nothing of what it was given on the one before."""
        running = self.core.roster.instances[hello.name].running
        if running is not None:
            self._handle(Undelivered(hello.name, hello.incarnation, running.batch_id), self._clock())

    # ---- the core -----------------------------------------------------------------------------------------------

    def _handle(self, event: Event, now: float, result: wire.BatchResult | None = None) -> None:
        """Lets the core decide and performs what it decided; `result` holds the rows that replies to this event carry.

        What goes wrong meanwhile is an event of its own, told to the core once all actions of this one are performed: until
        then they stand for what the core believes.
        """
        actions = self.core.handle(event, now)
        if actions:
            starts = row_starts(result) if result is not None else []
            for action in actions:
                self._perform(action, result, starts)
        while self._troubles:
            trouble = self._troubles.popleft()
            for action in self.core.handle(trouble, now):
                self._perform(action, None, [])

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
                if not self._ports.send_worker(identity, batch_frame(action)):
                    self._peers.pop(identity, None)
                    self._troubles.append(Undelivered(flight.instance, flight.incarnation, flight.batch_id))
            case Refuse():
                self._send_client(action.request.client, refused_frame(action))
            case Note():
                batch = None if action.batch is None else batch_name(action.batch)
                say(action.text, level=action.level, requests=list(action.requests), batch=batch)
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
                    self._handle(WorkerLost(message.name, message.incarnation, message.from_outside), now)
                case messages.Configure():
                    try:
                        plan = msgspec.json.decode(message.plan, type=Plan)
                        if message.description is not None:
                            self._description = wire.encode_json(wire.DESCRIPTION, message.description)
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
                case messages.Start() | messages.State() | messages.Recalled():
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


def identity_of(name: str, incarnation: int) -> bytes:
    """The routing id that a worker gives its DEALER."""
    return f"{name}#{incarnation}".encode()


def log(text: str, level: Level = "info") -> None:
    say(text, level=level)


def _rss_bytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * resource.getpagesize()
