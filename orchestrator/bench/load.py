"""How is HTTP load made so cheaply that it hardly disturbs what it measures? Closed loop, prepared bytes, one epoll.

Each connection sends its next request as soon as the answer to the last has come. Only the status line and Content-Length are read.
A request costs this process about 20 µs, so that it can run on the cores it measures.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from orchestrator.bench.rows import quantile

RECEIVE = 1 << 17


@dataclass
class LoadResult:
    """Latencies in seconds of the answers with status 200, in the order they came."""

    seconds: float
    """From the first request to the last answer."""
    window: float
    """How long requests were sent."""
    in_time: int = 0
    """Answers with status 200 within the window."""
    latencies: list[float] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)
    """Other status codes → count."""
    by_kind: dict[str, list[float]] = field(default_factory=dict)
    """The same latencies by what `closed_loop` was told of each request."""

    @property
    def per_second(self) -> float:
        """While requests were sent. What is answered after that is no throughput: the last long ones have the cores to themselves."""
        return self.in_time / self.window

    def quantile(self, share: float) -> float:
        """Seconds; nearest rank."""
        return quantile(sorted(self.latencies), share)


def embed_request(host: str, port: int, text: str) -> bytes:
    body = json.dumps({"inputs": text}).encode()
    head = f"POST /embed HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = bytearray()
        self.needed: int | None = None
        self.status = 0
        self.sent_at = 0.0
        self.kind = ""

    def send(self, request: bytes, kind: str) -> None:
        self.kind = kind
        self.received.clear()
        self.needed = None
        self.sent_at = time.perf_counter()
        sent = self.socket.send(request)
        if sent != len(request):  # larger than the socket's buffer: rare enough to wait for
            self.socket.setblocking(True)
            self.socket.sendall(request[sent:])
            self.socket.setblocking(False)

    def complete(self) -> bool:
        """Reads what is there; whether the whole answer has come. ConnectionError if the server hung up."""
        try:
            data = self.socket.recv(RECEIVE)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionError("the server closed the connection before its answer was complete")
        self.received += data
        if self.needed is None:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.received[:end]).lower()
            self.status = int(head[9:12])
            at = head.index(b"content-length:") + 15
            self.needed = end + 4 + int(head[at : head.find(b"\r\n", at) if b"\r\n" in head[at:] else None])
        return len(self.received) >= self.needed


def closed_loop(
    host: str, port: int, requests: Sequence[bytes], in_flight: int, seconds: float, kinds: Sequence[str] = ()
) -> LoadResult:
    """Keeps `in_flight` requests going for `seconds`, taking `requests` in turn. ConnectionError if the server hangs up.

    `kinds`, if given, says of each request what it is, for `LoadResult.by_kind`.
    """
    selector = selectors.EpollSelector()
    connections = [_Connection((host, port)) for _ in range(in_flight)]
    latencies: list[float] = []
    in_time = 0
    failures: dict[int, int] = {}
    by_kind: dict[str, list[float]] = {}
    turn = _endless(list(zip(requests, kinds or [""] * len(requests), strict=True)))
    started = time.perf_counter()
    try:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(*next(turn))
        waiting = in_flight
        while waiting:
            for key, _ in selector.select(30.0):
                connection = key.data
                if not connection.complete():
                    continue
                now = time.perf_counter()
                if connection.status == 200:
                    latencies.append(now - connection.sent_at)
                    in_time += now - started < seconds
                    by_kind.setdefault(connection.kind, []).append(now - connection.sent_at)
                else:
                    failures[connection.status] = failures.get(connection.status, 0) + 1
                if now - started < seconds:
                    connection.send(*next(turn))
                else:
                    waiting -= 1
        return LoadResult(time.perf_counter() - started, seconds, in_time, latencies, failures, by_kind)
    finally:
        selector.close()
        for connection in connections:
            connection.socket.close()


def _endless(requests: Sequence[tuple[bytes, str]]) -> Iterator[tuple[bytes, str]]:
    while True:
        yield from requests
