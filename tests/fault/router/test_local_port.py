"""What goes wrong between the router and the processes of its own machine, and what does it cost the others?"""

from __future__ import annotations

import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workers import spec as messages
from workers import wire
from workers.lane import LaneClosed, as_client

Start = Callable[..., Any]
GATEWAY = as_client("gateway-0")


def served(gateway: Any, worker: Any, rows_of: Any, number: int = 7) -> None:
    """One request of `gateway` goes through, with `worker` the only one there."""
    gateway.submit(number, [number, 1])
    batch = worker.take()
    assert batch.lengths == [2]
    worker.answer(batch)
    result = gateway.result()
    assert (result.request_id, rows_of(result)) == (number, [(number + 1.0, 2.0)])


def test_gateway_and_worker_are_served_over_their_lanes(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    gateway, worker = router.lane(GATEWAY), router.lane_worker("short-0")
    for number in range(1, 40):
        gateway.submit(number, [number, 1])
    answered: dict[int, list[tuple[float, ...]]] = {}
    while len(answered) < 39:
        batch = worker.take()
        worker.answer(batch)
        for _ in batch.lengths:
            result = gateway.result()
            answered[result.request_id] = rows_of(result)
    assert answered == {number: [(number + 1.0, 2.0)] for number in range(1, 40)}
    report = router.report_when(lambda report: report.router.settled == 39)
    assert (report.router.queued, report.router.in_flight, report.router.malformed_frames) == (0, 0, 0)


def test_a_lane_and_a_zeromq_client_share_the_workers_of_both_kinds(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    gateway, client = router.lane(GATEWAY), router.client()
    near, far = router.lane_worker("short-0"), router.worker("long-0")
    router.wait_all_connected()
    client.submit(1, [5])
    gateway.submit(1, [1] * 100)
    near.answer(near.take())
    far.answer(far.take())
    assert rows_of(client.result()) == [(5.0, 1.0)]
    assert rows_of(gateway.result()) == [(100.0, 100.0)]


@pytest.mark.parametrize(
    "stream", [b"", b"\x00" * 8, b"\xff" * 64, struct.pack("<II", 3, 0xFFFFFFFF) + b"X??", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_who_does_not_say_who_it_is_is_let_go_and_nobody_else_notices(
    start_router: Start, rows_of: Any, stream: bytes
) -> None:
    router = start_router()
    gateway, worker = router.lane(GATEWAY), router.lane_worker("short-0")
    served(gateway, worker, rows_of)
    descriptors = Path(f"/proc/{router.process.pid}/fd")
    before = len(list(descriptors.iterdir()))
    strangers = [router.lane(None) for _ in range(8)]
    for stranger in strangers:
        stranger.end.sendall(stream)
    if stream:
        for stranger in strangers:
            with pytest.raises((LaneClosed, ConnectionResetError)):
                stranger.hear()
    for stranger in strangers:
        stranger.close()
    served(gateway, worker, rows_of, 8)
    router.report_when(lambda _: len(list(descriptors.iterdir())) == before)


def test_a_message_cut_off_in_the_middle_costs_its_sender_alone(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    gateway, worker = router.lane(GATEWAY), router.lane_worker("short-0")
    torn = router.lane(GATEWAY)
    frame = wire.encode_submit(1, [4], bytes(16))
    torn.end.sendall(struct.pack("<II", len(frame), 0xFFFFFFFF) + frame[:-3])
    torn.close()
    served(gateway, worker, rows_of)
    assert router.report_when(lambda report: report.router.submitted == 1).router.settled == 1


def test_frames_that_mean_nothing_are_counted_and_the_lane_stays(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    gateway, worker = router.lane(GATEWAY), router.lane_worker("short-0")
    for frame, rows in ((b"", None), (b"\x01", None), (b"\x09\x01", None), (b"\x01\x63", None), (b"\x01\x01", b"rows")):
        gateway.say(frame, rows)
        worker.say(frame, rows)
    served(gateway, worker, rows_of)
    router.report_when(lambda report: report.router.malformed_frames == 10)


def test_what_a_gateway_that_has_gone_still_wanted_is_never_computed(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    gone, gateway = router.lane(GATEWAY), router.lane(as_client("gateway-1"))
    gone.submit(1, [1, 2, 3])
    router.report_when(lambda report: report.router.queued == 1)
    gone.close()
    report = router.report_when(lambda report: report.router.settled == 1)
    assert report.router.rejected == {"cancelled": 1}
    served(gateway, router.lane_worker("short-0"), rows_of)


def test_a_gateway_that_never_reads_is_let_go_before_its_answers_fill_the_memory(
    start_router: Start, rows_of: Any
) -> None:
    router = start_router()
    deaf, worker = router.lane(GATEWAY), router.lane_worker("short-0")
    for number in range(1, 25):
        deaf.submit(number, [number])
    report = router.report_when(lambda report: report.router.submitted == 24)
    computed = 0
    while report.router.queued or report.router.in_flight:
        batch = worker.take()
        worker.answer(batch, width=1 << 20)  # 4 MiB a row
        computed += len(batch.lengths)
        report = router.report_when(lambda report, computed=computed: report.router.settled >= computed)
    assert report.router.undelivered_replies >= 1
    served(router.lane(as_client("gateway-1")), worker, rows_of)


def test_a_worker_that_comes_back_on_another_connection_is_given_its_batch_again_and_has_killed_nobody(
    start_router: Start, rows_of: Any
) -> None:
    router = start_router()
    gateway = router.lane(GATEWAY)
    gateway.submit(1, [4, 4])
    for _ in range(3):  # more often than a killer of workers is forgiven
        worker = router.lane_worker("short-0")
        assert worker.take().lengths == [2]
        worker.close()
    back = router.lane_worker("short-0")
    back.answer(back.take())
    assert rows_of(gateway.result()) == [(8.0, 2.0)]


def test_a_worker_whose_connection_breaks_and_who_is_dead_counts_as_a_death(start_router: Start) -> None:
    router = start_router()
    gateway = router.lane(GATEWAY)
    gateway.submit(1, [4, 4])
    for incarnation in (1, 2):
        worker = router.lane_worker("short-0", incarnation)
        assert worker.take().lengths == [2]
        worker.close()
        router.send(messages.Lost("short-0", incarnation))
    refused = wire.decode_refused(gateway.hear()[0])
    assert (refused.request_id, refused.reason) == (1, "worker_lost")


def test_work_for_a_worker_whose_connection_is_gone_goes_to_another(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    gateway, near = router.lane(GATEWAY), router.lane_worker("short-0")
    served(gateway, near, rows_of)
    near.close()
    other = router.lane_worker("long-0")
    served(gateway, other, rows_of, 9)


def test_two_connections_of_one_worker_the_later_one_counts(start_router: Start, rows_of: Any) -> None:
    router = start_router()
    gateway, first = router.lane(GATEWAY), router.lane_worker("short-0")
    served(gateway, first, rows_of)
    second = router.lane_worker("short-0")
    with pytest.raises(LaneClosed):
        first.hear()
    served(gateway, second, rows_of, 8)


def test_a_file_where_the_local_socket_should_be_is_not_overwritten(start_router: Start, tmp_path: Path) -> None:
    (tmp_path / "local.sock").write_text("mine")
    router = start_router(wait=False)
    fatal = router.wait_for(messages.Fatal)
    assert "local.sock is there and is no socket" in fatal.error
    assert (tmp_path / "local.sock").read_text() == "mine"


def test_the_socket_of_a_killed_router_is_taken_over(start_router: Start, rows_of: Any) -> None:
    first = start_router()
    first.process.kill()
    first.process.wait()
    assert Path(first.local.removeprefix("unix://")).is_socket()
    second = start_router()
    served(second.lane(GATEWAY), second.lane_worker("short-0"), rows_of)


def first_free(pid: int) -> int:
    """The number that the process's next descriptor would have."""
    taken = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def test_without_descriptors_those_who_are_there_are_served_and_others_as_soon_as_there_are_some(
    start_router: Start, rows_of: Any
) -> None:
    router = start_router()
    gateway, worker = router.lane(GATEWAY), router.lane_worker("short-0")
    served(gateway, worker, rows_of)
    pid = router.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The least of several looks: now and then the router has a file of /proc open, whose number would be free again.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(first_free(pid) for _ in range(20)), before[1]))
    late = router.lane(as_client("gateway-1"))
    late.submit(1, [5, 6])
    for number in range(2, 50):
        served(gateway, worker, rows_of, number)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    worker.answer(worker.take())
    assert rows_of(late.result()) == [(11.0, 2.0)]
