"""What do clients, the router and the workers say to one another, byte for byte? Pure.

A message is one frame, or two: over ZeroMQ a multipart message (behind the ROUTER identity, which is not part of this module), within
one machine a message of `workers.lane`. The first frame starts
with `version u8, kind u8`; all numbers are little-endian. Results carry a second frame, the rows themselves, so that no
side copies them. What does not decode raises `WireError`; the receiver counts it and drops it.

    client → router   SUBMIT, CANCEL, PING, DESCRIBE          router → client   RESULT, REFUSED, PONG, DESCRIPTION
    worker → router   HELLO, BATCH_RESULT, BATCH_FAILED, BYE  router → worker   BATCH, WHO

A SUBMIT holds `n` sequences of token ids. The router answers it in one or several RESULTs, each with the positions of the
sequences it answers, or with one REFUSED for all that is not answered yet. Request ids are the client's, unique among
its unanswered requests. PONG carries the router's boot number: a client that sees a new one submits again what is unanswered.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NewType

import msgspec

Buffer = bytes | bytearray | memoryview
RequestId = NewType("RequestId", int)
BatchId = NewType("BatchId", int)

VERSION: Final = 1

SUBMIT: Final = 1
CANCEL: Final = 2
PING: Final = 3
DESCRIBE: Final = 4
RESULT: Final = 16
REFUSED: Final = 17
PONG: Final = 18
DESCRIPTION: Final = 19
HELLO: Final = 32
BATCH_RESULT: Final = 33
BATCH_FAILED: Final = 34
BYE: Final = 35
BATCH: Final = 48
WHO: Final = 49

FLAG_PAIRS: Final = 1
"""The message has a table of split positions: the second segment of sequence i starts at token split[i], 0 = one segment."""
FLAG_PER_TOKEN: Final = 2
"""Each sequence is answered by a matrix [tokens, width] and not by one row [width]."""
FLAG_TENANT: Final = 4
"""A SUBMIT has a u32 behind its header: whom the gateway asks for (a key, an address). The router is fair between them."""
FLAG_PIXELS: Final = 8
"""The payload is float32 images of one size, each [channels, height, width], in place of int32 ids; lengths are what they count as."""

MAX_SEQUENCES: Final = 65_535
MAX_TOKENS: Final = 1 << 24

PRIORITIES: Final = ("interactive", "normal", "bulk")
NORMAL: Final = 1

REASONS: Final = (
    "queue_full", "too_long", "deadline", "draining", "no_instance", "worker_lost", "model_error", "malformed", "cancelled",
)  # fmt: skip
"""Why a request was refused (all but `worker_lost` and `model_error`) or failed. Sent as its index."""

_HEAD = struct.Struct("<BB")
_SUBMIT = struct.Struct("<BBBBIQI")  # version, kind, flags, priority, timeout_ms, request_id, n
_TENANT = struct.Struct("<I")
_ID = struct.Struct("<BBxxxxxxQ")  # CANCEL, PING: version, kind, id
_PONG = struct.Struct("<BBxxxxxxQQ")  # version, kind, token, boot
_RESULT = struct.Struct("<BBBBHHQIIIIII")
# version, kind, flags, len(instance), n, batch_size, request_id, width, queue_us, infer_us, bucket_min, bucket_max, attempts
_REFUSED = struct.Struct("<BBBxIQ")  # version, kind, reason, retry_after_ms, request_id; then the message, UTF-8
_BATCH = struct.Struct("<BBBxIQ")  # version, kind, flags, n, batch_id
_BATCH_RESULT = struct.Struct("<BBBxIQII")  # version, kind, flags, n, batch_id, width, infer_us
_FLOAT = 4
_INT = 4


class WireError(ValueError):
    """A frame that is not what the protocol says. The message names the field and both values."""


class Submit(msgspec.Struct, gc=False):
    request_id: RequestId
    lengths: list[int]
    ids: memoryview
    """int32 token ids of all sequences, one after the other."""
    splits: list[int] | None
    priority: int
    timeout_ms: int
    """Milliseconds from now until the answer is worthless; 0 = no deadline."""
    tenant: int = 0
    """Any number that stands for whoever asks; 0 = the client itself."""
    pixels: bool = False
    """`ids` are images, all of the same number of bytes."""


class Result(msgspec.Struct, gc=False):
    request_id: RequestId
    positions: list[int]
    """Which sequences of the request these are."""
    row_bytes: list[int]
    rows: Buffer
    """float32 rows one after the other, `row_bytes[i]` bytes for `positions[i]`."""
    width: int
    per_token: bool
    instance: str
    bucket: tuple[int, int]
    """(0, 0) where the instance has no bucket."""
    batch_size: int
    queue_us: int
    infer_us: int
    attempts: int


class Refused(msgspec.Struct, gc=False):
    request_id: RequestId
    reason: str
    retry_after_ms: int
    message: str


class Batch(msgspec.Struct, gc=False):
    batch_id: BatchId
    lengths: list[int]
    ids: memoryview
    splits: list[int] | None
    pixels: bool = False


class BatchResult(msgspec.Struct, gc=False):
    batch_id: BatchId
    row_bytes: list[int]
    rows: Buffer
    width: int
    infer_us: int
    per_token: bool


class Cost(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How long one batch took."""

    length: int
    """Tokens of each sequence."""
    n: int
    seconds: float


