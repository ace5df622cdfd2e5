"""Does a lane give back every message whole and in order, whatever pieces the kernel makes of them?"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import lane
from workers.lane import Lane, LaneClosed, Message


class Torn:
    """A socket end that takes and gives what a script says. The type is a socket's as far as a Lane sees."""

    def __init__(self, stream: bytes, pieces: Iterator[int]) -> None:
        self.stream = stream
        self.pieces = pieces
        self.taken = bytearray()

    def setblocking(self, _: bool) -> None: ...

    def recv(self, most: int) -> bytes:
        size = min(most, next(self.pieces))
        if not size:
            raise BlockingIOError
        piece, self.stream = self.stream[:size], self.stream[size:]
        return piece

    def send(self, data: bytes) -> int:
        size = min(len(data), next(self.pieces))
        if not size:
            raise BlockingIOError
        self.taken += data[:size]
        return size

    def sendmsg(self, parts: list[bytes]) -> int:
        return self.send(b"".join(parts))


def endless(sizes: list[int]) -> Iterator[int]:
    while True:
        yield from sizes
        yield 1 << 20


messages = st.lists(st.tuples(st.binary(max_size=200), st.none() | st.binary(max_size=300)), max_size=12)
pieces = st.lists(st.integers(0, 300), max_size=30)


def lane_over(torn: Torn) -> Lane:
    return Lane(torn)  # type: ignore[arg-type]


@given(messages, pieces)
def test_what_is_put_leaves_in_order_whatever_the_kernel_takes_at_once(said: list[Message], sizes: list[int]) -> None:
    torn = Torn(b"", endless(sizes))
    one = lane_over(torn)
    for frame, rows in said:
        one.put(frame, rows)
    while not one.flush():
        assert one.unsent
    assert one.unsent == 0
    assert bytes(torn.taken) == stream_of(said)


@given(messages, pieces)
def test_what_arrives_in_pieces_comes_out_whole(said: list[Message], sizes: list[int]) -> None:
    torn = Torn(stream_of(said), endless(sizes))
    one = lane_over(torn)
    heard: list[Message] = []
    while torn.stream:
        heard += one.receive()
    assert heard == said
    with pytest.raises(LaneClosed, match="end of file"):
        receive_all(one)


def receive_all(one: Lane) -> None:
    """Until there is something, or the end."""
    while not one.receive():
        pass


def stream_of(said: list[Message]) -> bytes:
    return b"".join(
        struct.pack("<II", len(frame), lane.NO_ROWS if rows is None else len(rows)) + frame + (rows or b"")
        for frame, rows in said
    )


@given(st.integers(lane.LARGEST + 1, 0xFFFFFFFF), st.just(lane.NO_ROWS) | st.integers(0, 0xFFFFFFFE))
def test_sizes_that_no_message_has_close_the_lane_before_anything_is_read(size: int, rows: int) -> None:
    one = lane_over(Torn(struct.pack("<II", size, rows), endless([])))
    with pytest.raises(LaneClosed, match=f"a message of {size}"):
        one.receive()


def test_a_message_larger_than_any_buffer_passes_through_a_real_socket() -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = Lane(ours), Lane(theirs)
    rows = bytes(range(256)) * (3 << 12)  # 3 MiB
    sender.put(b"first", rows)
    sender.put(b"second")
    heard: list[Message] = []
    blocked = 0
    while len(heard) < 2:
        blocked += not sender.flush()
        heard += receiver.receive()
    assert heard == [(b"first", rows), (b"second", None)]
    assert blocked > 3
    sender.close()
    with pytest.raises(LaneClosed):
        receiver.receive()
    receiver.put(b"too late")
    with pytest.raises(LaneClosed):
        receiver.flush()
    receiver.close()
