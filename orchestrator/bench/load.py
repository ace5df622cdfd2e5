"""How is HTTP load made so cheaply that it hardly disturbs what it measures? Prepared bytes, one epoll, one thread.

Closed loop: each connection sends its next request as soon as the answer to the last has come. Open loop: requests are due at moments
that nobody's answers change, and a latency counts from the moment its request was due, so that a server that stops for a second is
charged for all that came in that second. A request costs this process about 20 µs, so that it can run on the cores it measures; what
that does to it is measured too (`lags`).
"""

from __future__ import annotations

import json
import selectors
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from orchestrator.bench.alarm import Alarm
from orchestrator.bench.connection import Broken, Connection
from orchestrator.bench.rows import quantile

MOST_CONNECTIONS = 512
"""At once in the open loop; the usual limit of open files is 1024. What finds none free waits for one, and its latency goes on."""
PATIENCE_SECONDS = 30.0
"""After the last request was sent; what has no answer then has none."""


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
    """The same latencies by what the generator was told of each request."""
    heads: list[bytes] = field(default_factory=list)
    """Of the same answers, in lower case."""
    broken: dict[str, int] = field(default_factory=dict)
    """Requests without a whole answer, by reason."""
    lags: list[float] = field(default_factory=list)
    """Open loop: how much later than due each request was sent although a connection was free: the generator's own fault."""
    held_back: int = 0
    """Open loop: requests that waited for one of MOST_CONNECTIONS."""

    @property
    def per_second(self) -> float:
        """While requests were sent. What is answered after that is no throughput: the last long ones have the cores to themselves."""
        return self.in_time / self.window

    def quantile(self, share: float) -> float:
        """Seconds; nearest rank."""
        return quantile(sorted(self.latencies), share)


def post_request(host: str, port: int, path: str, body: object, headers: Sequence[str] = ()) -> bytes:
    """`headers` are whole lines."""
    content = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *headers,
    ]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + content


def embed_request(host: str, port: int, text: str) -> bytes:
    return post_request(host, port, "/embed", {"inputs": text})


def closed_loop(
    host: str, port: int, requests: Sequence[bytes], in_flight: int, seconds: float, kinds: Sequence[str] = ()
) -> LoadResult:
    """Keeps `in_flight` requests going for `seconds`, taking `requests` in turn. ConnectionError if the server hangs up.

    `kinds`, if given, says of each request what it is, for `LoadResult.by_kind`.
    """
    result = closed_load((host, port), requests, in_flight, seconds, kinds)
    if result.broken:
        raise ConnectionError(", ".join(f"{count} × {why}" for why, count in result.broken.items()))
    return result


def closed_load(
    address: tuple[str, int], requests: Sequence[bytes], in_flight: int, seconds: float, kinds: Sequence[str] = ()
) -> LoadResult:
    """The same, and what breaks is counted. OSError if the server cannot be reached at all."""
    load = _Load(address, requests, kinds, seconds)
    try:
        for _ in range(in_flight):
            load.open()
        load.begin()
        for _ in range(in_flight):
            load.send(None)
        while load.busy:
            for answered in load.answers(1.0):
                if answered - load.started < seconds:
                    load.send(None)
            if load.silent_since(load.started) > PATIENCE_SECONDS:
                load.give_up()
        return load.done()
    finally:
        load.close()


def open_loop(
    address: tuple[str, int], requests: Sequence[bytes], due: Sequence[float], seconds: float, kinds: Sequence[str] = ()
) -> LoadResult:
    """Sends a request at each moment of `due` (seconds from the start, ascending, within `seconds`), taking `requests` in turn.

    OSError if the server cannot be reached at all.
    """
    load = _Load(address, requests, kinds, seconds)
    alarm = Alarm()
    waiting: deque[float] = deque()
    try:
        load.open()
        load.watch(alarm)
        load.begin()
        moments = [load.started + each for each in due]
        at = 0
        while at < len(moments) or load.busy or waiting:
            now = time.perf_counter()
            while at < len(moments) and moments[at] <= now:
                if load.free():
                    load.result.lags.append(time.perf_counter() - moments[at])
                    load.send(moments[at])
                elif not load.connected:
                    load.refused()
                else:
                    load.result.held_back += 1
                    waiting.append(moments[at])
                at += 1
            if at < len(moments):
                alarm.set(moments[at])
            elif load.silent_since(moments[-1] if moments else load.started) > PATIENCE_SECONDS:
                load.give_up(len(waiting))
                break
            for _ in load.answers(1.0):
                if waiting and load.free():
                    load.send(waiting.popleft())
            while waiting and not load.connected and not load.free():
                waiting.popleft()
                load.refused()
        return load.done()
    finally:
        alarm.close()
        load.close()