class Hello(msgspec.Struct, frozen=True):
    """Worker → router, at start and whenever the router asks WHO."""

    name: str
    incarnation: int
    max_seqlen: int
    pid: int
    costs: list[Cost] = []
    """What was measured before it was ready; empty if nothing was."""


def kind_of(frame: Buffer) -> int:
    """The kind of a message; WireError if the frame is too short or of another version."""
    if len(frame) < 2:
        raise WireError(f"frame of {len(frame)} bytes is too short for a header")
    if frame[0] != VERSION:
        raise WireError(f"version {frame[0]}, this side speaks {VERSION}")
    return frame[1]


def encode_submit(
    request_id: int,
    lengths: Sequence[int],
    ids: Buffer,
    *,
    splits: Sequence[int] | None = None,
    priority: int = NORMAL,
    timeout_ms: int = 0,
    tenant: int = 0,
    pixels: bool = False,
) -> bytes:
    """A SUBMIT; `tenant` is a u32, 0 = the client itself. With `pixels` the payload `ids` is images."""
    n = len(lengths)
    flags = (FLAG_PAIRS if splits is not None else 0) | (FLAG_TENANT if tenant else 0) | (FLAG_PIXELS if pixels else 0)
    head = _SUBMIT.pack(VERSION, SUBMIT, flags, priority, timeout_ms, request_id, n)
    if tenant:
        head += _TENANT.pack(tenant)
    if splits is None:
        return b"".join((head, struct.pack(f"<{n}I", *lengths), ids))
    return b"".join((head, struct.pack(f"<{2 * n}I", *lengths, *splits), ids))


def decode_submit(frame: Buffer) -> Submit:
    view = memoryview(frame)
    try:
        _, _, flags, priority, timeout_ms, request_id, n = _SUBMIT.unpack_from(view)
    except struct.error as error:
        raise WireError(f"submit: {error}") from None
    if priority >= len(PRIORITIES):
        raise WireError(f"submit: priority {priority}, known are 0 to {len(PRIORITIES) - 1}")
    at, tenant = _SUBMIT.size, 0
    if flags & FLAG_TENANT:
        if len(view) < at + _TENANT.size:
            raise WireError(f"submit: {len(view)} bytes end before the tenant")
        (tenant,) = _TENANT.unpack_from(view, at)
        at += _TENANT.size
    lengths, splits, at = _tables("submit", view, at, n, flags)
    return Submit(
        request_id, lengths, view[at:], splits, priority, timeout_ms, tenant, pixels=bool(flags & FLAG_PIXELS)
    )


def request_id_of(frame: Buffer) -> int | None:
    """The request id of a SUBMIT that may be malformed behind its header; None if this is no such header."""
    if len(frame) < _SUBMIT.size or frame[0] != VERSION or frame[1] != SUBMIT:
        return None
    number: int = _SUBMIT.unpack_from(frame)[5]
    return number


def encode_batch(
    batch_id: int,
    lengths: Sequence[int],
    parts: Sequence[Buffer],
    *,
    splits: Sequence[int] | None = None,
    pixels: bool = False,
) -> bytes:
    n = len(lengths)
    if splits is None:
        head = _BATCH.pack(VERSION, BATCH, FLAG_PIXELS if pixels else 0, n, batch_id)
        return b"".join((head, struct.pack(f"<{n}I", *lengths), *parts))
    head = _BATCH.pack(VERSION, BATCH, FLAG_PAIRS, n, batch_id)
    return b"".join((head, struct.pack(f"<{2 * n}I", *lengths, *splits), *parts))


