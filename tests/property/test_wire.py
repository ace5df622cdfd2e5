"""Does every message come out as it went in, and does nothing else come in?"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import wire

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[list[int], bytes, list[int] | None]:
    lengths = draw(st.lists(st.integers(1, 20), min_size=1, max_size=8))
    ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=sum(lengths), max_size=sum(lengths)))
    splits = [draw(st.integers(0, length - 1)) for length in lengths] if draw(st.booleans()) else None
    return lengths, struct.pack(f"<{len(ids)}i", *ids), splits


@given(sequences(), u64, st.integers(0, 2), u32, u32)
def test_a_submit_round_trips(
    one: tuple[list[int], bytes, list[int] | None], request_id: int, priority: int, timeout_ms: int, tenant: int
) -> None:
    lengths, ids, splits = one
    frame = wire.encode_submit(
        request_id, lengths, ids, splits=splits, priority=priority, timeout_ms=timeout_ms, tenant=tenant
    )
    assert wire.kind_of(frame) == wire.SUBMIT
    back = wire.decode_submit(frame)
    assert (back.request_id, back.lengths, bytes(back.ids), back.splits) == (request_id, lengths, ids, splits)
    assert (back.priority, back.timeout_ms, back.tenant) == (priority, timeout_ms, tenant)


@given(sequences(), u64)
def test_a_batch_round_trips(one: tuple[list[int], bytes, list[int] | None], batch_id: int) -> None:
    lengths, ids, splits = one
    back = wire.decode_batch(wire.encode_batch(batch_id, lengths, [ids], splits=splits))
    assert (back.batch_id, back.lengths, bytes(back.ids), back.splits) == (batch_id, lengths, ids, splits)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=6), st.integers(1, 9), u64, u32, st.data())
def test_images_round_trip_and_no_image_is_torn(
    lengths: list[int], floats: int, number: int, tenant: int, data: st.DataObject
) -> None:
    body = data.draw(st.binary(min_size=4 * floats * len(lengths), max_size=4 * floats * len(lengths)))
    frame = wire.encode_submit(number, lengths, body, tenant=tenant, pixels=True)
    back = wire.decode_submit(frame)
    assert (back.request_id, back.lengths, bytes(back.ids), back.tenant) == (number, lengths, body, tenant)
    assert (back.pixels, back.splits) == (True, None)
    batch_frame = wire.encode_batch(number, lengths, [body], pixels=True)
    batch = wire.decode_batch(batch_frame)
    assert (batch.batch_id, batch.lengths, bytes(batch.ids), batch.pixels) == (number, lengths, body, True)
    for torn in (frame[: -data.draw(st.integers(1, 3))], frame[: -len(body)]):
        with pytest.raises(wire.WireError, match="images of one size"):
            wire.decode_submit(torn)


def test_images_with_split_positions_are_refused() -> None:
    frame = bytearray(wire.encode_submit(1, [3], b"\0" * 12, splits=[1]))
    frame[2] |= wire.FLAG_PIXELS
    with pytest.raises(wire.WireError, match="second segment"):
        wire.decode_submit(frame)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 4), u64, u32, st.booleans())
def test_results_round_trip(rows: list[int], width: int, number: int, micros: int, per_token: bool) -> None:
    row_bytes = [count * width * 4 for count in rows]
    body = bytes(sum(row_bytes))
    meta = wire.encode_batch_result(number, row_bytes, width=width, infer_us=micros, per_token=per_token)
    back = wire.decode_batch_result(meta, body)
    assert (back.batch_id, back.row_bytes, back.width, back.infer_us) == (number, row_bytes, width, micros)
    assert back.per_token is per_token
    head = wire.encode_result(
        number, range(len(rows)), row_bytes, width=width, per_token=per_token, instance=b"short-0", bucket=(1, 32),
        batch_size=7, queue_us=micros, infer_us=micros, attempts=1,
    )  # fmt: skip
    result = wire.decode_result(head, body)
    assert (result.request_id, result.positions, result.instance) == (number, list(range(len(rows))), "short-0")
    assert (result.bucket, result.batch_size, result.queue_us) == ((1, 32), 7, micros)


@given(u64, st.sampled_from(wire.REASONS), u32, st.text(max_size=50))
def test_refusals_and_ids_round_trip(number: int, reason: str, retry: int, message: str) -> None:
    refused = wire.decode_refused(wire.encode_refused(number, reason, retry_after_ms=retry, message=message))
    assert (refused.request_id, refused.reason, refused.retry_after_ms) == (number, reason, retry)
    assert refused.message == message.encode("utf-8", "replace").decode()
    assert wire.decode_id(wire.encode_cancel(number)) == number
    assert wire.decode_id(wire.encode_ping(number)) == number
    assert wire.decode_pong(wire.encode_pong(number, 5)) == (number, 5)
    batch, said = wire.decode_batch_failed(wire.encode_batch_failed(number, message))
    assert (batch, said) == (number, message.encode("utf-8", "replace").decode())


def test_a_hello_round_trips() -> None:
    hello = wire.Hello("short-0", 3, 256, 4711)
    assert wire.decode_hello(wire.encode_json(wire.HELLO, hello)) == hello


DECODERS: list[Any] = [
    wire.decode_submit,
    wire.decode_batch,
    wire.decode_refused,
    wire.decode_id,
    wire.decode_pong,
    wire.decode_batch_failed,
    wire.decode_hello,
    lambda frame: wire.decode_result(frame, frame),
    lambda frame: wire.decode_batch_result(frame, frame),
    wire.kind_of,
]


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary(max_size=80))
def test_garbage_is_decoded_or_refused_but_never_anything_else(decode: Any, garbage: bytes) -> None:
    with suppress(wire.WireError):
        decode(garbage)


@pytest.mark.parametrize("decode", [wire.decode_submit, wire.decode_batch])
@given(sequences(), st.data())
def test_a_truncated_or_padded_frame_is_refused(
    decode: Any, one: tuple[list[int], bytes, list[int] | None], data: st.DataObject
) -> None:
    lengths, ids, splits = one
    encode = wire.encode_submit if decode is wire.decode_submit else None
    frame = encode(1, lengths, ids, splits=splits) if encode else wire.encode_batch(1, lengths, [ids], splits=splits)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(wire.WireError):
        decode(frame[:cut])
    with pytest.raises(wire.WireError):
        decode(frame + b"\0\0\0\0")


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"", "too short"),
        (b"\x02\x01", "version 2, this side speaks 1"),
    ],
)
def test_a_header_that_is_not_ours_is_named(frame: bytes, says: str) -> None:
    with pytest.raises(wire.WireError, match=says):
        wire.kind_of(frame)


def test_a_sequence_of_no_tokens_is_refused() -> None:
    with pytest.raises(wire.WireError, match="each at least 1"):
        wire.decode_submit(wire.encode_submit(1, [0, 1], b"\0\0\0\0"))


def test_a_split_outside_its_sequence_is_refused() -> None:
    with pytest.raises(wire.WireError, match="second segment at token 2 of 2"):
        wire.decode_submit(wire.encode_submit(1, [2], bytes(8), splits=[2]))
