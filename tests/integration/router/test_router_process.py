"""Does the router process serve over real sockets what its core decides?"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from orchestrator.router.spec import RouterSpec
from workers import spec as messages
from workers import wire
from workers.channel import Lines, encode

Start = Callable[..., Any]
DEADLINE_SECONDS = 20.0


def test_a_sequence_goes_to_the_worker_of_its_bucket_and_the_row_comes_back(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    short, long, client = router.worker("short-0"), router.worker("long-0"), router.client()
    router.wait_all_connected()
    client.submit(11, [5, 6, 7])
    short.answer(short.take())
    result = client.result()
    assert (result.request_id, result.positions, result.instance, result.bucket) == (11, [0], "short-0", (1, 32))
    assert rows_of(result) == [(18.0, 3.0)]
    assert (result.batch_size, result.infer_us, result.attempts) == (1, 100, 1)
    client.submit(12, [1] * 100)
    long.answer(long.take())
    assert client.result().instance == "long-0"


def test_three_hundred_requests_of_two_clients_each_get_their_own_rows(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    workers = [router.worker("short-0"), router.worker("long-0")]
    clients = [router.client(), router.client()]
    rng = random.Random(5)
    expected: dict[tuple[int, int, int], tuple[float, float]] = {}
    for request_id in range(150):
        for number, client in enumerate(clients):
            sequences = [[rng.randrange(100) for _ in range(rng.randint(1, 60))] for _ in range(rng.randint(1, 4))]
            client.submit(request_id, *sequences)
            for position, sequence in enumerate(sequences):
                expected[number, request_id, position] = (float(sum(sequence)), float(len(sequence)))
    poller = zmq.Poller()
    for one in [*workers, *clients]:
        poller.register(one.socket, zmq.POLLIN)
    while expected:
        ready = [source for source, _ in poller.poll(DEADLINE_SECONDS * 1e3)]
        assert ready, f"{len(expected)} sequences are never answered"
        for worker in workers:
            if worker.socket in ready:
                worker.answer(worker.take())
        for number, client in enumerate(clients):
            if client.socket in ready:
                result = client.result()
                for position, row in zip(result.positions, rows_of(result), strict=True):
                    assert expected.pop((number, result.request_id, position)) == row
    report = router.report_when(lambda report: report.router.settled == report.router.submitted)
    assert (report.router.queued, report.router.in_flight, report.router.rejected) == (0, 0, {})
    assert sum(one.served for one in report.instances) == report.router.submitted


def test_what_a_lost_worker_held_is_computed_by_the_next_one(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    dead, client = router.worker("short-0", 1), router.client()
    client.submit(1, [3, 4])
    dead.take()
    dead.socket.close()
    router.send(messages.Lost("short-0", 1))
    router.report_when(lambda report: report.router.retried == 1)
    successor = router.worker("short-0", 2)
    successor.answer(successor.take())
    result = client.result()
    assert (rows_of(result), result.attempts) == ([(7.0, 2.0)], 2)


def test_a_batch_that_cannot_be_delivered_is_given_to_whoever_comes(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    gone, client = router.worker("short-0", 1), router.client()
    router.report_when(lambda report: report.instances[0].connected)
    gone.socket.close()
    client.ping()
    client.submit(1, [3, 4])
    router.report_when(lambda report: not report.instances[0].connected)
    successor = router.worker("short-0", 1)
    batch = successor.take()
    successor.answer(batch)
    assert rows_of(client.result()) == [(7.0, 2.0)]


def test_a_worker_that_an_unknowing_router_hears_of_is_asked_who_it_is(start_router: Start) -> None:
    router = start_router()
    worker = router.worker("short-0", hello=False)
    worker.socket.send_multipart((wire.encode_batch_result(99, [8], width=2, infer_us=1, per_token=False), b"\0" * 8))
    assert wire.kind_of(worker.socket.recv()) == wire.WHO
    worker.hello()
    client = router.client()
    client.submit(1, [1])
    worker.answer(worker.take())
    assert client.result().request_id == 1


def test_a_worker_that_says_bye_gets_nothing_more(start_router: Start) -> None:
    router = start_router()
    worker = router.worker("short-0")
    router.report_when(lambda report: report.instances[0].connected)
    worker.socket.send(wire.encode_bare(wire.BYE))
    router.report_when(lambda report: not report.instances[0].connected)


def test_ping_is_answered_with_a_boot_number_that_changes_with_the_process(start_router: Start, tmp_path: Path) -> None:
    first = start_router()
    client = first.client()
    boot = client.ping(3)
    assert client.ping(4) == boot
    first.process.kill()
    first.process.wait(DEADLINE_SECONDS)
    assert (tmp_path / "front.sock").is_socket(), "the killed router left its socket file behind"
    second = start_router()
    assert second.client().ping() != boot


def test_describe_is_answered_with_what_the_supervisor_said_of_the_model(start_router: Start) -> None:
    client = start_router().client()
    client.socket.send(wire.encode_bare(wire.DESCRIBE))
    frame = client.socket.recv()
    assert wire.kind_of(frame) == wire.DESCRIPTION
    assert msgspec.json.decode(wire.json_body(frame)) == {"id": "a model"}


def test_a_deadline_in_the_queue_is_kept_with_nobody_connected(start_router: Start) -> None:
    client = start_router().client()
    client.submit(1, [1, 2], timeout_ms=30)
    refused = client.refused()
    assert (refused.request_id, refused.reason) == (1, "deadline")


def test_a_cancelled_request_is_never_computed(start_router: Start) -> None:
    router = start_router()
    client = router.client()
    client.submit(1, [1])
    client.submit(2, [2, 2])
    client.socket.send(wire.encode_cancel(1))
    client.ping()
    worker = router.worker("short-0")
    batch = worker.take()
    assert batch.lengths == [2]
    worker.answer(batch)
    assert client.result().request_id == 2


def test_draining_answers_what_was_accepted_then_says_so(start_router: Start) -> None:
    router = start_router()
    worker, client = router.worker("short-0"), router.client()
    client.submit(1, [1])
    batch = worker.take()
    router.send(messages.Drain())
    router.report_when(lambda report: report.router.state == "draining")
    client.submit(2, [1])
    assert client.refused().reason == "draining"
    worker.answer(batch)
    assert client.result().request_id == 1
    router.wait_for(messages.Drained)
    router.send(messages.Stop())
    assert router.process.wait(DEADLINE_SECONDS) == 0


def test_a_changed_plan_takes_effect_without_a_restart(start_router: Start, make_plan: Any) -> None:
    router = start_router()
    client = router.client()
    client.submit(1, [1] * 600)
    assert client.refused().reason == "too_long"
    router.send(messages.Configure(msgspec.Raw(b'{"policy": "no plan"}')))
    plan = make_plan(("short-0", 1, 32), ("long-0", 33, 1024))
    router.send(messages.Configure(msgspec.Raw(msgspec.json.encode(plan))))
    worker = router.worker("long-0", holds=1024)
    router.report_when(lambda report: report.instances[1].connected)
    client.submit(2, [1] * 600)
    worker.answer(worker.take())
    assert client.result().request_id == 2


def test_signals_to_the_group_do_not_stop_it_but_the_end_of_the_channel_does(start_router: Start) -> None:
    router = start_router()
    router.process.send_signal(signal.SIGTERM)
    router.process.send_signal(signal.SIGINT)
    router.client().ping()
    router.channel.close()
    assert router.process.wait(DEADLINE_SECONDS) == 1


def test_it_dies_with_its_supervisor_even_while_it_is_busy(start_router: Start) -> None:
    router = start_router()
    client = router.client()
    client.submit(1, [1])
    client.ping()
    router.channel.shutdown(socket.SHUT_RDWR)
    assert router.process.wait(DEADLINE_SECONDS) == 1


def test_something_else_in_the_place_of_the_socket_is_left_alone_and_named(start_router: Start, tmp_path: Path) -> None:
    precious = tmp_path / "back.sock"
    precious.write_text("precious")
    router = start_router(wait=False)
    fatal = router.receive()
    assert isinstance(fatal, messages.Fatal)
    assert str(precious) in fatal.error
    assert precious.read_text() == "precious"
    assert router.process.wait(DEADLINE_SECONDS) == 1


def test_a_specification_that_cannot_be_read_is_final(make_plan: Any, tmp_path: Path) -> None:
    spec = msgspec.to_builtins(RouterSpec("ipc://x", "ipc://y", make_plan(("a", 1, 32)), {}, []))
    spec["plan"]["policy"] = "by-magic"
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE_SECONDS)
    with ours:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "orchestrator.router", "--channel", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
        ours.sendall(encode(messages.Start(os.getpid(), msgspec.Raw(msgspec.json.encode(spec)))))
        (line,) = Lines().feed(ours.recv(1 << 16))
        fatal = msgspec.json.decode(line, type=messages.FromChild)
        assert isinstance(fatal, messages.Fatal)
        assert fatal.permanent
        assert "by-magic" in fatal.error
        assert process.wait(DEADLINE_SECONDS) == 78


@pytest.mark.parametrize("policy", ["by-seqlen-strict", "shortest-completion", "least-loaded", "round-robin"])
def test_every_policy_serves(start_router: Start, make_plan: Any, rows_of: Any, policy: str) -> None:
    router = start_router(make_plan(("a", 1, 512), policy=policy))
    worker, client = router.worker("a"), router.client()
    client.submit(1, [1, 2, 3])
    worker.answer(worker.take())
    assert rows_of(client.result()) == [(6.0, 3.0)]


def test_the_router_does_not_interrupt_workers_that_share_its_cores(start_router: Start) -> None:
    threads = Path(f"/proc/{start_router().process.pid}/task").iterdir()
    assert {os.sched_getscheduler(int(thread.name)) for thread in threads} == {os.SCHED_BATCH}
