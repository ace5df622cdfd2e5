"""Which servers do load tests ask? Small ones of our own that answer slowly, badly or not at all."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

SLOW_SECONDS = 0.05
INFO = {"model_id": "a-model", "task": "sentence-embedding", "max_input_length": 512}


@dataclass
class Script:
    """What a server does. `post` is given the body and the handler, and answers."""

    info: bytes = json.dumps(INFO).encode()
    info_status: int = 200
    post: Callable[[bytes, Any], None] | None = None
    key: str | None = None
    asked: list[bytes] = field(default_factory=list)
    port: int = 0
    heard: threading.Condition = field(default_factory=threading.Condition)

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def until_asked(self, count: int) -> None:
        """Waits for so many requests with a body."""
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.asked) >= count, 30), f"{len(self.asked)} requests came"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    script: Script

    def do_GET(self) -> None:
        if self._admitted():
            self.answer(self.script.info_status, self.script.info)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.script.heard:
            self.script.asked.append(body)
            self.script.heard.notify_all()
        if not self._admitted():
            return
        if self.script.post is not None:
            self.script.post(body, self)
            return
        if b"slow" in body:
            threading.Event().wait(SLOW_SECONDS)
        self.answer(429 if b"refused" in body else 200, b"[]")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        """These bytes, and the end of the connection."""
        self.wfile.write(data)
        self.close_connection = True

    def _admitted(self) -> bool:
        if self.script.key is None or self.headers.get("authorization") == f"Bearer {self.script.key}":
            return True
        self.answer(401, b'{"error": "a key is needed"}')
        return False

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        return


@pytest.fixture
def serve() -> Iterator[Callable[..., Script]]:
    """`serve(post=…)` is a server that answers as its script says."""
    with ExitStack() as stack:

        def start(**script: Any) -> Script:
            given = Script(**script)
            handler = type("Scripted", (Handler,), {"script": given})
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            given.port = server.server_port
            return given

        yield start


@pytest.fixture
def address(serve: Callable[..., Script]) -> tuple[str, int]:
    return serve().address
