"""How does an answer leave the process? Status line, headers and body in one write.

aiohttp's own Response costs 15 of the 37 µs that a request costs with it (measured on 2 cores of an AMX Xeon at 32 in flight), most
of it in building and serialising a multidict of headers. Here the headers are bytes from the start.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

from aiohttp import HttpVersion10, web

from orchestrator.gateway.errors import REASON

JSON = "application/json"
ONE_WRITE = 1 << 16
"""Up to this size the body is copied behind its headers; beyond it both go into one writev."""


class Reply(web.StreamResponse):
    """A complete answer. `headers` are finished header lines, each with its CRLF, free of control characters."""

    def __init__(
        self,
        status: int,
        content: bytes,
        content_type: str = JSON,
        headers: bytes = b"",
        *,
        close: bool = False,
        asked: int = 0,
    ) -> None:
        super().__init__(status=status, reason=REASON[status])
        self.content = content
        self.asked = asked
        """The number under which the router was asked; 0: it was not."""
        self._type = content_type
        self._lines = headers
        self._closes = close

    def close_after(self) -> None:
        """The connection ends with this answer."""
        self._closes = True

    async def prepare(self, request: web.BaseRequest) -> Any:
        """Writes everything; returns once the transport's buffer is below its high-water mark. ConnectionResetError if nobody is there."""
        if self._eof_sent:
            return None
        self._eof_sent = True
        keep = request.keep_alive and not self._closes
        self._keep_alive = keep
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        connection = b""
        if not keep:
            connection = b"Connection: close\r\n"
        elif request.version == HttpVersion10:
            connection = b"Connection: keep-alive\r\n"
        status = self.status
        content = self.content
        # RFC 9110: no body and no length of one behind 304.
        described = (
            b""
            if status == 304
            else b"Content-Type: %b\r\nContent-Length: %d\r\n"
            % (
                self._type.encode(),
                len(content),
            )
        )
        head = b"HTTP/1.1 %d %b\r\n%bDate: %b\r\n%b%b\r\n" % (
            status,
            REASON[status].encode(),
            described,
            _date(),
            self._lines,
            connection,
        )
        if request.method == "HEAD" or status == 304:
            transport.write(head)
        elif len(content) < ONE_WRITE:
            transport.write(head + content)
        else:
            transport.writelines((head, content))
        await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - everything has been written by prepare
        return


_dated: tuple[int, bytes] = (0, b"")


def _date() -> bytes:
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, formatdate(now, usegmt=True).encode())
    return _dated[1]
