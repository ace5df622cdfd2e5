"""Does whatever a client sends get the right 4xx, and the next good request its answer?"""

from __future__ import annotations

import gzip
import json
import threading
from typing import Any

import pytest

JSON = {"content-type": "application/json"}


def good(gateway: Any) -> bool:
    answer = gateway.post("/embed", {"inputs": "still here"})
    return answer.status == 200 and len(answer.json()[0]) == 384


def talk(gateway: Any, *pieces: bytes) -> bytes:
    """Sends raw bytes and reads until the gateway closes the connection: use it where it should."""
    with gateway.connect() as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent; what it said is in the buffer
        answer = b""
        while data := connection.recv(1 << 16):
            answer += data
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("path", ["/embed", "/predict", "/", "/v1/embeddings", "/tokenize"])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"\x00\xff", 400), (b"[" * 200_000, 400), (b'{"inputs": {"a": 1}, "input": {}}', 400),
        (b'{"inputs": 7, "input": 7}', 400), (b'{"inputs": "\\ud800", "input": "\\ud800"}', 400),
        (b'{"inputs": [], "input": []}', 422),
        (b'{"inputs": "a\\u0000b", "input": "a\\u0000b"}', 200), (b'{"inputs": "", "input": ""}', 200),
    ],
    ids=lambda value: repr(value)[:24],
)  # fmt: skip
def test_malformed_bodies_are_told_apart_from_empty_and_odd_text(
    gateway: Any, path: str, body: bytes, status: int
) -> None:
    assert gateway.post(path, body).status == status
    assert good(gateway)


INFER = "/v2/models/all-MiniLM-L6-v2/infer"


def tensors(size: int, shape: list[int] | None = None) -> bytes:
    """The JSON of a request whose texts lie behind it."""
    one = {"name": "text", "datatype": "BYTES", "shape": shape or [1], "parameters": {"binary_data_size": size}}
    return json.dumps({"inputs": [one]}).encode()


@pytest.mark.parametrize(
    ("head", "length", "rest", "status", "says"),
    [
        (tensors(8), "", b"\4\0\0\0rain", 400, "not JSON"),
        (tensors(8), "right", b"\4\0\0\0rai", 400, "binary_data_size is 8, 7 bytes"),
        (tensors(8), "right", b"\4\0\0\0rain!", 400, "9 bytes behind the JSON"),
        (tensors(8), "right", b"\5\0\0\0rain", 400, "says it has 5 bytes, 4 are left"),
        (tensors(8), "right", b"\xff\xff\xff\xffrain", 400, "4294967295"),
        (tensors(8), "right", b"\4\0\0\0ra\xffn", 400, "not UTF-8"),
        (tensors(8, [2]), "right", b"\4\0\0\0rain", 400, "1 elements"),
        (tensors(8, [10**18]), "right", b"\4\0\0\0rain", 413, "the limit is 256"),
        (tensors(8), "0", b"\4\0\0\0rain", 400, "length of the JSON"),
        (tensors(8), "99999", b"\4\0\0\0rain", 400, "the body has"),
        (tensors(8), "-1", b"\4\0\0\0rain", 400, "expected the length"),
        (tensors(8), "1e2", b"\4\0\0\0rain", 400, "expected the length"),
        (tensors(8), "\u0661".encode().decode("latin-1"), b"\4\0\0\0rain", 400, "expected the length"),
        (tensors(8)[:-1], "right", b"\4\0\0\0rain", 400, "not JSON"),
        (b'{"x": ' + b"[" * 200_000, "right", b"", 400, "nested too deeply"),
        (b'{"inputs": []}', "right", b"", 422, "text is missing"),
        (tensors(2**70), "right", b"", 400, "binary_data_size"),
    ],
    ids=lambda value: repr(value)[:32],
)
def test_tensors_whose_sizes_lie_are_refused_and_nothing_is_computed(
    gateway: Any, router: Any, head: bytes, length: str, rest: bytes, status: int, says: str
) -> None:
    sent = {"right": {"inference-header-content-length": str(len(head))}, "": {}}
    headers = sent.get(length, {"inference-header-content-length": length})
    answer = gateway.call("POST", INFER, head + rest, {"content-type": "application/octet-stream", **headers})
    assert (answer.status, set(answer.json())) == (status, {"error", "error_type"})
    assert says in answer.json()["error"]
    assert router.submitted.empty()
    assert good(gateway)


def test_tensors_that_are_cut_off_with_their_connection_harm_nobody(gateway: Any, router: Any) -> None:
    head = tensors(1 << 20)
    with gateway.connect() as connection:
        connection.sendall(
            b"POST %b HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n%b\4\0\0\0ra"
            % (INFER.encode(), len(head), len(head) + (1 << 20), head)
        )
    gateway.status_when(lambda status: status.in_flight == 0)
    assert router.submitted.empty()
    assert good(gateway)


def test_tensors_over_the_limit_of_bodies_are_refused_before_they_are_read(gateway: Any) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: 20\r\nContent-Length: 99999999999\r\n\r\n"
    answer = talk(gateway, head % INFER.encode())
    assert (status_of(answer), b"8388608 bytes" in answer) == (413, True)
    assert good(gateway)


def test_a_text_of_a_hundred_thousand_words_is_refused_or_cut(gateway: Any) -> None:
    text = "word " * 100_000
    refused = gateway.post("/embed", {"inputs": text})
    assert (refused.status, refused.json()["error_type"]) == (413, "too_long")
    assert "the limit is 256" in refused.json()["error"]
    assert gateway.post("/embed", {"inputs": text, "truncate": True}).status == 200
    assert good(gateway)


