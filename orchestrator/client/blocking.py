"""How does a program use the running models without HTTP? A blocking client of the router.

with Client("ipc:///run/…/front.sock") as client:
    vectors = client.embed(["I like you. I love you"])
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt
import zmq

from orchestrator.client.link import Answered, Declined, Described, Link, Outcome, Restarted
from orchestrator.client.texts import Side, TextEncoder, Tokens, pack
from orchestrator.status import ModelStatus
from workers import wire
from workers.wire import RequestId

PING_SECONDS = 0.2
CHUNK = 64
"""Sequences per request: the router answers in parts anyway, and a restart costs no more than this again."""
WINDOW = 8
"""Requests under way at once: 512 sequences, half of the router's default queue."""


class Refused(Exception):
    """The router took the request and will not answer it. `reason` is one of `workers.wire.REASONS`."""

    def __init__(self, reason: str, retry_after: float, message: str) -> None:
        super().__init__(f"{reason}: {message}" if message else reason)
        self.reason = reason
        self.retry_after = retry_after
        """Seconds after which another try makes sense; 0 where none does or nothing is known."""


class RouterSilent(TimeoutError):
    """No router answers at the endpoint: it is not running, or the address is wrong."""


class Description(msgspec.Struct, frozen=True):
    """What a client must know of the model that is served."""

    model: ModelStatus
    tokenizer: str
    """Path of tokenizer.json on this machine."""


_description = msgspec.json.Decoder(Description)


