"""What does one client connection to the router owe, and what has it got? Pure.

Theory of operation. A link knows every request that has no complete answer yet. `submit` makes the frame to send, `receive`
takes a message of the router and says what came of it: an answer (its rows gathered by position, whatever the order and the number
of RESULTs), a refusal, frames to send again, or nothing.

A router that was restarted has forgotten everything. PINGs carry a growing token and PONGs the router's boot number: with the
first PONG of a new boot, what was submitted before *that* PING may have gone down with the old router and is submitted again with
the time that is left. What was submitted after that PING travelled behind it on the same pipe, so the router that answered the PING
has it too. A PONG older than one already seen is an echo of the old router and is ignored. Rows that arrive twice are taken once; a
message for a request that is settled or cancelled is counted in `late_replies` and dropped; what does not decode is counted in
`malformed` and dropped.

Times are monotonic seconds given by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from workers import wire
from workers.wire import Buffer, RequestId

LARGEST_TIMEOUT_MS = 0xFFFFFFFF
_FLOAT = 4


class Part(msgspec.Struct, frozen=True, gc=False):
    """How one batch of the request went."""

    instance: str
    bucket: tuple[int, int]
    """(0, 0) where the instance has no bucket."""
    batch_size: int
    queue_us: int
    infer_us: int
    attempts: int


class Answered(msgspec.Struct, frozen=True, gc=False):
    """All sequences of a request have their rows."""

    request_id: RequestId
    rows: list[memoryview]
    """float32, in the order of the sequences; `rows[i]` holds [width] or, with `per_token`, [tokens, width] floats."""
    width: int
    per_token: bool
    parts: list[Part]
    """In order of arrival."""
    whole: Buffer | None
    """All rows as one buffer in order, where they came in one message."""

    def matrix(self) -> npt.NDArray[np.float32]:
        """[sequences, width]; read-only where the rows came in one message. ValueError with `per_token`."""
        if self.per_token:
            raise ValueError("one row per token does not make one row per sequence")
        buffer = self.whole if self.whole is not None else b"".join(self.rows)
        return np.frombuffer(buffer, np.float32).reshape(-1, self.width)

    def arrays(self) -> list[npt.NDArray[np.float32]]:
        """Per sequence [width], or with `per_token` [tokens, width]."""
        rows = [np.frombuffer(row, np.float32) for row in self.rows]
        return [row.reshape(-1, self.width) for row in rows] if self.per_token else rows


class Declined(msgspec.Struct, frozen=True, gc=False):
    """The router will not answer this request. `reason` is one of `wire.REASONS`."""

    request_id: RequestId
    reason: str
    retry_after_seconds: float
    message: str


class Restarted(msgspec.Struct, frozen=True, gc=False):
    """The router is another process than before: send these frames."""

    boot: int
    frames: list[bytes]


class Described(msgspec.Struct, frozen=True, gc=False):
    body: bytes
    """JSON, see `RouterSpec.description`."""


Outcome = Answered | Declined | Restarted | Described


class _Outstanding(msgspec.Struct, gc=False):
    lengths: list[int]
    ids: Buffer
    splits: list[int] | None
    priority: int
    tenant: int
    pixels: bool
    deadline: float
    """math.inf = none."""
    after_ping: int
    """The token of the last PING that was sent before this request."""
    rows: list[memoryview | None]
    missing: int
    width: int
    per_token: bool
    parts: list[Part]


class Link:
    """The protocol state of one connection. Not thread-safe; it performs no I/O, whoever owns the socket does."""

    def __init__(self) -> None:
        self.boot: int | None = None
        """The router's boot number, None until it has answered a PING."""
        self.last_pong: float | None = None
        """When the newest PONG arrived."""
        self.submitted = 0
        self.settled = 0
        """Answered, declined or cancelled."""
        self.resubmitted = 0
        self.late_replies = 0
        self.malformed = 0
        self._outstanding: dict[RequestId, _Outstanding] = {}
        self._next_id = 1
        self._token = 0
        self._newest_pong = 0

    def __len__(self) -> int:
        """How many requests have no complete answer yet."""
        return len(self._outstanding)

    def submit(
        self,
        lengths: list[int],
        ids: Buffer,
        now: float,
        *,
        timeout_seconds: float | None = None,
        splits: list[int] | None = None,
        priority: int = wire.NORMAL,
        tenant: int = 0,
        pixels: bool = False,
    ) -> tuple[RequestId, bytes]:
        """A new request of `len(lengths)` sequences; `ids` are their int32 ids, one sequence after the other, or with `pixels` the
        float32 pixels of images of one size.
        """
        request_id = RequestId(self._next_id)
        self._next_id += 1
        deadline = math.inf if timeout_seconds is None else now + timeout_seconds
        n = len(lengths)
        self._outstanding[request_id] = _Outstanding(
            lengths, ids, splits, priority, tenant, pixels, deadline, self._token, [None] * n, n, 0, False, []
        )
        self.submitted += 1
        frame = wire.encode_submit(
            request_id, lengths, ids,
            splits=splits, priority=priority, timeout_ms=_milliseconds(timeout_seconds), tenant=tenant, pixels=pixels,
        )  # fmt: skip
        return request_id, frame

    def cancel(self, request_id: RequestId) -> bytes | None:
        """The frame that tells the router to forget the request; None if it is settled already."""
        if self._outstanding.pop(request_id, None) is None:
            return None
        self.settled += 1
        return wire.encode_cancel(request_id)

    def ping(self) -> bytes:
        self._token += 1
        return wire.encode_ping(self._token)

    def resume(self, now: float) -> list[bytes]:
        """What to send first on a connection that was made anew, where the router forgets what came on a broken one: a PING, then all
        that is unanswered, with the time that is left.
        """
        ping = self.ping()
        return [ping, *self._again(now, self._outstanding)]

    def overdue(self, now: float, grace_seconds: float = 0.0) -> list[RequestId]:
        """The requests whose deadline passed at least `grace_seconds` ago. The caller cancels them."""
        limit = now - grace_seconds
        return [request_id for request_id, one in self._outstanding.items() if one.deadline <= limit]

    def silent_seconds(self, now: float) -> float:
        """How long the router has not answered a PING; infinite before the first answer."""
        return math.inf if self.last_pong is None else now - self.last_pong

    def receive(self, frames: Sequence[bytes | memoryview], now: float) -> Outcome | None:
        """What a single message of the router means; None if it changes nothing for the caller."""
        try:
            kind = wire.kind_of(frames[0])
            if kind == wire.RESULT:
                if len(frames) != 2:
                    raise wire.WireError(f"result of {len(frames)} frames, expected 2")
                return self._result(wire.decode_result(frames[0], frames[1]))
            if len(frames) != 1:
                raise wire.WireError(f"message of kind {kind} with {len(frames)} frames, expected 1")
            if kind == wire.PONG:
                return self._pong(*wire.decode_pong(frames[0]), now)
            if kind == wire.REFUSED:
                return self._refused(wire.decode_refused(frames[0]))
            if kind == wire.DESCRIPTION:
                return Described(bytes(wire.json_body(frames[0])))
            raise wire.WireError(f"kind {kind} is not for clients")
        except wire.WireError:
            self.malformed += 1
            return None

    def validate(self) -> None:
        """Raises AssertionError where the state contradicts itself. For tests, after each step."""
        assert self.submitted == self.settled + len(self._outstanding)
        for one in self._outstanding.values():
            assert one.missing == sum(row is None for row in one.rows)
            assert one.missing > 0
            assert one.after_ping <= self._token
        assert self._newest_pong <= self._token

    def _result(self, result: wire.Result) -> Answered | None:
        request_id = result.request_id
        one = self._outstanding.get(request_id)
        if one is None:
            self.late_replies += 1
            return None
        n = len(one.rows)
        part = Part(
            result.instance, result.bucket, result.batch_size, result.queue_us, result.infer_us, result.attempts
        )
        if n == 1 and result.positions == [0]:  # the hot path: one sequence, one row
            self._check_row_sizes(one, result)
            del self._outstanding[request_id]
            self.settled += 1
            return Answered(request_id, [memoryview(result.rows)], result.width, result.per_token, [part], result.rows)
        self._check_row_sizes(one, result)
        view = memoryview(result.rows)
        at = taken = 0
        for position, size in zip(result.positions, result.row_bytes, strict=True):
            if one.rows[position] is None:
                one.rows[position] = view[at : at + size]
                taken += 1
            at += size
        if taken == 0:  # all of it had come before: an answer to the first of two submissions
            self.late_replies += 1
            return None
        one.missing -= taken
        one.width, one.per_token = result.width, result.per_token
        one.parts.append(part)
        if one.missing:
            return None
        del self._outstanding[request_id]
        self.settled += 1
        whole = result.rows if result.positions == list(range(n)) else None
        rows = [row for row in one.rows if row is not None]
        return Answered(request_id, rows, one.width, one.per_token, one.parts, whole)

    def _check_row_sizes(self, one: _Outstanding, result: wire.Result) -> None:
        n = len(one.rows)
        if not result.positions or max(result.positions) >= n or len(set(result.positions)) != len(result.positions):
            raise wire.WireError(f"result for positions {result.positions} of {n} sequences")
        if one.parts and (one.width, one.per_token) != (result.width, result.per_token):
            raise wire.WireError(f"rows of {result.width} floats after rows of {one.width}")
        row = result.width * _FLOAT
        for position, size in zip(result.positions, result.row_bytes, strict=True):
            expected = row * one.lengths[position] if result.per_token else row
            if size != expected:
                raise wire.WireError(f"{size} bytes for sequence {position}, expected {expected}")

    def _refused(self, refused: wire.Refused) -> Declined | None:
        if self._outstanding.pop(refused.request_id, None) is None:
            self.late_replies += 1
            return None
        self.settled += 1
        return Declined(refused.request_id, refused.reason, refused.retry_after_ms / 1000, refused.message)

    def _pong(self, token: int, boot: int, now: float) -> Restarted | None:
        if token > self._token:
            raise wire.WireError(f"pong {token}, the last ping was {self._token}")
        if token <= self._newest_pong:
            return None
        self._newest_pong = token
        self.last_pong = now
        if boot == self.boot:
            return None
        self.boot = boot
        return Restarted(
            boot, self._again(now, [one for one, it in self._outstanding.items() if it.after_ping < token])
        )

    def _again(self, now: float, requests: Iterable[RequestId]) -> list[bytes]:
        """SUBMITs for requests that the router has forgotten, or never got."""
        frames = []
        for request_id in requests:
            one = self._outstanding[request_id]
            if one.deadline <= now:
                continue
            timeout = None if one.deadline == math.inf else one.deadline - now
            one.after_ping = self._token
            frames.append(
                wire.encode_submit(
                    request_id, one.lengths, one.ids,
                    splits=one.splits, priority=one.priority, timeout_ms=_milliseconds(timeout), tenant=one.tenant,
                    pixels=one.pixels,
                )
            )  # fmt: skip
        self.resubmitted += len(frames)
        return frames


def _milliseconds(timeout_seconds: float | None) -> int:
    """For the wire, where 0 means no deadline: at least 1, rounded up."""
    if timeout_seconds is None:
        return 0
    return max(1, min(LARGEST_TIMEOUT_MS, math.ceil(timeout_seconds * 1000)))
