"""What happens to the next good request after garbage on each socket? It is served."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
import zmq

from workers import wire

GARBAGE = [
    [b""],
    [b"\x01"],
    [b"\xff" * 100],
    [b"\x02\x01" + bytes(40)],
    [wire.encode_submit(1, [4], bytes(16))[:-3]],
    [wire.encode_ping(1), b"one frame too many"],
    [wire.encode_batch_result(1, [4], width=1, infer_us=1, per_token=False), bytes(4)],
    [wire.encode_json(wire.HELLO, {"name": 5})],
]


@pytest.mark.parametrize("door", ["front.sock", "back.sock"])
def test_garbage_frames_are_counted_and_dropped(shared_system: Any, door: str) -> None:
    before = shared_system.status().router.malformed_frames
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 1000
        dealer.connect(f"ipc://{shared_system.runtime}/{door}")
        for frames in GARBAGE:
            dealer.send_multipart(frames)
        status = shared_system.until(
            "counted", lambda status: status.router.malformed_frames >= before + len(GARBAGE) - 2
        )
    assert status.state == "ready"
    assert len(shared_system.embed("the next good request")) == 384


@pytest.mark.parametrize(
    "line", [b"\n", b"nonsense\n", b'{"command": 5}\n', b'{"command": "explode"}\n', b"x" * 70_000 + b"\n", b'["']
)
def test_garbage_on_the_control_socket_is_answered_with_an_error(shared_system: Any, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(shared_system.runtime / "control.sock"))
        connection.sendall(line)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(4096):
            received += data
    answer = json.loads(received)
    assert answer["ok"] is False
    assert answer["error"]
    assert shared_system.status().state == "ready"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"inputs": 5}', 400),
        (b'{"inputs": {"a": 1}}', 400),
        (b'{"inputs": []}', 422),
        (b'{"inputs": [[]]}', 422),
        (json.dumps({"inputs": "word " * 100_000}).encode(), 413),
        (json.dumps({"inputs": ["a"] * 300}).encode(), 413),
        (b'{"inputs": "' + b"x" * (9 << 20) + b'"}', 413),
    ],
)
def test_bad_requests_get_their_code_and_the_next_good_one_is_served(
    shared_system: Any, body: bytes, code: int
) -> None:
    status, _, answer = shared_system.post("/embed", body)
    assert status == code, answer
    assert answer["error"]
    assert answer["error_type"]
    assert len(shared_system.embed("the next good request")) == 384


def test_a_client_that_hangs_up_disturbs_nobody(shared_system: Any) -> None:
    request = json.dumps({"inputs": ["word " * 200] * 50}).encode()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", shared_system.port)) as connection:
            head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(request)}\r\n\r\n"
            connection.sendall(head.encode() + request)
    assert len(shared_system.embed("the next good request")) == 384
    status = shared_system.until("settled", lambda status: status.router.settled == status.router.submitted)
    assert status.state == "ready"


def test_raw_bytes_that_are_no_http_are_refused(shared_system: Any) -> None:
    with socket.create_connection(("127.0.0.1", shared_system.port)) as connection:
        connection.settimeout(20)
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.")
    assert len(shared_system.embed("the next good request")) == 384
