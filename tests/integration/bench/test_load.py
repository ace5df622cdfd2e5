"""Does the load generator measure what it says, class by class? Against a server of our own that answers slowly or badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from orchestrator.bench.load import closed_loop, embed_request

SLOW_SECONDS = 0.05


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if b"slow" in body:
            threading.Event().wait(SLOW_SECONDS)
        self.send_response(429 if b"refused" in body else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        return


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield "127.0.0.1", server.server_port
        server.shutdown()
        thread.join()


def test_latencies_are_kept_by_class_and_refusals_apart(address: tuple[str, int]) -> None:
    texts = [("quick", "short"), ("slow", "long"), ("refused", "short")]
    requests = [embed_request(*address, text) for text, _ in texts]
    load = closed_loop(*address, requests, 3, 0.3, [kind for _, kind in texts])
    assert set(load.by_kind) == {"short", "long"}
    assert min(load.by_kind["long"]) >= SLOW_SECONDS
    assert sorted(load.latencies) == sorted(took for each in load.by_kind.values() for took in each)
    assert set(load.failures) == {429}


def test_without_classes_all_latencies_are_of_one(address: tuple[str, int]) -> None:
    load = closed_loop(*address, [embed_request(*address, "quick")], 1, 0.05)
    assert load.by_kind == {"": load.latencies}
    assert load.latencies
