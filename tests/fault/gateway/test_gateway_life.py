"""Does a gateway outlive its router, refuse in time, drain with nothing lost, and leave when it should?"""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from workers import wire
from workers.spec import Drained, Fatal, Ready


@pytest.fixture
def crowd() -> Any:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def embed(gateway: Any, text: str, **headers: str) -> Any:
    return gateway.post("/embed", {"inputs": text}, {key.replace("_", "-"): value for key, value in headers.items()})


def test_a_restarted_router_gets_what_was_unanswered_and_each_request_one_answer(
    own_router: Any, start_gateway: Any, crowd: Any, kit: Any, endpoint: str
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    assert own_router.pinged.wait(kit.PATIENCE)
    own_router.respond = lambda _: []
    asked: list[Future[Any]] = [crowd.submit(embed, gateway, f"text {number}") for number in range(8)]
    before = {own_router.next().request_id for _ in asked}
    own_router.stop()
    second = kit.RouterDouble(endpoint)
    try:
        assert {second.next().request_id for _ in asked} == before
        answers = [one.result(kit.PATIENCE) for one in asked]
        assert [answer.status for answer in answers] == [200] * 8
        assert len({bytes(answer.body) for answer in answers}) == 8
        # Reports come every 50 ms and the oldest is read first: wait for the one that has all answers in it.
        report = gateway.status_when(lambda status: status.responses.get("/embed 200") == 8)
        assert report.resubmitted == 8
        assert {key for key in report.responses if key.startswith("/embed")} == {"/embed 200"}
        assert embed(gateway, "after").status == 200
    finally:
        second.stop()


def test_a_resubmitted_request_keeps_only_the_time_that_is_left(
    own_router: Any, start_gateway: Any, crowd: Any, kit: Any, endpoint: str
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    assert own_router.pinged.wait(kit.PATIENCE)
    own_router.respond = lambda _: []
    asked = crowd.submit(embed, gateway, "a", x_request_timeout_ms="19000")
    first = own_router.next().timeout_ms
    own_router.stop()
    second = kit.RouterDouble(endpoint)
    try:
        assert 0 < second.next().timeout_ms < first <= 19_000
        assert asked.result(kit.PATIENCE).status == 200
    finally:
        second.stop()


def test_a_request_that_arrives_while_the_router_is_away_waits_for_the_next_one(
    start_gateway: Any, crowd: Any, kit: Any, endpoint: str
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    asked = crowd.submit(embed, gateway, "a")
    gateway.status_when(lambda status: status.in_flight == 1)
    router = kit.RouterDouble(endpoint)
    try:
        assert asked.result(kit.PATIENCE).status == 200
    finally:
        router.stop()


def test_without_a_router_a_request_ends_at_its_deadline_with_503(start_gateway: Any) -> None:
    gateway = start_gateway({"short-0": "ready"})
    answer = embed(gateway, "a", x_request_timeout_ms="100")
    assert (answer.status, answer.json()["error_type"]) == (503, "no_instance")
    assert answer.headers["retry-after"] == "1"


def test_a_router_that_answers_pings_and_nothing_else_makes_it_504_at_the_deadline(
    gateway: Any, router: Any, kit: Any
) -> None:
    router.respond = lambda _: []
    answer = embed(gateway, "a", x_request_timeout_ms="100")
    assert (answer.status, answer.json()["error_type"]) == (504, "deadline")
    assert router.cancelled.get(timeout=kit.PATIENCE) == router.next().request_id


def test_the_deadline_travels_to_the_router(gateway: Any, router: Any) -> None:
    embed(gateway, "a", x_request_timeout_ms="5000")
    assert 4_000 < router.next().timeout_ms <= 5_000
    embed(gateway, "a")
    assert 59_000 < router.next().timeout_ms <= 60_000


@pytest.mark.parametrize(
    ("reason", "status", "retry_after"),
    [
        ("queue_full", 429, "3"), ("too_long", 413, None), ("deadline", 504, None), ("draining", 503, "3"),
        ("no_instance", 503, "3"), ("worker_lost", 424, None), ("model_error", 424, None),
    ],
)  # fmt: skip
def test_each_refusal_of_the_router_has_its_status(
    gateway: Any, router: Any, reason: str, status: int, retry_after: str | None
) -> None:
    router.respond = lambda seen: [[wire.encode_refused(seen.request_id, reason, retry_after_ms=2100, message="why")]]
    for path, field in (("/embed", "inputs"), ("/v1/embeddings", "input")):
        answer = gateway.post(path, {field: "a"})
        assert (answer.status, answer.headers["retry-after"]) == (status, retry_after)
        assert b'"why"' in answer.body
        assert reason.encode() in answer.body


def test_with_no_instance_that_could_come_back_a_request_is_refused_at_once(gateway: Any, router: Any) -> None:
    states = {"short-0": "failed", "long-0": "stopped"}
    gateway.state(states)
    gateway.seen_state(states)
    answer = embed(gateway, "a")
    assert (answer.status, answer.json()["error_type"]) == (503, "no_instance")
    assert int(answer.headers["retry-after"]) >= 1
    assert router.submitted.empty()


def test_while_an_instance_is_being_started_a_request_waits_for_it_but_not_for_long(gateway: Any, router: Any) -> None:
    gateway.state({"short-0": "starting"})
    gateway.seen_state({"short-0": "starting"})
    assert embed(gateway, "a").status == 200
    assert router.next().timeout_ms <= 5_000
    router.respond = lambda seen: [[wire.encode_refused(seen.request_id, "deadline")]]
    assert embed(gateway, "a").status == 503
    assert embed(gateway, "a", x_request_timeout_ms="50").status == 504


def test_more_requests_at_once_than_the_limit_are_told_to_come_back(
    own_router: Any, start_gateway: Any, crowd: Any, kit: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"}, limits=kit.Limits(in_flight=2))
    own_router.respond = lambda _: []
    held = [crowd.submit(embed, gateway, f"text {number}") for number in range(2)]
    seen = [own_router.next() for _ in held]
    answer = embed(gateway, "one too many")
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert gateway.get("/health").status == 200
    for one in seen:
        own_router.send(one.identity, kit.answer(one)[0])
    assert [one.result(kit.PATIENCE).status for one in held] == [200, 200]


def test_draining_answers_what_was_accepted_and_refuses_what_comes_after(
    own_router: Any, start_gateway: Any, crowd: Any, kit: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    own_router.respond = lambda _: []
    held = [crowd.submit(embed, gateway, f"text {number}") for number in range(4)]
    seen = [own_router.next() for _ in held]
    gateway.drain()
    gateway.status_when(lambda status: status.state == "draining")
    late = embed(gateway, "late")
    assert (late.status, late.json()["error_type"]) == (503, "draining")
    assert late.headers["retry-after"] == "1"
    assert late.headers["connection"] == "close"
    assert gateway.get("/health").status == 503
    assert gateway.get("/api/state").status == 200
    assert not any(one.done() for one in held)
    for one in seen:
        own_router.send(one.identity, kit.answer(one)[0])
    gateway.expect(Drained)
    assert [one.result(kit.PATIENCE).status for one in held] == [200] * 4
    assert gateway.stop()[0] == 0


def test_a_gateway_that_hands_over_answers_old_connections_and_leaves_new_ones_to_the_next(
    own_router: Any, start_gateway: Any, crowd: Any, kit: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    asked = b'POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"inputs": "a"}'
    with gateway.connect() as old, gateway.connect() as idle:
        for connection in (old, idle):
            connection.sendall(asked)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        gateway.hand_over()
        gateway.status_when(lambda status: status.state == "draining")
        old.sendall(asked)
        last = old.recv(1 << 16)
        assert last.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in last
        assert old.recv(1) == b""
        with gateway.connect() as new:
            new.sendall(asked)  # nobody accepts it, nobody refuses it
            gateway.expect(Drained)
            assert idle.recv(1) == b""
            assert gateway.stop_keeping_the_socket() == 0
            new.setblocking(False)
            with pytest.raises(BlockingIOError):
                new.recv(1)
            waiting, _ = gateway.listener.accept()
            assert waiting.recv(1 << 16) == asked
            waiting.close()
    gateway.listener.close()


def test_a_gateway_with_nothing_in_flight_is_drained_at_once_and_watchers_do_not_hold_it_up(
    own_router: Any, start_gateway: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    with gateway.connect() as stream:
        stream.sendall(b"GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stream.recv(15) == b"HTTP/1.1 200 OK"
        gateway.drain()
        gateway.expect(Drained)
        assert gateway.stop()[0] == 0
        while stream.recv(1 << 16):
            pass  # the stream ends, it does not hang


def test_a_gateway_that_is_replaced_refuses_nothing_and_each_connection_ends_with_its_next_answer(
    own_router: Any, start_gateway: Any, crowd: Any, kit: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    own_router.respond = lambda _: []
    held = crowd.submit(embed, gateway, "in flight")
    seen = own_router.next()
    own_router.respond = kit.answer
    kept = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=kit.PATIENCE)
    assert ask_on(kept) == (200, None)
    gateway.hand_over()
    gateway.status_when(lambda status: status.state == "draining")
    late = crowd.submit(gateway.get, "/health")  # waits in the listening socket, as for the next gateway
    assert ask_on(kept) == (200, "close")
    own_router.send(seen.identity, kit.answer(seen)[0])
    assert held.result(kit.PATIENCE).headers["connection"] == "close"
    gateway.expect(Drained)
    assert gateway.stop()[0] == 0
    kept.close()
    with pytest.raises(OSError):  # noqa: PT011 - the listening socket has gone with the test's own end of it
        late.result(kit.PATIENCE)


def test_a_connection_that_asks_nothing_does_not_keep_a_gateway_that_is_replaced(
    own_router: Any, start_gateway: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    with gateway.connect() as silent:
        assert gateway.get("/info").status == 200  # `silent` has been accepted before this one
        gateway.hand_over()
        gateway.expect(Drained)
        assert gateway.stop()[0] == 0
        assert silent.recv(1) == b""


def ask_on(connection: http.client.HTTPConnection) -> tuple[int, str | None]:
    """Its status and what it says of the connection."""
    connection.request("POST", "/embed", b'{"inputs": "a"}', {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers["connection"]


def test_a_large_answer_reaches_a_slow_reader_although_the_gateway_is_told_to_stop(
    own_router: Any, start_gateway: Any, kit: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    body = b'{"inputs": [' + b",".join(b'"a"' for _ in range(256)) + b"]}"
    with gateway.connect() as connection:
        connection.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        start = connection.recv(1000)
        gateway.drain()
        data = [start]
        while len(b"".join(data)) < 1_000_000:
            data.append(connection.recv(1 << 16))
        gateway.expect(Drained)
        assert gateway.stop()[0] == 0
        while more := connection.recv(1 << 16):
            data.append(more)
    head, _, content = b"".join(data).partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    assert len(content) == length > 1_000_000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_of_the_terminal_do_not_end_it(own_router: Any, start_gateway: Any, number: int) -> None:
    gateway = start_gateway({"short-0": "ready"})
    os.kill(gateway.process.pid, number)
    assert embed(gateway, "a").status == 200


def test_the_end_of_the_channel_ends_the_gateway_even_with_requests_under_way(
    own_router: Any, kit: Any, crowd: Any
) -> None:
    gateway = kit.GatewayProcess(own_router.endpoint)
    gateway.start()
    gateway.expect(Ready)
    own_router.respond = lambda _: []
    with gateway.connect() as connection:
        connection.sendall(b'POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"inputs": "a"}')
        own_router.next()
        gateway.channel.close()
        assert gateway.wait() == (1, gateway.errors)
        assert "Traceback" not in gateway.errors


def test_garbage_on_the_channel_is_reported_and_the_next_good_message_is_taken(
    own_router: Any, start_gateway: Any, kit: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    for garbage in (b'{"type": "nonsense"}\n', b"\x00\xff\n", b'{"type": "state", "status": {"no": "status"}}\n'):
        gateway.channel.sendall(garbage)
        # The channel drops a whole read for one bad line in it; a Status comes every second in any case.
        wanted = msgspec.json.encode(kit.status_document({"short-0": "draining"}, state=garbage.hex()))
        while gateway.get("/api/state").body != wanted:
            gateway.state({"short-0": "draining"}, state=garbage.hex())
    gateway.state({"short-0": "ready"})
    gateway.seen_state({"short-0": "ready"})
    assert embed(gateway, "a").status == 200


@pytest.mark.parametrize(
    ("change", "said", "permanent"),
    [
        # The next start of the whole makes the cache's folder anew.
        (lambda path: {"tokenizer": str(path / "nowhere.json")}, "no tokenizer there any more", False),
        (
            lambda path: {"tokenizer": str(_written(path / "broken.json", "{"))},
            "not a tokenizer.json that can be read",
            True,
        ),
    ],
)
def test_a_gateway_that_cannot_start_says_why_and_whether_a_restart_can_help(
    kit: Any, tmp_path: Any, endpoint: str, change: Callable[[Any], dict[str, Any]], said: str, permanent: bool
) -> None:
    gateway = kit.GatewayProcess(endpoint, **change(tmp_path))
    gateway.start()
    fatal = gateway.expect(Fatal)
    assert said in fatal.error
    assert fatal.permanent is permanent
    status, errors = gateway.wait()
    assert status == 1
    assert "Traceback" not in errors


def test_a_stream_too_many_is_refused_and_the_others_go_on(own_router: Any, start_gateway: Any) -> None:
    gateway = start_gateway({"short-0": "ready"})
    streams = []
    try:
        for _ in range(64):
            stream = gateway.connect()
            streams.append(stream)
            stream.sendall(b"GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n")
            assert stream.recv(15) == b"HTTP/1.1 200 OK"
        refused = gateway.get("/api/stream")
        assert refused.status == 429
        streams.pop().close()
        gateway.status_when(lambda status: status.connections == 63)
        again = gateway.connect()
        streams.append(again)
        again.sendall(b"GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert again.recv(15) == b"HTTP/1.1 200 OK"
    finally:
        for stream in streams:
            stream.close()


def test_it_beats_while_it_works(own_router: Any, start_gateway: Any) -> None:
    gateway = start_gateway()
    beats = 0
    while beats < 2:
        beats += sum(b'"beat"' in line for line in gateway.lines.feed(gateway.channel.recv(1 << 16)))


def _written(path: Any, text: str) -> Any:
    path.write_text(text)
    return path
