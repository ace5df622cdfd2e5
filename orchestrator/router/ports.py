"""How do messages get into the router and out of it? Its sockets, without asyncio and without waiting on any of them.

Three doors. `local` is a Unix socket for the gateways and workers of this orchestrator (`workers.lane`); `front` is a ZeroMQ ROUTER for
every other client, `back` one for workers that speak ZeroMQ. One epoll over all of them and the supervisor's channel. Each source is
read in bursts, so that none starves another, workers before clients: what they bring makes room for what the clients bring.

Nothing waits in a socket on the way out either: a peer that has gone, or never reads, is noticed at once (ROUTER_MANDATORY and
its high-water mark, or the bytes that wait for it here). A ZeroMQ descriptor tells of a change once, and any call into the socket may
swallow that: so a socket that was sent to is asked again before the next wait. Source: zmq_getsockopt(3), ZMQ_FD.
"""

from __future__ import annotations

import select
import socket
import stat
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final, Literal, Protocol

import zmq

from workers.lane import CLIENT, SCHEME, WORKER, Lane, LaneClosed, path_of
from workers.said import say
from workers.wire import Buffer

BURST: Final = 64
"""Messages that are taken from one ZeroMQ socket before the others are looked at: about 2 ms of work."""
# More than a client may have in flight (4096), so that a burst of answers to one never meets the mark.
FRONT_MESSAGES: Final = 8192
# A worker holds two batches at most, and says little.
BACK_MESSAGES: Final = 256
CHUNK: Final = 8 << 10
"""Bytes that are taken from one lane before the others are looked at: some sixty short requests."""
MOST_UNREAD: Final = 64 << 20
"""Bytes that may wait for a gateway which does not read; then it is let go, and comes back with what it still wants."""
BACKLOG: Final = 1024
_LARGEST_MESSAGE: Final = 128 << 20
_LARGE_ROWS: Final = 1 << 16
"""From here on pyzmq hands rows over without a copy; below, the copy is cheaper than the bookkeeping."""
_LINGER_MS: Final = 500
_ACCEPT_AGAIN_SECONDS: Final = 0.5
_IN, _OUT, _BROKEN = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR | select.EPOLLHUP

_NOWAIT: Final = zmq.NOBLOCK
_MORE: Final = zmq.NOBLOCK | zmq.SNDMORE

Sent = Literal["sent", "full", "gone"]
"""`full`: the peer does not read; `gone`: there is no way to it."""


class BindError(Exception):
    """An endpoint cannot be bound: says which, why and what to do."""


class Handler(Protocol):
    """Whoever understands the messages. `sender` is the same for all messages of one peer, and where its answers go."""

    def client_message(self, sender: bytes, frames: list[bytes]) -> None: ...

    def worker_message(self, sender: bytes, frames: list[bytes]) -> None: ...

    def client_gone(self, sender: bytes) -> None: ...

    def worker_gone(self, sender: bytes) -> None: ...


class Peer:
    """One connection to `local`."""

    __slots__ = ("blocked", "identity", "lane", "role")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.role: Literal["client", "worker", "unknown"] = "unknown"
        self.identity = b""
        self.blocked = False
        """It has to read before more can be written."""


