"""How does the gateway's event loop talk to the router?

One DEALER socket, read through its descriptor and drained without blocking; zmq.asyncio costs more than this. The descriptor is
edge-triggered: it tells of a change once, and any call into the socket may swallow that. So after each send the socket is asked
whether something has come.
Source: zmq_getsockopt(3), ZMQ_FD.
"""

from __future__ import annotations

import asyncio
import secrets
import time

import zmq

from orchestrator.client.link import Answered, Declined, Link, Restarted
from orchestrator.client.texts import Tokens
from orchestrator.gateway.caller import ANYBODY, Caller
from workers import wire
from workers.wire import RequestId

PING_SECONDS = 0.15
TICK_SECONDS = 0.05
GRACE_SECONDS = 0.02
"""The router's own verdict on a deadline is preferred to ours when it comes within this."""
SILENT_SECONDS = 1.0
"""A router that has not answered for this long does not answer."""
MOST_BUNDLED = 64
"""Messages in one bundle: what a busy turn of the loop leaves, and never so much that the router's other clients wait."""
BURST = 128
"""Messages taken in one go before the loop may serve its other sockets."""


class Uplink:
    """Connection to the router, owned by one event loop. `open` and `close` belong to that loop's thread."""

    def __init__(self, endpoint: str, *, most_in_flight: int) -> None:
        self.link = Link()
        self.unsent = 0
        """Frames that the socket had no room for."""
        self._endpoint = endpoint
        self._high_water = 2 * most_in_flight + 64
        self._waiting: dict[RequestId, asyncio.Future[Answered | Declined]] = {}
        self._context: zmq.Context[zmq.Socket[bytes]]
        self._socket: zmq.Socket[bytes]
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle
        self._next_ping = 0.0
        self._draining = False
        self._outgoing: list[bytes] = []

    def open(self) -> None:
        """Connects; the router need not be there yet."""
        self._loop = asyncio.get_running_loop()
        self._context = zmq.Context(io_threads=1)
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.ROUTING_ID, b"g" + secrets.token_bytes(12))
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 25)
        socket.setsockopt(zmq.SNDHWM, self._high_water)
        socket.setsockopt(zmq.RCVHWM, self._high_water)
        socket.connect(self._endpoint)
        self._socket = socket
        self._loop.add_reader(socket.FD, self._drain)
        self._tick()

    def close(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._socket.FD)
        self._socket.close(linger=0)
        self._context.term()

    @property
    def answering(self) -> bool:
        """Whether the router has answered a PING lately."""
        return self.link.silent_seconds(time.monotonic()) < SILENT_SECONDS

    async def infer(self, tokens: Tokens, timeout_seconds: float, caller: Caller = ANYBODY) -> Answered | Declined:
        """One request. If the caller is cancelled (its client hung up), the router is told to forget it."""
        request_id, frame = self.link.submit(
            tokens.lengths,
            tokens.ids,
            time.monotonic(),
            timeout_seconds=timeout_seconds,
            splits=tokens.splits,
            priority=caller.priority,
            tenant=caller.tenant,
            pixels=tokens.pixels,
        )
        future: asyncio.Future[Answered | Declined] = self._loop.create_future()
        self._waiting[request_id] = future
        self._send(frame)
        try:
            return await future
        except asyncio.CancelledError:
            cancel = self.link.cancel(request_id)
            if cancel is not None:
                self._send(cancel)
            raise
        finally:
            del self._waiting[request_id]

    def _send(self, frame: bytes) -> None:
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(frame)

    def _flush(self) -> None:
        """Sends what the requests of this turn of the loop have left, as one message."""
        frames, self._outgoing = self._outgoing, []
        if self._socket.closed:
            return
        for at in range(0, len(frames), MOST_BUNDLED):
            some = frames[at : at + MOST_BUNDLED]
            try:
                self._socket.send(some[0] if len(some) == 1 else wire.encode_bundle(some), zmq.NOBLOCK)
            except zmq.Again:  # the router has not read for thousands of messages
                self._unsendable(frames[at:])
                break
        if not self._draining and int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            self._draining = True
            self._loop.call_soon(self._drain)

    def _unsendable(self, frames: list[bytes]) -> None:
        self.unsent += len(frames)
        for frame in frames:
            if wire.kind_of(frame) == wire.SUBMIT:
                request_id = wire.decode_submit(frame).request_id
                self.link.cancel(request_id)
                self._settle(Declined(request_id, "queue_full", 1.0, "the router does not read what is sent to it"))

    def _drain(self) -> None:
        """Takes what has come, at most BURST messages; then again right after the loop's other work."""
        self._draining = True
        socket, link = self._socket, self.link
        if socket.closed:
            return
        now = time.monotonic()
        for _ in range(BURST):
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                self._draining = False
                return
            for outcome in link.receive_all(frames, now):
                if isinstance(outcome, Answered | Declined):
                    self._settle(outcome)
                elif isinstance(outcome, Restarted):
                    for frame in outcome.frames:
                        self._send(frame)
        self._loop.call_soon(self._drain)

    def _settle(self, outcome: Answered | Declined) -> None:
        future = self._waiting.get(outcome.request_id)
        if future is not None and not future.done():
            future.set_result(outcome)

    def _tick(self) -> None:
        """Keeps asking the router for its boot number and ends what nobody answered in time."""
        now = time.monotonic()
        if now >= self._next_ping:
            self._next_ping = now + PING_SECONDS
            self._send(self.link.ping())
        for request_id in self.link.overdue(now, GRACE_SECONDS):
            cancel = self.link.cancel(request_id)
            if cancel is not None:
                self._send(cancel)
            silent = self.link.silent_seconds(now)
            if silent < SILENT_SECONDS:
                outcome = Declined(request_id, "deadline", 0.0, "no answer came before the deadline")
            else:
                outcome = Declined(request_id, "no_instance", 1.0, "the router does not answer; it is being restarted")
            self._settle(outcome)
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
