"""What does garbage on the router's sockets do? It is counted and dropped, and the next good request is served."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
import zmq

from workers import spec as messages
from workers import wire

Start = Callable[..., Any]

GOOD = wire.encode_submit(77, [3], struct.pack("<3i", 1, 2, 3))
ROW = wire.encode_batch_result(1, [8], width=2, infer_us=1, per_token=False)

FROM_CLIENTS = {
    "nothing at all": [b""],
    "one byte": [b"\x01"],
    "another version": [b"\x02" + GOOD[1:]],
    "an unknown kind": [wire.encode_bare(200)],
    "what only a worker says": [wire.encode_bare(wire.BYE)],
    "a header cut short": [GOOD[:10]],
    "a cancel cut short": [wire.encode_cancel(5)[:-1]],
    "a ping cut short": [wire.encode_ping(5)[:-3]],
    "an empty frame first, as a REQ socket sends it": [b"", GOOD],
}

# These still say which request they are of, so somebody is told.
FROM_CLIENTS_WITH_AN_ID = {
    "a frame too many": [GOOD, b"more"],
    "forty frames too many": [GOOD, *[b"x"] * 40],
    "tokens cut off": [GOOD[:-4]],
    "tokens too many": [GOOD + b"\0\0\0\0"],
    "half a token": [GOOD[:-2]],
    "no sequences": [GOOD[:16] + struct.pack("<I", 0)],
    "more sequences than fit": [GOOD[:16] + struct.pack("<I", 0xFFFFFFFF) + GOOD[20:]],
    "a table longer than the frame": [GOOD[:16] + struct.pack("<I", 60_000) + GOOD[20:]],
    "an empty sequence": [wire.encode_submit(77, [0, 3], struct.pack("<3i", 1, 2, 3))],
    "a priority that does not exist": [GOOD[:3] + b"\x09" + GOOD[4:]],
    "a tenant cut off": [GOOD[:2] + b"\x04" + GOOD[3:20]],
    "a tenant where its tables should be": [GOOD[:2] + b"\x04" + GOOD[3:]],
    "a split beyond its sequence": [wire.encode_submit(77, [3], struct.pack("<3i", 1, 2, 3), splits=[3])],
}

FROM_WORKERS = {
    "nothing at all": [b""],
    "another version": [b"\x07" + ROW[1:], b"\0" * 8],
    "an unknown kind": [wire.encode_bare(201)],
    "what only a client says": [GOOD],
    "a result without rows": [ROW],
    "a result of three frames": [ROW, b"\0" * 8, b"more"],
    "a result with rows cut off": [ROW, b"\0" * 7],
    "a result cut short": [ROW[:-1], b"\0" * 8],
    "a result of width 0": [wire.encode_batch_result(1, [8], width=0, infer_us=1, per_token=False), b"\0" * 8],
    "a failure cut short": [wire.encode_batch_failed(1, "")[:-1]],
    "a second frame where none belongs": [wire.encode_bare(wire.BYE), b"more"],
    "a hello that is no JSON": [wire.encode_bare(wire.HELLO) + b"{"],
    "a hello that is no UTF-8": [wire.encode_bare(wire.HELLO) + b'{"name": "\xff\xfe"}'],
    "a hello of the wrong shape": [wire.encode_json(wire.HELLO, {"name": 5})],
    "a hello with costs of the wrong shape": [
        wire.encode_json(wire.HELLO, {"name": "short-0", "incarnation": 1, "max_seqlen": 9, "pid": 1, "costs": [[1]]})
    ],
    "a hello in another's name": [wire.encode_json(wire.HELLO, wire.Hello("long-0", 1, 512, 1))],
}


def serves(router: Any, worker: Any, client: Any) -> None:
    client.submit(1000, [5, 6])
    worker.answer(worker.take())
    assert client.result().request_id == 1000


def serves_after(router: Any, worker: Any, client: Any) -> None:
    """Serves although batches of somebody else may come first."""
    client.submit(1000, [5, 6])
    poller = zmq.Poller()
    poller.register(worker.socket, zmq.POLLIN)
    poller.register(client.socket, zmq.POLLIN)
    while client.socket not in dict(poller.poll(20_000)):
        worker.answer(worker.take())
    assert client.result().request_id == 1000


def test_garbage_of_a_client_is_counted_and_the_next_good_request_is_served(start_router: Start) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    for frames in FROM_CLIENTS.values():
        client.socket.send_multipart(frames)
        client.ping()
    serves(router, worker, client)
    report = router.report_when(lambda report: report.router.settled == 1)
    assert report.router.malformed_frames == len(FROM_CLIENTS)
    assert report.router.submitted == 1


@pytest.mark.parametrize("what", sorted(FROM_CLIENTS_WITH_AN_ID))
def test_a_submit_that_cannot_be_read_but_names_its_request_is_refused(start_router: Start, what: str) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    client.socket.send_multipart(FROM_CLIENTS_WITH_AN_ID[what])
    refused = client.refused()
    assert (refused.request_id, refused.reason) == (77, "malformed")
    assert refused.message
    serves(router, worker, client)
    assert router.report_when(lambda report: report.router.settled == 1).router.malformed_frames == 1


def test_garbage_of_a_worker_is_counted_and_the_worker_goes_on(start_router: Start) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    router.report_when(lambda report: report.instances[0].connected)
    for frames in FROM_WORKERS.values():
        worker.socket.send_multipart(frames)
    report = router.report_when(lambda report: report.router.malformed_frames >= len(FROM_WORKERS))
    assert report.router.malformed_frames == len(FROM_WORKERS)
    serves(router, worker, client)


def test_a_result_nobody_asked_for_and_one_that_comes_twice_are_counted_and_dropped(start_router: Start) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    client.submit(5, [1])
    batch = worker.take()
    worker.socket.send_multipart((ROW, b"\0" * 8))
    worker.answer(batch)
    worker.answer(batch)
    assert client.result().request_id == 5
    assert router.report_when(lambda report: report.router.late_results == 2).router.settled == 1
    serves(router, worker, client)


def test_a_batch_answered_with_too_many_rows_is_refused_as_the_models_error(start_router: Start) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    client.submit(5, [1])
    batch = worker.take()
    meta = wire.encode_batch_result(batch.batch_id, [8, 8], width=2, infer_us=1, per_token=False)
    worker.socket.send_multipart((meta, b"\0" * 16))
    refused = client.refused()
    assert (refused.request_id, refused.reason) == (5, "model_error")
    serves(router, worker, client)


ANSWERS_NOBODY_CAN_READ = {
    "rows of another length than the table says": lambda batch: (result_of(batch, 8 * len(batch.lengths)), b"\0" * 7),
    "rows that are no whole floats": lambda batch: (result_of(batch, 7 * len(batch.lengths)), b"\0" * 7),
    "a table cut short": lambda batch: (result_of(batch, 8)[:-1], b"\0" * 8),
    "no rows at all": lambda batch: (result_of(batch, 8),),
    "a frame too many": lambda batch: (result_of(batch, 8), b"\0" * 8, b"more"),
    "rows without width": lambda batch: (result_of(batch, 8, width=0), b"\0" * 8),
}


def result_of(batch: wire.Batch, row_bytes: int, width: int = 2) -> bytes:
    return wire.encode_batch_result(batch.batch_id, [row_bytes], width=width, infer_us=1, per_token=False)


@pytest.mark.parametrize("what", sorted(ANSWERS_NOBODY_CAN_READ))
def test_an_answer_that_cannot_be_read_ends_its_batch_and_keeps_its_worker(start_router: Start, what: str) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    client.submit(5, [1])
    worker.socket.send_multipart(ANSWERS_NOBODY_CAN_READ[what](worker.take()))
    refused = client.refused()
    assert (refused.request_id, refused.reason) == (5, "model_error")
    assert "short-0 gave an answer that cannot be read" in refused.message
    serves(router, worker, client)
    report = router.report_when(lambda report: report.router.settled == 2)
    assert (report.router.malformed_frames, report.router.in_flight) == (1, 0)


def test_the_sequences_of_an_unreadable_batch_are_computed_once_more_one_by_one(start_router: Start) -> None:
    router = start_router()
    client = router.client()
    client.submit(5, [1], [2], [3])
    client.ping()
    worker = router.worker("short-0")
    batch = worker.take()
    assert len(batch.lengths) == 3
    worker.socket.send_multipart((result_of(batch, 24), b"\0" * 23))
    answered = set()
    for _ in range(3):
        worker.answer(worker.take())
        (position,) = client.result().positions
        answered.add(position)
    assert answered == {0, 1, 2}


def test_urgent_requests_of_several_tenants_overtake_bulk_in_a_real_router(start_router: Start) -> None:
    router = start_router()
    client = router.client()
    for request_id, (priority, tenant) in enumerate([(2, 1), (2, 1), (1, 1), (1, 2), (0, 1), (0, 2)]):
        client.submit(request_id, [1] * 300, priority=priority, tenant=tenant)
    client.ping()
    worker = router.worker("long-0")
    order = []
    for _ in range(6):
        worker.answer(worker.take())
        order.append(client.result().request_id)
    assert order == [4, 5, 2, 3, 0, 1]


def test_ten_thousand_sequences_in_one_request_are_refused_with_the_limit_and_cost_nobody_else(
    start_router: Start,
) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    client.submit(5, *[[1]] * 10_000)
    refused = client.refused()
    assert (refused.request_id, refused.reason) == (5, "too_long")
    assert "at most 1024" in refused.message
    serves(router, worker, client)


def test_a_thousand_random_frames_on_each_socket_stop_nothing(start_router: Start) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    noisy_client, noisy_worker = router.client(), router.worker("long-0")
    rng = random.Random(3)
    for _ in range(1000):
        for noisy, seeds in (
            (noisy_client, (GOOD, wire.encode_ping(1))),
            (noisy_worker, (ROW, noisy_worker.hello_frame)),
        ):
            frame = bytearray(rng.choice(seeds))
            for _ in range(rng.randint(1, 4)):
                frame[rng.randrange(min(len(frame), 24))] = rng.randrange(256)
            frames = [bytes(frame[: rng.randint(0, len(frame))]), *[rng.randbytes(8)] * rng.randint(0, 2)]
            noisy.socket.send_multipart(frames)
    report = router.report_when(lambda report: report.router.malformed_frames > 500)
    assert report.router.state == "ready"
    noisy_worker.socket.close()
    router.send(messages.Lost("long-0", 1))  # as the supervisor does: until it is said, long-0 may be given work
    serves_after(router, worker, client)  # some of the noise was a good request


def test_a_client_that_never_reads_costs_the_others_nothing(start_router: Start) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    deaf = router.client()
    deaf.socket.setsockopt(zmq.RCVHWM, 1)
    deaf.socket.disconnect(router.front)
    deaf.socket.connect(router.front)
    too_long = wire.encode_submit(1, [600], b"\0" * 2400)
    asked = 0
    while True:
        for _ in range(1000):
            deaf.socket.send(too_long)
        asked += 1000
        client.ping()
        report = router.report_when(lambda report, asked=asked: report.router.submitted >= asked)
        if report.router.undelivered_replies:
            break
        assert asked < 200_000, "the high-water mark is never reached"
    serves(router, worker, client)


def test_a_client_that_has_gone_takes_its_queued_requests_with_it(start_router: Start) -> None:
    router = start_router()
    gone, client = router.client(), router.client()
    gone.submit(1, [1])
    gone.submit(2, [1] * 31)
    gone.submit(3, [1] * 600)
    assert gone.refused().request_id == 3, "so the first two are in the queue"
    gone.socket.close()
    for _ in range(
        200
    ):  # the close is news that travels beside the messages: it has long arrived before these are through
        client.ping()
    worker = router.worker("short-0")
    worker.answer(worker.take())
    report = router.report_when(lambda report: report.router.undelivered_replies == 1)
    assert report.router.queued == 0
    serves_after(router, worker, client)