def decode_batch(frame: Buffer) -> Batch:
    view = memoryview(frame)
    try:
        _, _, flags, n, batch_id = _BATCH.unpack_from(view)
    except struct.error as error:
        raise WireError(f"batch: {error}") from None
    lengths, splits, at = _tables("batch", view, _BATCH.size, n, flags)
    return Batch(batch_id, lengths, view[at:], splits, bool(flags & FLAG_PIXELS))


def _tables(what: str, view: memoryview, at: int, n: int, flags: int) -> tuple[list[int], list[int] | None, int]:
    """The tables of lengths and splits behind a header, checked against the size of the frame."""
    if not 1 <= n <= MAX_SEQUENCES:
        raise WireError(f"{what}: {n} sequences, allowed are 1 to {MAX_SEQUENCES}")
    tables = 2 if flags & FLAG_PAIRS else 1
    end = at + tables * n * _INT
    if end > len(view):
        raise WireError(f"{what}: {len(view)} bytes cannot hold the tables of {n} sequences")
    numbers = struct.unpack_from(f"<{tables * n}I", view, at)
    lengths = list(numbers[:n])
    total = sum(lengths)
    if total > MAX_TOKENS or min(lengths) < 1:
        raise WireError(f"{what}: lengths of {min(lengths)} to {max(lengths)} tokens, {total} in all; each at least 1")
    if flags & FLAG_PIXELS:
        if flags & FLAG_PAIRS:
            raise WireError(f"{what}: images have no second segment")
        if len(view) == end or (len(view) - end) % (n * _FLOAT):
            raise WireError(f"{what}: {len(view) - end} bytes of pixels are no {n} images of one size")
        return lengths, None, end
    if len(view) - end != total * _INT:
        raise WireError(f"{what}: {len(view) - end} bytes of ids for {total} tokens, expected {total * _INT}")
    if tables == 1:
        return lengths, None, end
    splits = list(numbers[n:])
    for length, split in zip(lengths, splits, strict=True):
        if split >= length:
            raise WireError(f"{what}: second segment at token {split} of {length}")
    return lengths, splits, end


def encode_result(
    request_id: int,
    positions: Sequence[int],
    row_bytes: Sequence[int],
    *,
    width: int,
    per_token: bool,
    instance: bytes,
    bucket: tuple[int, int],
    batch_size: int,
    queue_us: int,
    infer_us: int,
    attempts: int,
) -> bytes:
    """The first frame of a RESULT; the rows follow as the second."""
    n = len(positions)
    head = _RESULT.pack(
        VERSION, RESULT, FLAG_PER_TOKEN if per_token else 0, len(instance), n, batch_size, request_id, width,
        min(queue_us, 0xFFFFFFFF), min(infer_us, 0xFFFFFFFF), bucket[0], bucket[1], attempts,
    )  # fmt: skip
    return b"".join((head, struct.pack(f"<{2 * n}I", *positions, *row_bytes), instance))


def decode_result(meta: Buffer, rows: Buffer) -> Result:
    try:
        (_, _, flags, name_length, n, batch_size, request_id, width, queue_us, infer_us, low, high, attempts) = (
            _RESULT.unpack_from(meta)
        )
        numbers = struct.unpack_from(f"<{2 * n}I", meta, _RESULT.size)
    except struct.error as error:
        raise WireError(f"result: {error}") from None
    name = bytes(meta[_RESULT.size + 2 * n * _INT :])
    if len(name) != name_length:
        raise WireError(f"result: {len(name)} bytes of instance name, the header says {name_length}")
    row_bytes = list(numbers[n:])
    _check_rows("result", row_bytes, rows, width)
    return Result(
        request_id, list(numbers[:n]), row_bytes, rows, width, bool(flags & FLAG_PER_TOKEN),
        name.decode("utf-8", "replace"), (low, high), batch_size, queue_us, infer_us, attempts,
    )  # fmt: skip


def encode_batch_result(
    batch_id: int, row_bytes: Sequence[int], *, width: int, infer_us: int, per_token: bool
) -> bytes:
    """The first frame of a BATCH_RESULT; the rows follow as the second."""
    n = len(row_bytes)
    flags = FLAG_PER_TOKEN if per_token else 0
    head = _BATCH_RESULT.pack(VERSION, BATCH_RESULT, flags, n, batch_id, width, min(infer_us, 0xFFFFFFFF))
    return head + struct.pack(f"<{n}I", *row_bytes)


