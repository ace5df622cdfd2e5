"""Do rows and ids find their owners on the way through a batch?"""

from __future__ import annotations

import struct

import pytest

from orchestrator.router.codec import batch_frame, refused_frame, reply_frames, request_from, row_starts
from orchestrator.router.events import Dispatch, Flight, Item, Refuse, Reply, Request
from workers import wire


def ids(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}i", *numbers)


def flight_of(*items: Item) -> Flight:
    return Flight(77, "a", 1, list(items), max(item.length for item in items), 0.001, 5.0, 5.0, True)


def items_of(request: Request) -> list[Item]:
    return [Item(request, at, length, at) for at, length in enumerate(request.lengths)]


def test_a_batch_carries_the_ids_of_each_sequence_in_its_order() -> None:
    one = request_from(b"c", wire.encode_submit(1, [2], ids(1, 2)))
    many = request_from(b"c", wire.encode_submit(2, [1, 3, 2], ids(10, 20, 21, 22, 30, 31)))
    _, middle, last = items_of(many)
    batch = wire.decode_batch(batch_frame(Dispatch(flight_of(last, *items_of(one), middle))))
    assert (batch.batch_id, batch.lengths, batch.splits) == (77, [2, 2, 3], None)
    assert bytes(batch.ids) == ids(30, 31, 1, 2, 20, 21, 22)


def test_splits_follow_their_sequences_and_those_without_get_none() -> None:
    pair = request_from(b"c", wire.encode_submit(1, [3, 4], ids(*range(7)), splits=[0, 2]))
    plain = request_from(b"c", wire.encode_submit(2, [5], ids(*range(5))))
    batch = wire.decode_batch(batch_frame(Dispatch(flight_of(items_of(pair)[1], *items_of(plain)))))
    assert batch.splits == [2, 0]


@pytest.mark.parametrize("per_token", [False, True])
def test_each_request_gets_its_own_rows_of_a_mixed_batch(per_token: bool) -> None:
    first = request_from(b"c", wire.encode_submit(1, [1, 2], ids(1, 2, 3)))
    second = request_from(b"c", wire.encode_submit(2, [3], ids(4, 5, 6)))
    first.arrived = 4.75
    a, b = items_of(first)
    (c,) = items_of(second)
    b.attempts = 2
    flight = flight_of(b, c, a)
    sizes = [8 * item.length if per_token else 8 for item in flight.items]
    rows = b"".join(bytes([row]) * size for row, size in enumerate(sizes))
    result = wire.BatchResult(wire.BatchId(77), sizes, rows, 2, 900, per_token)
    starts = row_starts(result)
    got = wire.decode_result(*reply_frames(Reply(first, [b, a], [0, 2], flight, 900), result, starts, b"a", (1, 32)))
    assert (got.request_id, got.positions, got.row_bytes) == (1, [1, 0], [sizes[0], sizes[2]])
    assert bytes(got.rows) == b"\0" * sizes[0] + b"\2" * sizes[2]
    assert (got.instance, got.bucket, got.batch_size, got.attempts, got.per_token) == ("a", (1, 32), 3, 2, per_token)
    assert (got.queue_us, got.infer_us) == (250_000, 900)
    other = wire.decode_result(*reply_frames(Reply(second, [c], [1], flight, 900), result, starts, b"a", (1, 32)))
    assert (other.request_id, bytes(other.rows)) == (2, b"\1" * sizes[1])


def test_a_refusal_carries_reason_message_and_time_to_retry() -> None:
    request = request_from(b"c", wire.encode_submit(9, [1], ids(1)))
    refused = wire.decode_refused(refused_frame(Refuse(request, "queue_full", "later", 20)))
    assert (refused.request_id, refused.reason, refused.message, refused.retry_after_ms) == (
        9,
        "queue_full",
        "later",
        20,
    )


def test_images_are_cut_out_of_requests_and_travel_together() -> None:
    def image(fill: int) -> bytes:
        return bytes([fill]) * 12

    two = request_from(b"a", wire.encode_submit(1, [5, 5], image(1) + image(2), pixels=True), 12)
    one = request_from(b"b", wire.encode_submit(2, [5], image(3), pixels=True), 12)
    first, second = items_of(two)
    batch = wire.decode_batch(batch_frame(Dispatch(flight_of(second, *items_of(one), first))))
    assert (batch.pixels, batch.lengths) == (True, [5, 5, 5])
    assert bytes(batch.ids) == image(2) + image(3) + image(1)


@pytest.mark.parametrize(
    ("pixels", "expected", "says"),
    [
        (True, 0, "images of 12 bytes; this model reads token ids"),
        (True, 16, "images of 12 bytes; this model reads images of 16 bytes"),
        (False, 12, "token ids; this model reads images of 12 bytes"),
    ],
)
def test_what_the_model_does_not_read_is_refused_before_it_shares_a_batch(
    pixels: bool, expected: int, says: str
) -> None:
    with pytest.raises(wire.WireError, match=says):
        request_from(b"a", wire.encode_submit(1, [3], bytes(12), pixels=pixels), expected)