def test_a_body_over_the_limit_is_refused_before_it_is_read(gateway: Any) -> None:
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n"
    answer = talk(gateway, head)
    assert status_of(answer) == 413
    assert b"8388608 bytes" in answer
    assert b"Connection: close" in answer
    assert good(gateway)


def test_a_chunked_body_over_the_limit_is_refused_once_the_limit_is_passed(
    own_router: Any, start_gateway: Any, kit: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"}, limits=kit.Limits(body_bytes=100_000))
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    answer = talk(gateway, head, *[chunk] * 5)
    assert (status_of(answer), b"100000 bytes" in answer) == (413, True)
    assert good(gateway)


def test_a_small_body_that_unpacks_to_more_than_the_limit_is_refused(gateway: Any) -> None:
    bomb = gzip.compress(b" " * (64 << 20))
    assert len(bomb) < 100_000
    assert gateway.call("POST", "/embed", bomb, {"content-encoding": "gzip"}).status == 413
    small = gzip.compress(json.dumps({"inputs": "a"}).encode())
    assert gateway.call("POST", "/embed", small, {"content-encoding": "gzip"}).status == 200
    assert gateway.call("POST", "/embed", b"no gzip at all", {"content-encoding": "gzip"}).status == 400


def test_a_client_that_asks_before_it_sends_is_told_to_go_on_or_to_stop(gateway: Any) -> None:
    body = b'{"inputs": "a"}'
    head = b"POST /embed HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with gateway.connect() as connection:
        connection.sendall(head % len(body))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    with gateway.connect() as connection:
        connection.sendall(head % (1 << 40))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_batch_over_the_limit_is_refused_with_the_limit(gateway: Any) -> None:
    answer = gateway.post("/embed", {"inputs": ["a"] * 257})
    assert answer.status == 413
    assert "257 inputs, the limit is 256" in answer.json()["error"]
    assert gateway.post("/tokenize", {"inputs": ["a"] * 257}).status == 413


def test_another_content_type_is_refused_with_what_to_send(gateway: Any) -> None:
    answer = gateway.post("/embed", {"inputs": "a"}, {"content-type": "application/x-www-form-urlencoded"})
    assert answer.status == 415
    assert "application/json" in answer.json()["error"]


def test_a_body_without_a_content_type_is_json(gateway: Any) -> None:
    body = b'{"inputs": "a"}'
    answer = talk(gateway, b"POST /embed HTTP/1.0\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert status_of(answer) == 200


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting\r\n\r\n",
        b"EHLO example\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda rubbish: repr(rubbish[:32]),
)
def test_what_is_no_http_gets_a_400_in_the_usual_shape(gateway: Any, rubbish: bytes) -> None:
    answer = talk(gateway, rubbish)
    assert status_of(answer) == 400
    assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) == {"error", "error_type"}
    assert good(gateway)


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(gateway: Any) -> None:
    with gateway.connect() as connection:
        connection.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    gateway.status_when(lambda status: status.in_flight == 0)
    assert good(gateway)


def test_a_client_that_hangs_up_has_its_request_cancelled_in_the_router(gateway: Any, router: Any, kit: Any) -> None:
    router.respond = lambda _: []
    with gateway.connect() as connection:
        connection.sendall(b'POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"inputs": "a"}')
        seen = router.next()
    assert router.cancelled.get(timeout=kit.PATIENCE) == seen.request_id
    router.send(seen.identity, kit.answer(seen)[0])
    gateway.status_when(lambda status: status.late_replies >= 1)
    router.respond = kit.answer
    assert good(gateway)


def test_garbage_from_the_router_is_dropped_and_the_right_answer_still_taken(
    gateway: Any, router: Any, kit: Any
) -> None:
    router.respond = lambda seen: [
        [b""], [b"\x01"], [b"rubbish"], [b"\x01\x10" + b"\xff" * 50, b"rows"], [b"\x01\x63"],
        kit.answer(seen)[0][:1], [kit.answer(seen)[0][0], kit.answer(seen)[0][1][:-4]], kit.answer(seen)[0], kit.answer(seen)[0],
    ]  # fmt: skip
    for _ in range(3):
        assert good(gateway)


def test_a_router_that_babbles_is_left_and_asked_again_on_a_new_connection(gateway: Any, router: Any, kit: Any) -> None:
    babbled: list[bytes] = []

    def respond(seen: Any) -> list[list[bytes]]:
        if seen.identity in babbled or not babbled:
            babbled.append(seen.identity)
            router.babble(seen.identity, b"\xff" * 64)
            return []
        return list(kit.answer(seen))

    router.respond = respond
    assert good(gateway)
    assert len(babbled) == 1


def test_long_text_does_not_hold_up_short_text(gateway: Any) -> None:
    """Texts that take the tokenizer most of a second are read beside the loop."""
    texts = [("x" * 5000 + " ") * 50] * 8
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(gateway.post("/embed", {"inputs": texts}).status))
    thread.start()
    served = 0
    while thread.is_alive():
        assert good(gateway)
        served += not answers
    thread.join()
    assert answers == [200]
    assert served > 3


def test_a_text_of_eight_megabytes_in_one_word_is_refused_without_reading_it(gateway: Any) -> None:
    answer = gateway.post("/embed", {"inputs": "x" * 8_000_000})
    assert (answer.status, answer.json()["error_type"]) == (413, "too_long")
    assert "the limit is 256000" in answer.json()["error"]