def decode_batch_result(meta: Buffer, rows: Buffer) -> BatchResult:
    try:
        _, _, flags, n, batch_id, width, infer_us = _BATCH_RESULT.unpack_from(meta)
        if len(meta) != _BATCH_RESULT.size + n * _INT:
            raise WireError(f"batch result: {len(meta)} bytes cannot hold the table of {n} rows")
        row_bytes = list(struct.unpack_from(f"<{n}I", meta, _BATCH_RESULT.size))
    except struct.error as error:
        raise WireError(f"batch result: {error}") from None
    _check_rows("batch result", row_bytes, rows, width)
    return BatchResult(batch_id, row_bytes, rows, width, infer_us, bool(flags & FLAG_PER_TOKEN))


def _check_rows(what: str, row_bytes: list[int], rows: Buffer, width: int) -> None:
    if sum(row_bytes) != len(rows):
        raise WireError(f"{what}: {len(rows)} bytes of rows, the table says {sum(row_bytes)}")
    step = width * _FLOAT
    if step == 0 or any(size % step for size in row_bytes):
        raise WireError(f"{what}: rows of {row_bytes} bytes are no multiples of {width} floats")


def batch_id_of(frame: Buffer) -> BatchId | None:
    """The batch that a BATCH_RESULT, malformed behind its header or in its rows, is about; None if this is no such header."""
    if len(frame) < _BATCH_RESULT.size or frame[0] != VERSION or frame[1] != BATCH_RESULT:
        return None
    return BatchId(_BATCH_RESULT.unpack_from(frame)[4])


def encode_batch_failed(batch_id: int, message: str) -> bytes:
    return _ID.pack(VERSION, BATCH_FAILED, batch_id) + message.encode("utf-8", "replace")


def decode_batch_failed(frame: Buffer) -> tuple[BatchId, str]:
    return BatchId(decode_id(frame)), bytes(frame[_ID.size :]).decode("utf-8", "replace")


def encode_refused(request_id: int, reason: str, *, retry_after_ms: int = 0, message: str = "") -> bytes:
    head = _REFUSED.pack(VERSION, REFUSED, REASONS.index(reason), retry_after_ms, request_id)
    return head + message.encode("utf-8", "replace")


def decode_refused(frame: Buffer) -> Refused:
    try:
        _, _, reason, retry_after_ms, request_id = _REFUSED.unpack_from(frame)
    except struct.error as error:
        raise WireError(f"refused: {error}") from None
    if reason >= len(REASONS):
        raise WireError(f"refused: reason {reason}, known are 0 to {len(REASONS) - 1}")
    message = bytes(frame[_REFUSED.size :]).decode("utf-8", "replace")
    return Refused(request_id, REASONS[reason], retry_after_ms, message)


def encode_cancel(request_id: int) -> bytes:
    return _ID.pack(VERSION, CANCEL, request_id)


def encode_ping(token: int) -> bytes:
    return _ID.pack(VERSION, PING, token)


def decode_id(frame: Buffer) -> int:
    """The id of a CANCEL, the token of a PING, the batch of a BATCH_FAILED."""
    try:
        number: int = _ID.unpack_from(frame)[2]
    except struct.error as error:
        raise WireError(f"id: {error}") from None
    return number


def encode_pong(token: int, boot: int) -> bytes:
    return _PONG.pack(VERSION, PONG, token, boot)


def decode_pong(frame: Buffer) -> tuple[int, int]:
    """(token, boot number of the router)"""
    try:
        _, _, token, boot = _PONG.unpack_from(frame)
    except struct.error as error:
        raise WireError(f"pong: {error}") from None
    return token, boot


def encode_bare(kind: int) -> bytes:
    """DESCRIBE, WHO and BYE: a header and nothing else."""
    return _HEAD.pack(VERSION, kind)


def encode_json(kind: int, body: object) -> bytes:
    """HELLO and DESCRIPTION: a header and a JSON document."""
    return _HEAD.pack(VERSION, kind) + msgspec.json.encode(body)


_HELLO = msgspec.json.Decoder(Hello)


def decode_hello(frame: Buffer) -> Hello:
    try:
        return _HELLO.decode(memoryview(frame)[_HEAD.size :])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"hello: {error}") from None


def json_body(frame: Buffer) -> memoryview:
    """The JSON document of a DESCRIPTION."""
    return memoryview(frame)[_HEAD.size :]
