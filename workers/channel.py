"""How does a child process talk to its supervisor? The child's end of the socketpair, without asyncio."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading

import msgspec

from workers.spec import Beat, FromChild, Start, Stats, ToChild

_PR_SET_PDEATHSIG = 1
_decoder = msgspec.json.Decoder(ToChild)
_encoder = msgspec.json.Encoder()

LARGEST_LINE = 8 << 20


class SupervisorGone(Exception):
    """The other end is closed: the supervisor has died or let go of this child."""


class ChannelError(Exception):
    """A line that is not a message of `workers.spec`."""


def die_with_parent(supervisor_pid: int) -> None:
    """Asks the kernel to kill this process when its parent dies, then checks that the parent had not died before.

    Source: prctl(2), PR_SET_PDEATHSIG. Raises SupervisorGone if the parent is already another process.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor_pid:
        raise SupervisorGone(f"parent is {os.getppid()}, the supervisor was {supervisor_pid}")


def decode(line: bytes | bytearray | memoryview) -> ToChild:
    try:
        message: ToChild = _decoder.decode(line)
        return message
    except msgspec.DecodeError as error:
        raise ChannelError(f"{error}: {bytes(line[:80])!r}") from None


def encode(message: FromChild | ToChild) -> bytes:
    return _encoder.encode(message) + b"\n"


class Lines:
    """Cuts a stream of bytes into lines; keeps the rest for later. Pure."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now. ChannelError if a line outgrows LARGEST_LINE."""
        self._rest += data
        if b"\n" not in data:
            if len(self._rest) > LARGEST_LINE:
                raise ChannelError(f"a line of more than {LARGEST_LINE} bytes")
            return []
        *lines, rest = self._rest.split(b"\n")
        self._rest = bytearray(rest)
        return [bytes(line) for line in lines if line]


class Channel:
    """Blocking start, then non-blocking: `fileno` goes into a poller, `receive` drains what is there.

    `send` may be called from any thread. A supervisor that does not read (stopped, swapped out) never blocks the child: up to
    MOST_UNSENT bytes wait here, and beyond that beats and statistics are dropped, since newer ones follow.
    """

    MOST_UNSENT = 4 << 20

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(True)
        self._lines = Lines()
        self._early: list[ToChild] = []
        self._unsent = bytearray()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        return self._socket.fileno()

    def start(self) -> Start:
        """Waits for the first line, the specification; binds this process's life to the supervisor's."""
        while not self._early:
            self._early.extend(self._read(0))
        first = self._early.pop(0)
        if not isinstance(first, Start):
            raise ChannelError(f"the first message is {type(first).__name__}, not Start")
        die_with_parent(first.supervisor_pid)
        return first

    def receive(self) -> list[ToChild]:
        """All messages that have arrived; SupervisorGone at end of file."""
        messages, self._early = self._early, []
        try:
            while True:
                messages.extend(self._read(socket.MSG_DONTWAIT))
        except BlockingIOError:
            return messages

    def send(self, message: FromChild) -> None:
        """Writes one message, or keeps it until the next call; SupervisorGone if nobody holds the other end."""
        with self._sending:
            if len(self._unsent) > self.MOST_UNSENT and isinstance(message, Beat | Stats):
                return
            self._unsent += encode(message)
            try:
                while self._unsent:
                    sent = self._socket.send(self._unsent, socket.MSG_DONTWAIT)
                    del self._unsent[:sent]
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError) as error:
                raise SupervisorGone(str(error)) from None

    def _read(self, flags: int) -> list[ToChild]:
        try:
            data = self._socket.recv(1 << 16, flags)
        except ConnectionResetError as error:
            raise SupervisorGone(str(error)) from None
        if not data:
            raise SupervisorGone("end of file")
        return [decode(line) for line in self._lines.feed(data)]