class Client:
    """One connection. Not for several threads at once (a ZeroMQ socket is not): give each its own; a second caller gets RuntimeError.

    `timeout_seconds` bounds every call and travels as the deadline of its requests, unless the call names its own.
    Calls raise Refused, RouterSilent, or TextTooLong from `orchestrator.client.texts`.
    """

    def __init__(self, endpoint: str, *, timeout_seconds: float = 60.0, priority: int = wire.NORMAL) -> None:
        self.endpoint = endpoint
        self.timeout_seconds = timeout_seconds
        self.priority = priority
        self.link = Link()
        self._in_use = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._next_ping = 0.0
        self._described: Description | None = None
        self._encoder: TextEncoder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the connection; what is unanswered is forgotten by both sides. May be called twice."""
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def describe(self, *, timeout_seconds: float | None = None) -> Description:
        """The model that is served, and where its tokenizer lies."""
        with _Use(self._in_use):
            return self._describe(self._until(timeout_seconds))

    def embed(
        self, texts: Sequence[str], *, cut: Side | None = None, timeout_seconds: float | None = None
    ) -> npt.NDArray[np.float32]:
        """[len(texts), width], one row per text. A text over the model's limit raises TextTooLong, or loses the side `cut`."""
        with _Use(self._in_use):
            until = self._until(timeout_seconds)
            encoder, model = self._text_encoder(until)
            if not texts:
                return np.empty((0, model.dimensions), np.float32)
            requests = (encoder.encode(list(texts[at : at + CHUNK]), cut=cut) for at in range(0, len(texts), CHUNK))
            return np.concatenate([answer.matrix() for answer in self._run(requests, until)])

    def run(
        self, sequences: Sequence[Sequence[int]], *, timeout_seconds: float | None = None
    ) -> list[npt.NDArray[np.float32]]:
        """Token ids in, per sequence an array of shape [width], or [tokens, width] where the model answers per token."""
        with _Use(self._in_use):
            until = self._until(timeout_seconds)
            for position, sequence in enumerate(sequences):
                if not len(sequence):
                    raise ValueError(f"sequence {position} is empty; give each at least one token id")
            requests = (pack(sequences[at : at + CHUNK]) for at in range(0, len(sequences), CHUNK))
            return [array for answer in self._run(requests, until) for array in answer.arrays()]

    def _until(self, timeout_seconds: float | None) -> float:
        return time.monotonic() + (self.timeout_seconds if timeout_seconds is None else timeout_seconds)

    def _text_encoder(self, until: float) -> tuple[TextEncoder, ModelStatus]:
        described = self._describe(until)
        if self._encoder is None:
            self._encoder = TextEncoder(described.tokenizer, described.model.max_seqlen)
        return self._encoder, described.model

    def _describe(self, until: float) -> Description:
        if self._described is None:
            self._send(wire.encode_bare(wire.DESCRIBE))
            while self._described is None:
                outcome = self._next(until)
                if isinstance(outcome, Described):
                    self._described = _description.decode(outcome.body)
                elif isinstance(outcome, Restarted):  # the question may have gone down with the old router
                    self._send(wire.encode_bare(wire.DESCRIBE))
        return self._described

    def _run(self, requests: Iterator[Tokens], until: float) -> list[Answered]:
        """The answers in the order of the requests; on any failure the others are cancelled."""
        order: list[RequestId] = []
        answers: dict[RequestId, Answered] = {}
        waiting: set[RequestId] = set()
        self._connected()
        try:
            more = True
            while more or waiting:
                while more and len(waiting) < WINDOW:
                    tokens = next(requests, None)
                    if tokens is None:
                        more = False
                        break
                    now = time.monotonic()
                    request_id, frame = self.link.submit(
                        tokens.lengths, tokens.ids, now,
                        timeout_seconds=max(until - now, 0.001), priority=self.priority,
                    )  # fmt: skip
                    order.append(request_id)
                    waiting.add(request_id)
                    self._send(frame)
                if not waiting:
                    break
                outcome = self._next(until)
                if isinstance(outcome, Answered):
                    answers[outcome.request_id] = outcome
                    waiting.discard(outcome.request_id)
                elif isinstance(outcome, Declined):
                    waiting.discard(outcome.request_id)
                    raise Refused(outcome.reason, outcome.retry_after_seconds, outcome.message)
        finally:
            for request_id in waiting:
                frame_or_none = self.link.cancel(request_id)
                if frame_or_none is not None and self._socket is not None:
                    self._send(frame_or_none)
        return [answers[request_id] for request_id in order]

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            self._context = zmq.Context(io_threads=1)
            socket = self._context.socket(zmq.DEALER)
            # A name of its own, so that after a broken connection the answers still find this client.
            socket.setsockopt(zmq.ROUTING_ID, b"c" + secrets.token_bytes(12))
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 25)
            socket.connect(self.endpoint)
            self._socket = socket
            self._next_ping = time.monotonic() + PING_SECONDS
            socket.send(self.link.ping())  # ahead of every request: see the theory of operation in link.py
        return self._socket

    def _send(self, frame: bytes) -> None:
        try:
            self._connected().send(frame, zmq.NOBLOCK)
        except zmq.Again:
            raise RouterSilent(f"{self.endpoint} takes no more messages: the router does not read") from None

    def _next(self, until: float) -> Outcome | None:
        """What the next message means, or None after at most PING_SECONDS. RouterSilent, or Refused at the deadline."""
        socket = self._connected()
        now = time.monotonic()
        if now >= until:
            silent = self.link.silent_seconds(now)
            if silent > 5 * PING_SECONDS:
                since = "ever" if self.link.last_pong is None else f"for {silent:.1f} s"
                raise RouterSilent(
                    f"no router has answered at {self.endpoint} {since}; is the orchestrator running? (orchestrator status)"
                )
            raise Refused("deadline", 0.0, "no answer came within the time this call allows")
        if now >= self._next_ping:
            self._next_ping = now + PING_SECONDS
            self._send(self.link.ping())
        wait = max(0.0, min(self._next_ping, until) - now)
        if not socket.poll(int(wait * 1000) + 1):
            return None
        outcome = self.link.receive(socket.recv_multipart(), time.monotonic())
        if isinstance(outcome, Restarted):
            for frame in outcome.frames:
                self._send(frame)
        return outcome


class _Use:
    """Refuses a second caller at once instead of corrupting the socket."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("this Client is in use by another thread; give each thread a Client of its own")

    def __exit__(self, *_: object) -> None:
        self._lock.release()
