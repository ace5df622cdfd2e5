"""Does the load generator measure what it says? Against servers of our own that answer slowly, badly or not at all."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.bench import load as generator
from orchestrator.bench.alarm import Alarm
from orchestrator.bench.load import closed_load, closed_loop, embed_request, open_loop

SLOW_SECONDS = 0.05


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


def test_an_answer_s_head_is_kept_for_what_it_says(serve: Callable[..., Any]) -> None:
    server = serve(post=lambda _, handler: handler.answer(200, b"[]", X_Instance="short-0"))
    load = closed_loop(*server.address, [embed_request(*server.address, "quick")], 1, 0.05)
    assert len(load.heads) == len(load.latencies)
    assert all(b"\r\nx-instance: short-0" in head for head in load.heads)


def test_a_server_that_hangs_up_is_an_error_to_the_closed_loop_and_counted_under_load(
    serve: Callable[..., Any],
) -> None:
    server = serve(post=lambda _, handler: handler.raw(b""))
    requests = [embed_request(*server.address, "quick")]
    with pytest.raises(ConnectionError, match="closed without an answer"):
        closed_loop(*server.address, requests, 2, 0.05)
    load = closed_load(server.address, requests, 2, 0.05)
    assert load.latencies == []
    assert set(load.broken) == {"closed without an answer"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP"),
        (b"HTTP/1.1 twohundred OK\r\nContent-Length: 0\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", "an answer without a length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[]", "closed before its answer was complete"),
    ],
)
def test_garbage_is_counted_by_what_is_wrong_with_it(serve: Callable[..., Any], answer: bytes, why: str) -> None:
    server = serve(post=lambda _, handler: handler.raw(answer))
    load = open_loop(server.address, [embed_request(*server.address, "quick")], [0.0, 0.01, 0.02], 0.05)
    assert (load.latencies, load.broken) == ([], {why: 3})


def test_answers_in_chunks_and_connections_that_the_server_closes_are_fine(serve: Callable[..., Any]) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n[]\r\n0\r\n\r\n"
    server = serve(post=lambda _, handler: handler.raw(chunked))
    load = open_loop(server.address, [embed_request(*server.address, "quick")], [0.0, 0.01, 0.02], 0.05)
    assert (len(load.latencies), load.broken) == (3, {})


def test_requests_are_sent_when_they_are_due_whatever_is_answered(serve: Callable[..., Any]) -> None:
    """A server that stops is charged for all that came meanwhile: coordinated omission would show one slow request."""
    answering = threading.Event()
    arrived = threading.Barrier(5)

    def post(_: bytes, handler: Any) -> None:
        if arrived.wait(10) == 0:  # all five are there before any is answered
            answering.set()
        answering.wait(10)
        handler.answer(200, b"[]")

    server = serve(post=post)
    due = [0.0, 0.02, 0.04, 0.06, 0.08]
    load = open_loop(server.address, [embed_request(*server.address, "quick")], due, 0.1)
    assert len(load.latencies) == 5
    # None was answered before the last came: each has waited for as long as it was due before that.
    for latency, before in zip(sorted(load.latencies, reverse=True), (0.08, 0.06, 0.04, 0.02, 0.0), strict=True):
        assert latency >= before
    assert len(load.lags) == 5


def test_latency_counts_from_the_moment_a_request_was_due_even_where_no_connection_is_free(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "MOST_CONNECTIONS", 1)
    server = serve()
    load = open_loop(server.address, [embed_request(*server.address, "slow")], [0.0, 0.0, 0.0], 0.05)
    assert load.held_back == 2
    one, two, three = sorted(load.latencies)
    assert one >= SLOW_SECONDS
    assert two >= 2 * SLOW_SECONDS
    assert three >= 3 * SLOW_SECONDS


def test_what_is_never_answered_is_given_up_and_counted(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "PATIENCE_SECONDS", 0.2)
    ended = threading.Event()
    server = serve(post=lambda *_: ended.wait(30))
    requests = [embed_request(*server.address, "quick")]
    assert open_loop(server.address, requests, [0.0, 0.01], 0.05).broken == {"no answer": 2}
    assert closed_load(server.address, requests, 3, 0.05).broken == {"no answer": 3}
    ended.set()


def test_a_server_that_goes_away_is_told_at_once(serve: Callable[..., Any]) -> None:
    def post(_: bytes, handler: Any) -> None:
        handler.server.socket.close()  # whoever comes later is refused
        handler.raw(b"")

    server = serve(post=post)
    load = open_loop(server.address, [embed_request(*server.address, "quick")], [0.0, 0.2, 0.25, 0.3], 0.4)
    assert load.latencies == []
    assert sum(load.broken.values()) == 4
    assert load.broken["Connection refused"] == 3


def test_nobody_there_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    for load in (lambda: closed_load(address, [b""], 1, 0.1), lambda: open_loop(address, [b""], [0.0], 0.1)):
        with pytest.raises(ConnectionRefusedError):
            load()


def test_an_alarm_wakes_a_poller_not_before_its_moment() -> None:
    alarm = Alarm()
    try:
        at = time.perf_counter() + 0.0123
        alarm.set(at)
        assert select.select([alarm], [], [], 10)[0] == [alarm]
        assert time.perf_counter() >= at
        alarm.heard()
        assert select.select([alarm], [], [], 0)[0] == []
    finally:
        alarm.close()
