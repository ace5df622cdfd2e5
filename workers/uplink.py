"""How does a worker reach the router? By a lane on its own machine, by ZeroMQ where the endpoint says so.

A router that is away is tried again and again; meanwhile the worker waits, and what it computed for a router that is gone is let go: a
new router knows nothing of that batch.
"""

from __future__ import annotations

import select
import time
from typing import Protocol

import zmq

from workers.lane import SCHEME, Lane, LaneClosed, as_worker, connect
from workers.wire import Buffer

RETRY_SECONDS = 0.02
SEND_SECONDS = 1.0
"""How long a result may wait for a router that does not read; then the connection is given up."""


class Uplink(Protocol):
    def wait(self, channel_fd: int, seconds: float) -> tuple[bool, list[bytes]]:
        """Whether the channel has something, and the frames that came from the router."""

    def send(self, frame: Buffer, rows: Buffer | None = None) -> None: ...

    def close(self) -> None: ...


class LaneUplink:
    """`hello` is said first on each new connection; on the first one at once, if the router is there: a worker that is ready for its
    supervisor is then known to the router too."""

    def __init__(self, endpoint: str, identity: bytes, hello: bytes) -> None:
        self._endpoint = endpoint
        self._who = as_worker(identity)
        self._hello = hello
        self._lane: Lane | None = None
        self._connected()

    def wait(self, channel_fd: int, seconds: float) -> tuple[bool, list[bytes]]:
        lane = self._connected()
        poller = select.poll()
        poller.register(channel_fd, select.POLLIN)
        if lane is None:
            seconds = min(seconds, RETRY_SECONDS)
        else:
            poller.register(lane.fileno(), select.POLLIN)
        ready = [fd for fd, _ in poller.poll(seconds * 1e3)]
        frames: list[bytes] = []
        if lane is not None and lane.fileno() in ready:
            try:
                frames = [frame for frame, _ in lane.receive()]
            except LaneClosed:
                self.close()
        return channel_fd in ready, frames

    def send(self, frame: Buffer, rows: Buffer | None = None) -> None:
        lane = self._lane
        if lane is None:
            return
        lane.put(frame, rows)
        deadline = time.monotonic() + SEND_SECONDS
        try:
            while not lane.flush():
                writable = select.poll()
                writable.register(lane.fileno(), select.POLLOUT)
                if not writable.poll(max(0.0, deadline - time.monotonic()) * 1e3):
                    raise LaneClosed("the router does not read")
        except LaneClosed:
            self.close()

    def close(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None

    def _connected(self) -> Lane | None:
        if self._lane is None:
            self._lane = connect(self._endpoint, self._who)
            if self._lane is not None:
                self.send(self._hello)
        return self._lane


class ZmqUplink:
    def __init__(self, endpoint: str, identity: bytes, hello: bytes) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, identity)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self._socket.connect(endpoint)
        self.send(hello)

    def wait(self, channel_fd: int, seconds: float) -> tuple[bool, list[bytes]]:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(channel_fd, zmq.POLLIN)
        ready = dict(poller.poll(int(seconds * 1e3)))
        return channel_fd in ready, self._socket.recv_multipart() if self._socket in ready else []

    def send(self, frame: Buffer, rows: Buffer | None = None) -> None:
        try:
            self._socket.send_multipart((frame,) if rows is None else (frame, rows), zmq.NOBLOCK)
        except zmq.Again:
            return  # the router is away, and its pipe is full of what it never read: nobody waits for this any more

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def uplink(endpoint: str, identity: bytes, hello: bytes) -> Uplink:
    return (LaneUplink if endpoint.startswith(SCHEME) else ZmqUplink)(endpoint, identity, hello)
