"""How do two processes of one machine exchange messages with no thread between them? A Unix stream socket that never blocks.

Theory of operation. ZeroMQ gives every process a thread that moves its messages: three wake-ups a hop where the kernel needs one. A
request makes four hops (gateway, router, worker and back). Measured on two cores with 1.3 ms of computing between them, they
took 0.37 ms and 0.22 ms of CPU through ZeroMQ, and 0.14 and 0.06 through this. So the processes of one
orchestrator speak through lanes, and ZeroMQ is for everybody else; what is said is `workers.wire` either way.

A message is one frame, or a frame and its rows, behind a header of their two sizes (u32, little endian; the second is NO_ROWS where there
are none). The first message of whoever connects says who it is. Nothing is lost or reordered while the connection lives; when it
breaks, all that was under way on it is gone, and both sides know.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from workers.wire import Buffer

Message = tuple[bytes, bytes | None]
"""A frame and its rows, if it has any."""

SCHEME: Final = "unix://"
LARGEST: Final = 128 << 20
"""Bytes of one message."""
CHUNK: Final = 1 << 16  # a read buffer below the size from which malloc asks the kernel each time
_LARGEST_CHUNK: Final = 1 << 20
_JOINED: Final = 1 << 18
"""Up to here one copy and one system call are cheaper than a vector."""
_VECTOR: Final = 64
_HEAD: Final = struct.Struct("<II")
NO_ROWS: Final = 0xFFFFFFFF


class LaneClosed(Exception):
    """The other end is gone, or speaks something else: says which. Nothing more comes, nothing more can be sent."""


class Lane:
    """One end. Not thread-safe; whoever owns it waits on `fileno`."""

    def __init__(self, end: socket.socket, chunk: int = CHUNK) -> None:
        """`chunk`: bytes read at once where no longer message is under way."""
        end.setblocking(False)
        self._socket = end
        self._chunk = chunk
        self._out: list[Buffer] = []
        self._chunks: list[bytes] = []
        """The beginning of a message that is not complete yet."""
        self._have = 0
        self._need = _HEAD.size
        self.unsent = 0
        """Bytes that wait for the other end to read."""

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def put(self, frame: Buffer, rows: Buffer | None = None) -> None:
        """One more message for the next `flush`."""
        if rows is None:
            self._out += (_HEAD.pack(len(frame), NO_ROWS), frame)
            self.unsent += _HEAD.size + len(frame)
        else:
            self._out += (_HEAD.pack(len(frame), len(rows)), frame, rows)
            self.unsent += _HEAD.size + len(frame) + len(rows)

    def flush(self) -> bool:
        """Hands over what was put. False: the other end must read first; call again when it can be written. LaneClosed."""
        while self.unsent:
            try:
                if self.unsent <= _JOINED:
                    self._out = [b"".join(self._out)]
                    sent = self._socket.send(self._out[0])
                else:
                    sent = self._socket.sendmsg(self._out[:_VECTOR])
            except BlockingIOError:
                return False
            except OSError as error:
                raise LaneClosed(error.strerror or str(error)) from None
            self.unsent -= sent
            if not self.unsent:
                break
            self._skip(sent)
        self._out = []
        return True

    def receive(self) -> list[Message]:
        """What has come since the last call and is complete. LaneClosed at the end of file, or if the sizes are none of ours."""
        try:
            data = self._socket.recv(min(max(self._chunk, self._need - self._have), _LARGEST_CHUNK))
        except BlockingIOError:
            return []
        except OSError as error:
            raise LaneClosed(error.strerror or str(error)) from None
        if not data:
            raise LaneClosed("end of file")
        if self._chunks:
            self._chunks.append(data)
            self._have += len(data)
            if self._have < self._need:
                return []
            data = b"".join(self._chunks)
            self._chunks = []
        return self._cut(data)

    def _cut(self, data: bytes) -> list[Message]:
        messages: list[Message] = []
        at, end = 0, len(data)
        need = _HEAD.size
        while end - at >= _HEAD.size:
            size, rows = _HEAD.unpack_from(data, at)
            behind = 0 if rows == NO_ROWS else rows
            if size + behind > LARGEST:
                raise LaneClosed(f"a message of {size} and {rows} bytes, at most {LARGEST} are possible")
            start = at + _HEAD.size
            stop = start + size
            if stop + behind > end:
                need = stop + behind - at
                break
            messages.append((data[start:stop], None if rows == NO_ROWS else data[stop : stop + behind]))
            at = stop + behind
        rest = data[at:]
        self._chunks, self._have, self._need = [rest] if rest else [], len(rest), need
        return messages

    def _skip(self, sent: int) -> None:
        """Forgets the first `sent` bytes of what waits."""
        whole = 0
        while sent >= len(self._out[whole]):
            sent -= len(self._out[whole])
            whole += 1
        self._out[: whole + 1] = [memoryview(self._out[whole])[sent:]]


def path_of(endpoint: str) -> str:
    return endpoint.removeprefix(SCHEME)


def connect(endpoint: str, who: bytes) -> Lane | None:
    """A lane to whoever listens at `unix:///…`, introduced as `who`; None while nobody does."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end.setblocking(False)
    lane = Lane(end)
    try:
        end.connect(path_of(endpoint))
        lane.put(who)
        lane.flush()
    except (
        OSError,
        LaneClosed,
    ):  # not there yet, its queue of connections is full, or gone again: all end with another try
        lane.close()
        return None
    return lane


CLIENT: Final = b"C"
WORKER: Final = b"W"


def as_client(name: str) -> bytes:
    """How a gateway introduces itself."""
    return CLIENT + name.encode()


def as_worker(identity: bytes) -> bytes:
    """How a worker introduces itself, by the identity that it would have as a ZeroMQ socket."""
    return WORKER + identity