class Ports:
    def __init__(self, front: str, back: str, local: str, handler: Handler, channel_fd: int) -> None:
        self._endpoints = (front, back, local)
        self._handler = handler
        self._channel = channel_fd
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._front = self._context.socket(zmq.ROUTER)
        self._back = self._context.socket(zmq.ROUTER)
        self._front_due = self._back_due = True
        """Whether something may lie in the socket of which its descriptor will not tell."""
        self._front_fd, self._back_fd = self._front.FD, self._back.FD
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        """By descriptor."""
        self._clients: dict[bytes, Peer] = {}
        self._workers: dict[bytes, Peer] = {}
        self._unflushed: dict[bytes, Peer] = {}
        """Clients with answers that are not handed over yet."""
        self._serial = count(1)
        self._accept_from = 0.0
        """Monotonic seconds; later than now where no descriptor was left for another connection."""

    # ---- life ---------------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Binds everything; BindError if something cannot be."""
        front, back, local = self._endpoints
        for one, endpoint, mark in ((self._front, front, FRONT_MESSAGES), (self._back, back, BACK_MESSAGES)):
            one.setsockopt(zmq.ROUTER_MANDATORY, 1)
            one.setsockopt(zmq.ROUTER_HANDOVER, 1)
            one.setsockopt(zmq.SNDHWM, mark)
            one.setsockopt(zmq.RCVHWM, mark)
            one.setsockopt(zmq.MAXMSGSIZE, _LARGEST_MESSAGE)
            one.setsockopt(zmq.LINGER, _LINGER_MS)
            remove_stale(endpoint)
            try:
                one.bind(endpoint)
            except zmq.ZMQError as error:
                raise BindError(f"cannot bind {endpoint}: {error}; is another router running there?") from None
            self._epoll.register(one.FD, _IN)
        if local:
            remove_stale(local)
            self._listener.setblocking(False)
            try:
                self._listener.bind(path_of(local))
                self._listener.listen(BACKLOG)
            except OSError as error:
                raise BindError(f"cannot bind {local}: {error.strerror}; is another router running there?") from None
            self._epoll.register(self._listener.fileno(), _IN)
        self._epoll.register(self._channel, _IN)

    def close(self) -> None:
        """Lets go of the sockets; waits for what ZeroMQ is still sending, half a second at most."""
        self._flush_clients()
        self._epoll.close()
        for peer in self._peers.values():
            peer.lane.close()
        self._listener.close()
        self._front.close()
        self._back.close()
        self._context.term()

    # ---- in -----------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> bool:
        """Hands every message that has come to the handler, waiting at most so long for the first. True: the channel has something."""
        self._flush_clients()
        if self._accept_from and time.monotonic() >= self._accept_from:
            self._accept_from = 0.0
            self._epoll.register(self._listener.fileno(), _IN)
        if self._back_due:
            self._back_due = _read(self._back, self._handler.worker_message)
        if self._front_due:
            self._front_due = _read(self._front, self._handler.client_message)
        channel = False
        clients: list[tuple[Peer, int]] = []
        due = self._front_due or self._back_due
        for fd, mask in self._epoll.poll(0.0 if due else max(0.0, seconds)):
            peer = self._peers.get(fd)
            if peer is not None:
                if peer.role == "worker":
                    self._serve(peer, mask)
                else:
                    clients.append((peer, mask))
            elif fd == self._channel:
                channel = True
            elif fd == self._listener.fileno():
                self._accept()
            elif fd == self._front_fd:
                self._front_due = True
            else:
                self._back_due = True
        for peer, mask in clients:
            self._serve(peer, mask)
            self._flush_clients()
        return channel

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                # Mostly no descriptor is left. The listener stays readable, and looking at it at once would be all we do.
                self._epoll.unregister(self._listener.fileno())
                self._accept_from = time.monotonic() + _ACCEPT_AGAIN_SECONDS
                say(f"takes no new connection for {_ACCEPT_AGAIN_SECONDS:g} s: {error.strerror}", level="warning")
                return
            peer = Peer(Lane(end, CHUNK))
            self._peers[end.fileno()] = peer
            self._epoll.register(end.fileno(), _IN)

    def _serve(self, peer: Peer, mask: int) -> None:
        try:
            if mask & _OUT and peer.lane.flush():
                peer.blocked = False
                self._epoll.modify(peer.lane.fileno(), _IN)
            if not mask & (_IN | _BROKEN):
                return
            for frame, rows in peer.lane.receive():
                if peer.role == "client":
                    self._handler.client_message(peer.identity, [frame] if rows is None else [frame, rows])
                elif peer.role == "worker":
                    self._handler.worker_message(peer.identity, [frame] if rows is None else [frame, rows])
                else:
                    self._introduced(peer, frame)
        except LaneClosed:
            self._drop(peer)

    def _introduced(self, peer: Peer, who: bytes) -> None:
        """The first message of a peer. LaneClosed if it is no introduction."""
        if who[:1] == CLIENT:
            # A name of its own: what was under way on an earlier connection of the same gateway is not this one's.
            peer.identity = b"\x01%d " % next(self._serial) + who[1:]
            peer.role = "client"
            self._clients[peer.identity] = peer
        elif who[:1] == WORKER:
            peer.identity = who[1:]
            peer.role = "worker"
            before = self._workers.get(peer.identity)
            if before is not None:
                self._drop(before)
            self._workers[peer.identity] = peer
        else:
            raise LaneClosed("it does not say who it is")

    def _drop(self, peer: Peer) -> None:
        """Forgets a peer and says so."""
        if not self._forget(peer):
            return
        if peer.role == "client":
            self._handler.client_gone(peer.identity)
        elif peer.role == "worker":
            self._handler.worker_gone(peer.identity)

    def _forget(self, peer: Peer) -> bool:
        """False if it had been forgotten before."""
        if self._peers.pop(peer.lane.fileno(), None) is None:
            return False
        self._epoll.unregister(peer.lane.fileno())
        peer.lane.close()
        if peer.role == "client":
            del self._clients[peer.identity]
            self._unflushed.pop(peer.identity, None)
        elif peer.role == "worker":
            del self._workers[peer.identity]
        return True

    # ---- out ----------------------------------------------------------------------------------------------------

    def send_client(self, identity: bytes, frame: bytes, rows: Buffer | None = None) -> Sent:
        """To a lane with the others of this turn, which one system call then hands over; to a ZeroMQ client at once."""
        peer = self._clients.get(identity)
        if peer is None:
            self._front_due = True
            return _send(self._front, identity, frame, rows)
        lane = peer.lane
        lane.put(frame, rows)
        if lane.unsent > MOST_UNREAD:
            self._forget(peer)
            return "gone"
        if not peer.blocked:
            self._unflushed[identity] = peer
        return "sent"

    def send_worker(self, identity: bytes, frame: bytes) -> bool:
        """At once, since it waits for work. False: there is no way to it, or it does not read although it holds two batches at most."""
        peer = self._workers.get(identity)
        if peer is None:
            self._back_due = True
            return _send(self._back, identity, frame, None) == "sent"
        peer.lane.put(frame)
        try:
            self._flush(peer)
        except LaneClosed:
            return False  # what it has still said is read before the connection is dropped
        return True

    def _flush_clients(self) -> None:
        if not self._unflushed:
            return
        waiting, self._unflushed = self._unflushed, {}
        for peer in waiting.values():
            try:
                self._flush(peer)
            except LaneClosed:
                self._drop(peer)

    def _flush(self, peer: Peer) -> None:
        if not peer.blocked and not peer.lane.flush():
            peer.blocked = True
            self._epoll.modify(peer.lane.fileno(), _IN | _OUT)


def _read(one: zmq.Socket[bytes], hand: Callable[[bytes, list[bytes]], None]) -> bool:
    """At most BURST messages; whether more may lie there."""
    for _ in range(BURST):
        try:
            sender, *frames = one.recv_multipart(_NOWAIT)
        except zmq.Again:
            return False
        hand(sender, frames)
    return True


def _send(to: zmq.Socket[bytes], identity: bytes, frame: bytes, rows: Buffer | None) -> Sent:
    try:
        to.send(identity, _MORE)
        if rows is None:
            to.send(frame, _NOWAIT)
        else:
            to.send(frame, _MORE)
            to.send(rows, _NOWAIT, len(rows) < _LARGE_ROWS)
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return "gone"
        if error.errno == zmq.EAGAIN:
            return "full"
        raise
    return "sent"


def remove_stale(endpoint: str) -> None:
    """Removes the socket file that a killed router left behind; BindError if something else is there."""
    for scheme in ("ipc://", SCHEME):
        if endpoint.startswith(f"{scheme}/"):
            path = Path(endpoint.removeprefix(scheme))
            break
    else:
        return
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"cannot bind {endpoint}: {path} is there and is no socket; remove it or choose another place")
    path.unlink()