class _Load:
    """The connections of one run, and what their answers say."""

    def __init__(
        self, address: tuple[str, int], requests: Sequence[bytes], kinds: Sequence[str], seconds: float
    ) -> None:
        self._address = address
        self._turn = cycle(zip(requests, kinds or [""] * len(requests), strict=True))
        self._selector = selectors.EpollSelector()
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._alarm: Alarm | None = None
        self._last = 0.0
        self._why = "cannot connect"
        self.busy = 0
        self.started = 0.0
        self.result = LoadResult(0.0, seconds)

    def open(self) -> None:
        connection = Connection(self._address)
        self._all.add(connection)
        self._idle.append(connection)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def watch(self, alarm: Alarm) -> None:
        self._alarm = alarm
        self._selector.register(alarm, selectors.EVENT_READ, None)

    def begin(self) -> None:
        self.started = self._last = time.perf_counter()

    def free(self) -> bool:
        """Whether a connection is, if need be a new one."""
        if not self._idle and len(self._all) < MOST_CONNECTIONS:
            try:
                self.open()
            except OSError as error:
                self._why = error.strerror or "cannot connect"
        return bool(self._idle)

    @property
    def connected(self) -> bool:
        """Whether there is any connection that may become free."""
        return bool(self._all)

    def refused(self) -> None:
        """Counts a request that no connection could be had for."""
        self._count(self._why)

    def send(self, due: float | None) -> None:
        """The next request, on a connection that is free; None: due now."""
        request, kind = next(self._turn)
        if not self._idle:
            try:
                self.open()
            except OSError as error:
                self._count(error.strerror or "cannot connect")
                return
        connection = self._idle.pop()
        try:
            connection.send(request, kind, due)
        except Broken:  # it was closed while nobody used it; a new one, once
            self._drop(connection)
            try:
                self.open()
                connection = self._idle.pop()
                connection.send(request, kind, due)
            except (Broken, OSError) as error:
                self._count(str(error))
                return
        self.busy += 1

    def answers(self, seconds: float) -> Iterator[float]:
        """Waits for some; the moment of each, its connection free again. Nothing after `seconds`, or when the alarm rings."""
        for key, _ in self._selector.select(seconds):
            connection = key.data
            if connection is None:
                assert self._alarm is not None
                self._alarm.heard()
                continue
            if not connection.busy:  # the server hangs up on a connection that nobody uses
                self._idle.remove(connection)
                self._drop(connection)
                continue
            try:
                if not connection.complete():
                    continue
            except Broken as error:
                self.busy -= 1
                self._drop(connection)
                self._count(str(error))
                self._last = time.perf_counter()
                yield self._last
                continue
            now = self._last = time.perf_counter()
            self.busy -= 1
            self._note(connection, now)
            if connection.closes:
                self._drop(connection)
            else:
                self._idle.append(connection)
            yield now

    def silent_since(self, moment: float) -> float:
        """Seconds since this moment or the last answer, whichever is later."""
        return time.perf_counter() - max(moment, self._last)

    def give_up(self, waiting: int = 0) -> None:
        """What is still out has no answer."""
        self.result.broken["no answer"] = self.result.broken.get("no answer", 0) + self.busy + waiting
        self.busy = 0

    def done(self) -> LoadResult:
        self.result.seconds = self._last - self.started
        return self.result

    def close(self) -> None:
        self._selector.close()
        for connection in self._all:
            connection.close()

    def _note(self, connection: Connection, now: float) -> None:
        result = self.result
        if connection.status != 200:
            result.failures[connection.status] = result.failures.get(connection.status, 0) + 1
            return
        took = now - connection.due
        result.latencies.append(took)
        result.heads.append(connection.head)
        result.by_kind.setdefault(connection.kind, []).append(took)
        result.in_time += now - self.started < result.window

    def _count(self, why: str) -> None:
        self.result.broken[why] = self.result.broken.get(why, 0) + 1

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        self._all.discard(connection)
        connection.close()
