"""How does a connection live and end? aiohttp's server without an Application, and what it does not do for us."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import termios
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from orchestrator.gateway import errors
from orchestrator.gateway.reply import Reply

log = logging.getLogger("gateway")


class _Connection(RequestHandler):
    """Answers what is no HTTP in the same shape as every other error."""

    __slots__ = ()

    @property
    def idle(self) -> bool:
        """Whether it waits for a request, and nothing of one has come."""
        waits = self._waiter is not None and not self._waiter.done()
        return waits and not self._messages and not self._unread()

    def _unread(self) -> bool:
        """Whether something lies in the socket that has not been read: closing it then would be a reset to the client."""
        listens_to = self.transport.get_extra_info("socket") if self.transport is not None else None
        if listens_to is None:
            return False
        waiting = bytearray(4)
        try:
            fcntl.ioctl(listens_to.fileno(), termios.FIONREAD, waiting)
        except OSError:
            return False
        return any(waiting)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            log.error("connection failed; this is a bug: %s", message, exc_info=exc)
            return Reply(500, errors.body("internal", "an error inside the gateway"), close=True)
        first = (message or "").strip().partition("\n")[0].strip() or "bad request"
        return Reply(400, errors.body("malformed", f"not HTTP: {first[:200]}"), close=True)

    def log_exception(self, *args: Any, exc_info: BaseException | None = None, **kw: Any) -> None:
        """A body that cannot be read has been answered with 400; that its rest cannot be read either is no news."""
        if not isinstance(exc_info, web.RequestPayloadError):
            super().log_exception(*args, exc_info=exc_info, **kw)


class Server(web.Server):
    """aiohttp's server without an Application, and with a way to wait until the last connection is gone."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(
            handler,
            handler_cancellation=True,  # a client that hangs up cancels its request, here and in the router
            access_log=None,
            keepalive_timeout=75.0,
            lingering_time=2.0,  # enough for a refused upload to read its 413
        )
        self.open_connections = 0
        self.empty = asyncio.Event()
        self.empty.set()

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        self.open_connections += 1
        self.empty.clear()
        super().connection_made(handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self.open_connections -= 1
        if self.open_connections == 0:
            self.empty.set()

    def close_idle(self) -> None:
        """Closes each connection that has asked nothing: no request is being answered on it and none lies unread in its socket."""
        for connection in self.connections:
            assert isinstance(connection, _Connection)
            if connection.idle:
                connection.force_close()

    async def flush(self, timeout_seconds: float) -> None:
        """Lets requests in flight end and what is written leave the sockets, each for at most this long; then closes everything."""
        await self.shutdown(timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.empty.wait()
        except TimeoutError:
            log.warning("%d connections are cut off with data unsent", self.open_connections)
