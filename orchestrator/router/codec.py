"""How does a frame become a request, and a decision a frame? Pure."""

from __future__ import annotations

from itertools import accumulate

import msgspec

from orchestrator.router.events import Client, Dispatch, Refuse, Reply, Request
from workers import wire


class Tokens(msgspec.Struct, gc=False):
    """The payload of a request: the token ids of all its sequences, one after the other."""

    ids: memoryview
    starts: list[int] | None
    """Where each sequence begins, in bytes; None for a single one."""
    splits: list[int] | None
    pixel_bytes: int = 0
    """Of an image, where the payload is images; 0: it is token ids."""


def request_from(client: bytes, frame: wire.Buffer, expected: int = 0) -> Request:
    """The request of a SUBMIT. WireError if it does not decode, or is not what the model reads.

    `expected` is the bytes of one image, 0 where the model reads token ids.
    """
    message = wire.decode_submit(frame)
    lengths = message.lengths
    starts = None
    pixel_bytes = len(message.ids) // len(lengths) if message.pixels else 0
    if pixel_bytes != expected:
        sent = f"images of {pixel_bytes} bytes" if pixel_bytes else "token ids"
        raise wire.WireError(
            f"submit: {sent}; this model reads " + (f"images of {expected} bytes" if expected else "token ids")
        )
    if len(lengths) > 1:
        starts = [0, *accumulate(pixel_bytes or 4 * length for length in lengths[:-1])]
    tokens = Tokens(message.ids, starts, message.splits, pixel_bytes)
    return Request(
        Client(client), message.request_id, lengths, message.timeout_ms, message.priority, tokens, tenant=message.tenant
    )


def batch_frame(action: Dispatch) -> bytes:
    """The BATCH for a worker."""
    flight = action.flight
    lengths: list[int] = []
    parts: list[wire.Buffer] = []
    splits: list[int] = []
    paired = False
    for item in flight.items:
        tokens: Tokens = item.request.payload
        length = item.length
        lengths.append(length)
        if tokens.starts is None:
            parts.append(tokens.ids)
        else:
            start = tokens.starts[item.position]
            parts.append(tokens.ids[start : start + (tokens.pixel_bytes or 4 * length)])
        if tokens.splits is None:
            splits.append(0)
        else:
            splits.append(tokens.splits[item.position])
            paired = True
    pixels = flight.items[0].request.payload.pixel_bytes > 0
    return wire.encode_batch(flight.batch_id, lengths, parts, splits=splits if paired else None, pixels=pixels)


def reply_frames(
    action: Reply, result: wire.BatchResult, starts: list[int], instance: bytes, bucket: tuple[int, int]
) -> tuple[bytes, wire.Buffer]:
    """The RESULT for a client: its first frame, and its rows out of those of the batch.

    `starts[i]` is where row i of the batch begins, in bytes (`row_starts`).
    """
    flight, items, rows = action.flight, action.items, action.rows
    sizes = result.row_bytes
    mine: wire.Buffer
    if len(sizes) == 1:
        mine, row_bytes, attempts = result.rows, sizes, items[0].attempts
    elif len(rows) == 1:
        row = rows[0]
        mine = memoryview(result.rows)[starts[row] : starts[row + 1]]
        row_bytes, attempts = [sizes[row]], items[0].attempts
    else:
        view = memoryview(result.rows)
        mine = b"".join([view[starts[row] : starts[row + 1]] for row in rows])
        row_bytes = [sizes[row] for row in rows]
        attempts = max([item.attempts for item in items])
    queued = flight.started - action.request.arrived
    meta = wire.encode_result(
        action.request.request_id,
        [item.position for item in items],
        row_bytes,
        width=result.width,
        per_token=result.per_token,
        instance=instance,
        bucket=bucket,
        batch_size=len(flight.items),
        queue_us=int(queued * 1e6) if queued > 0.0 else 0,
        infer_us=action.infer_us,
        attempts=attempts,
    )
    return meta, mine


def row_starts(result: wire.BatchResult) -> list[int]:
    """Where each row of a batch begins in bytes, and the end of the last one."""
    return [0, *accumulate(result.row_bytes)]


def refused_frame(action: Refuse) -> bytes:
    """The REFUSED for a client."""
    return wire.encode_refused(
        action.request.request_id, action.reason, retry_after_ms=action.retry_after_ms, message=action.message
    )
