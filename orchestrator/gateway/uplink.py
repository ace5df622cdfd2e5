"""How does the gateway's event loop talk to the router?

By one lane (`workers.lane`), watched by the loop. What the requests of one turn of the loop leave goes out as one write. A connection
that breaks is made anew, and what was unanswered on it is submitted again with the time it has left: the router forgets a client
whose connection is gone.
"""

from __future__ import annotations

import asyncio
import time

from orchestrator.client.link import Answered, Declined, Link
from orchestrator.client.texts import Tokens
from orchestrator.gateway.caller import ANYBODY, Caller
from workers import wire
from workers.lane import Lane, LaneClosed, as_client, connect
from workers.said import MOST_REQUESTS, say
from workers.wire import RequestId

PING_SECONDS = 0.15
TICK_SECONDS = 0.05
RETRY_SECONDS = 0.02
GRACE_SECONDS = 0.02
"""The router's own verdict on a deadline is preferred to ours when it comes within this."""
SILENT_SECONDS = 1.0
"""A router that has not answered for this long does not answer."""
MOST_UNSENT = 32 << 20
"""Bytes that may wait for a router which does not read."""


class Uplink:
    """Connection to the router, owned by one event loop. `open` and `close` belong to that loop's thread."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.link = Link()
        self.unsent = 0
        """Requests that were declined because the router does not read."""
        self._endpoint = endpoint
        self._name = name
        self._who = as_client(name)
        self._waiting: dict[RequestId, asyncio.Future[Answered | Declined]] = {}
        self._lane: Lane | None = None
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle
        self._retry: asyncio.TimerHandle | None = None
        self._next_ping = 0.0
        self._flush_due = self._blocked = False

    def open(self) -> None:
        """Connects; the router need not be there yet."""
        self._loop = asyncio.get_running_loop()
        self._connect()
        self._tick()

    def close(self) -> None:
        self._timer.cancel()
        self._part()
        if self._retry is not None:
            self._retry.cancel()

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
        if self._lane is not None and self._lane.unsent > MOST_UNSENT:
            self.unsent += 1
            self.link.cancel(request_id)
            return Declined(request_id, "queue_full", 1.0, "the router does not read what is sent to it")
        future: asyncio.Future[Answered | Declined] = self._loop.create_future()
        self._waiting[request_id] = future
        self._send(frame)
        try:
            return await future
        except asyncio.CancelledError:
            self._cancel(request_id)
            raise
        finally:
            del self._waiting[request_id]

    def _cancel(self, request_id: RequestId) -> None:
        frame = self.link.cancel(request_id)
        if frame is not None:
            self._send(frame)

    # ---- the connection

    def _connect(self) -> None:
        self._retry = None
        lane = connect(self._endpoint, self._who)
        if lane is None:
            self._retry = self._loop.call_later(RETRY_SECONDS, self._connect)
            return
        self._lane, self._blocked = lane, False
        self._loop.add_reader(lane.fileno(), self._readable)
        frames = self.link.resume(time.monotonic())
        again = [number for frame in frames if (number := wire.request_id_of(frame)) is not None]
        if again:
            say(
                f"connected to the router anew; {len(again)} unanswered requests are submitted again",
                level="warning",
                event="resubmitted",
                requests=[f"{self._name}:{number:x}" for number in again[:MOST_REQUESTS]],
            )
        for frame in frames:
            self._send(frame)

    def _part(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            self._loop.remove_reader(lane.fileno())
            self._loop.remove_writer(lane.fileno())
            lane.close()

    def _broken(self) -> None:
        self._part()
        self._retry = self._loop.call_later(RETRY_SECONDS, self._connect)

    def _send(self, frame: bytes) -> None:
        """With the others of this turn of the loop. Without a connection nothing goes out: the next one begins with what is unanswered."""
        if self._lane is None:
            return
        self._lane.put(frame)
        if not self._flush_due and not self._blocked:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._lane is None:
            return
        try:
            done = self._lane.flush()
        except LaneClosed:
            self._broken()
            return
        if not done and not self._blocked:
            self._loop.add_writer(self._lane.fileno(), self._flush)
        elif done and self._blocked:
            self._loop.remove_writer(self._lane.fileno())
        self._blocked = not done

    def _readable(self) -> None:
        if self._lane is None:
            return
        try:
            messages = self._lane.receive()
        except LaneClosed:
            self._broken()
            return
        now = time.monotonic()
        receive = self.link.receive
        for frame, rows in messages:
            outcome = receive((frame,) if rows is None else (frame, rows), now)
            if isinstance(outcome, Answered | Declined):
                self._settle(outcome)

    def _settle(self, outcome: Answered | Declined) -> None:
        future = self._waiting.get(outcome.request_id)
        if future is not None and not future.done():
            future.set_result(outcome)

    def _tick(self) -> None:
        """Keeps asking the router for its boot number and ends what nobody answered in time."""
        now = time.monotonic()
        if now >= self._next_ping:
            self._next_ping = now + PING_SECONDS
            if self._lane is not None:
                self._send(self.link.ping())
        for request_id in self.link.overdue(now, GRACE_SECONDS):
            self._cancel(request_id)
            silent = self.link.silent_seconds(now)
            if silent < SILENT_SECONDS:
                outcome = Declined(request_id, "deadline", 0.0, "no answer came before the deadline")
            else:
                outcome = Declined(request_id, "no_instance", 1.0, "the router does not answer; it is being restarted")
            self._settle(outcome)
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
