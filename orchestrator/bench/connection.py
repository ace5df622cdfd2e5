"""How is one HTTP request sent, and its answer read, for next to nothing? Prepared bytes out; of the answer the head is kept."""

from __future__ import annotations

import socket
import time

RECEIVE = 1 << 17
MOST_HEAD = 1 << 16
CONNECT_SECONDS = 10.0


class Broken(Exception):
    """No whole answer came: says why in a word or two."""


class Connection:
    """One request at a time. OSError if it cannot be opened."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=CONNECT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.received = bytearray()
        self.head = b""
        """Of the answer, in lower case."""
        self.status = 0
        self.due = 0.0
        self.kind = ""
        self.closes = False
        """The server closes it after this answer."""
        self.busy = False
        """Sent, and no whole answer yet."""
        self._needed: int | None = None
        self._chunked = False

    def send(self, request: bytes, kind: str, due: float | None = None) -> None:
        """`due`: when it should have been sent, by time.perf_counter; None: now. Broken if the server has hung up."""
        self.kind, self.busy = kind, True
        self.received.clear()
        self._needed, self._chunked, self.closes = None, False, False
        self.due = time.perf_counter() if due is None else due
        try:
            sent = self.socket.send(request)
            if sent != len(request):  # larger than the socket's buffer: rare enough to wait for
                self.socket.settimeout(CONNECT_SECONDS)
                self.socket.sendall(request[sent:])
                self.socket.setblocking(False)
        except OSError as error:
            raise Broken(f"not sent: {error.strerror or 'timed out'}") from None

    def complete(self) -> bool:
        """Reads what is there; whether the whole answer has come. Broken if it never will."""
        try:
            data = self.socket.recv(RECEIVE)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Broken(error.strerror or "connection lost") from None
        if not data:
            raise Broken("closed without an answer" if not self.received else "closed before its answer was complete")
        self.received += data
        if self._needed is None:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                if len(self.received) > MOST_HEAD or not b"HTTP/1.".startswith(self.received[:7]):
                    raise Broken("no HTTP")
                return False
            self._read_head(end)
        assert self._needed is not None
        whole = self.received.endswith(b"0\r\n\r\n") if self._chunked else len(self.received) >= self._needed
        self.busy = not whole
        return whole

    def _read_head(self, end: int) -> None:
        self.head = bytes(self.received[:end]).lower()
        if not self.head.startswith(b"http/1.") or not self.head[9:12].isdigit():
            raise Broken("no HTTP")
        self.status = int(self.head[9:12])
        self.closes = b"\r\nconnection: close" in self.head
        at = self.head.find(b"\r\ncontent-length:")
        if at >= 0:
            line = self.head[at + 17 : stop if (stop := self.head.find(b"\r\n", at + 2)) >= 0 else None]
            if not line.strip().isdigit():
                raise Broken("no HTTP")
            self._needed = end + 4 + int(line)
        elif b"\r\ntransfer-encoding: chunked" in self.head:
            self._needed, self._chunked = 0, True
        else:
            raise Broken("an answer without a length")

    def close(self) -> None:
        self.socket.close()
