"""What is known of the whole system, and who is watching it? The newest Status document and the streams of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from aiohttp import web

from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.recollection import Recollection
from orchestrator.history import Step
from orchestrator.status import Status

MOST_STREAMS = 64
KEEP_ALIVE_SECONDS = 15.0
SLOW_READER_SECONDS = 10.0
"""A reader that takes nothing for this long while its buffer is full is let go."""

COMING = frozenset({"initial", "starting", "backoff"})
"""States from which an instance becomes ready by itself."""


class _Instance(msgspec.Struct):
    state: str


class _Glance(msgspec.Struct):
    """The few fields that admission needs, decoded for a fraction of the whole document's price."""

    state: str
    instances: list[_Instance]
    changing: str = ""


_glance = msgspec.json.Decoder(_Glance)
_status = msgspec.json.Decoder(Status)


class Live:
    """Single-threaded; belongs to the event loop. `ask` asks the supervisor how it was."""

    def __init__(self, ask: Callable[[Step], None] = lambda step: None) -> None:  # noqa: ARG005
        self.past = Recollection(ask)
        self.document: bytes | None = None
        """The newest Status as JSON on one line, None until the supervisor has sent one."""
        self.state = "starting"
        self.ready = 0
        """Instances that serve."""
        self.coming = 0
        """Instances that will without anybody's help."""
        self.changing = ""
        """What somebody is just doing with instances, which will serve again afterwards; empty: nothing."""
        self.malformed = 0
        self.streams = 0
        self._version = 0
        self._closed = False
        self._changed: asyncio.Future[None] | None = None

    def publish(self, document: bytes) -> None:
        """A new Status. One that does not decode is counted and dropped."""
        try:
            glance = _glance.decode(document)
        except msgspec.DecodeError:
            self.malformed += 1
            return
        self.document = document
        self.state = glance.state
        self.changing = glance.changing
        self.ready = sum(instance.state == "ready" for instance in glance.instances)
        self.coming = sum(instance.state in COMING for instance in glance.instances)
        self._version += 1
        self._wake()

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None

    def status(self) -> Status:
        """The whole document. Refusal before the first one; msgspec.ValidationError if it is of another version."""
        return _status.decode(self._known())

    def _known(self) -> bytes:
        if self.document is None:
            raise Refusal("no_instance", "the supervisor has not reported yet; try again in a second")
        return self.document

    def json(self) -> bytes:
        return self._known()

    async def stream(self, request: web.BaseRequest) -> web.StreamResponse:
        """Server-sent events: the newest Status at once, then each that comes.

        A slow reader skips to the newest; a stuck one is dropped.
        """
        if self.streams >= MOST_STREAMS:
            raise Refusal("queue_full", f"{MOST_STREAMS} streams are open already; read /api/state instead")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self.streams += 1
        try:
            await response.prepare(request)
            seen = 0
            await _write(request, response, b"retry: 1000\n\n")
            while not self._closed:
                if self.document is not None and seen != self._version:
                    seen = self._version
                    await _write(request, response, b"data: " + self.document + b"\n\n")
                    continue
                if self._changed is None:
                    self._changed = asyncio.get_running_loop().create_future()
                done, _ = await asyncio.wait((self._changed,), timeout=KEEP_ALIVE_SECONDS)
                if not done:
                    await _write(request, response, b": still here\n\n")
        except (ConnectionError, TimeoutError):
            pass  # the reader has gone, or was let go
        finally:
            self.streams -= 1
        return response


async def _write(request: web.BaseRequest, response: web.StreamResponse, data: bytes) -> None:
    try:
        async with asyncio.timeout(SLOW_READER_SECONDS):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise
