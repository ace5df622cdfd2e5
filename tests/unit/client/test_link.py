"""Does a link answer every request exactly once, whatever the router does?"""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.client.link import Answered, Declined, Described, Link, Restarted
from workers import wire

WIDTH = 4


def ids(*numbers: int) -> bytes:
    return np.array(numbers, np.int32).tobytes()


def rows(*values: float) -> bytes:
    return np.repeat(np.array(values, np.float32), WIDTH).tobytes()


def result(request_id: int, positions: list[int], values: list[float], **changes: object) -> list[bytes]:
    given: dict[str, object] = {
        "width": WIDTH, "per_token": False, "instance": b"short-0", "bucket": (1, 32), "batch_size": len(positions),
        "queue_us": 10, "infer_us": 20, "attempts": 1, **changes,
    }  # fmt: skip
    return [wire.encode_result(request_id, positions, [WIDTH * 4] * len(positions), **given), rows(*values)]  # type: ignore[arg-type]


def pong(token: int, boot: int) -> list[bytes]:
    return [wire.encode_pong(token, boot)]


def connected(boot: int = 100) -> Link:
    link = Link()
    link.ping()
    assert isinstance(link.receive(pong(1, boot), 0.0), Restarted)
    return link


def test_a_single_sequence_is_answered_by_its_row_without_copying_it() -> None:
    link = connected()
    request_id, frame = link.submit([3], ids(1, 2, 3), 0.0)
    submit = wire.decode_submit(frame)
    assert (submit.request_id, submit.lengths, submit.timeout_ms) == (request_id, [3], 0)
    frames = result(request_id, [0], [7.0])
    outcome = link.receive(frames, 0.1)
    assert isinstance(outcome, Answered)
    assert outcome.whole is frames[1]
    assert outcome.matrix().tolist() == [[7.0] * WIDTH]
    assert outcome.parts[0].instance == "short-0"
    assert len(link) == 0
    link.validate()


def test_rows_are_gathered_by_position_from_several_results_in_any_order() -> None:
    link = connected()
    request_id, _ = link.submit([1, 1, 1], ids(1, 2, 3), 0.0)
    assert link.receive(result(request_id, [2], [2.0], instance=b"long-0"), 0.1) is None
    link.validate()
    outcome = link.receive(result(request_id, [1, 0], [1.0, 0.5]), 0.2)
    assert isinstance(outcome, Answered)
    assert outcome.matrix()[:, 0].tolist() == [0.5, 1.0, 2.0]
    assert [part.instance for part in outcome.parts] == ["long-0", "short-0"]


def test_rows_in_one_result_out_of_order_are_put_in_order() -> None:
    link = connected()
    request_id, _ = link.submit([1, 1], ids(1, 2), 0.0)
    outcome = link.receive(result(request_id, [1, 0], [1.0, 0.5]), 0.2)
    assert isinstance(outcome, Answered)
    assert outcome.matrix()[:, 0].tolist() == [0.5, 1.0]
    assert [array[0] for array in outcome.arrays()] == [0.5, 1.0]


def test_matrices_per_token_keep_the_lengths_of_their_sequences() -> None:
    link = connected()
    request_id, _ = link.submit([2, 1], ids(1, 2, 3), 0.0)
    head = wire.encode_result(
        request_id, [0, 1], [2 * WIDTH * 4, WIDTH * 4], width=WIDTH, per_token=True, instance=b"a", bucket=(0, 0),
        batch_size=2, queue_us=0, infer_us=0, attempts=1,
    )  # fmt: skip
    outcome = link.receive([head, rows(1.0, 2.0, 3.0)], 0.1)
    assert isinstance(outcome, Answered)
    assert [array.shape for array in outcome.arrays()] == [(2, WIDTH), (1, WIDTH)]
    with pytest.raises(ValueError, match="one row per token"):
        outcome.matrix()


def test_a_refusal_ends_a_request_even_when_parts_of_it_had_come() -> None:
    link = connected()
    request_id, _ = link.submit([1, 1], ids(1, 2), 0.0)
    link.receive(result(request_id, [0], [1.0]), 0.1)
    refusal = wire.encode_refused(request_id, "queue_full", retry_after_ms=1500, message="full")
    assert link.receive([refusal], 0.2) == Declined(wire.RequestId(request_id), "queue_full", 1.5, "full")
    assert link.receive(result(request_id, [1], [1.0]), 0.3) is None
    assert link.late_replies == 1
    link.validate()


def test_a_late_reply_to_a_cancelled_request_is_counted_and_dropped() -> None:
    link = connected()
    request_id, _ = link.submit([1], ids(1), 0.0)
    assert link.cancel(request_id) == wire.encode_cancel(request_id)
    assert link.cancel(request_id) is None
    assert link.receive(result(request_id, [0], [1.0]), 0.1) is None
    assert link.receive([wire.encode_refused(request_id, "cancelled")], 0.1) is None
    assert link.late_replies == 2
    link.validate()


def test_a_new_boot_number_returns_what_is_unanswered_with_the_time_that_is_left() -> None:
    link = connected(boot=100)
    first, _ = link.submit([1], ids(1), 10.0, timeout_seconds=5.0)
    answered, _ = link.submit([1], ids(2), 10.0)
    endless, _ = link.submit([2], ids(3, 4), 10.0)
    link.receive(result(answered, [0], [1.0]), 11.0)
    link.ping()
    outcome = link.receive(pong(2, 200), 12.0)
    assert isinstance(outcome, Restarted)
    again = [wire.decode_submit(frame) for frame in outcome.frames]
    assert [(one.request_id, one.timeout_ms, bytes(one.ids)) for one in again] == [
        (first, 3000, ids(1)),
        (endless, 0, ids(3, 4)),
    ]
    assert link.resubmitted == 2
    assert isinstance(link.receive(result(first, [0], [1.0]), 12.1), Answered)
    assert link.receive(result(first, [0], [1.0]), 12.2) is None
    assert link.late_replies == 1
    link.validate()


def test_what_was_submitted_after_the_answered_ping_is_not_submitted_twice() -> None:
    """It travelled behind that PING on the same pipe, so the router that answered the PING has it."""
    link = connected(boot=100)
    before, _ = link.submit([1], ids(1), 1.0)
    link.ping()
    link.submit([1], ids(2), 1.0)
    outcome = link.receive(pong(2, 200), 1.1)
    assert isinstance(outcome, Restarted)
    assert [wire.decode_submit(frame).request_id for frame in outcome.frames] == [before]


def test_requests_before_the_first_pong_wait_behind_the_first_ping() -> None:
    link = Link()
    link.ping()
    link.submit([1], ids(1), 0.0)
    assert link.receive(pong(1, 100), 0.5) == Restarted(100, [])
    assert link.resubmitted == 0


def test_a_request_resubmitted_once_is_not_sent_again_for_the_same_boot() -> None:
    link = connected(boot=100)
    link.submit([1], ids(1), 1.0)
    link.ping()
    link.receive(pong(2, 200), 1.1)
    link.ping()
    assert link.receive(pong(3, 200), 1.2) is None
    assert link.resubmitted == 1


def test_an_echo_of_the_old_router_after_the_new_one_is_ignored() -> None:
    link = connected(boot=100)
    link.submit([1], ids(1), 1.0)
    link.ping()
    link.ping()
    link.receive(pong(3, 200), 1.1)
    assert link.receive(pong(2, 100), 1.2) is None
    assert link.boot == 200
    assert link.resubmitted == 1


def test_rows_that_come_from_both_routers_are_taken_once() -> None:
    link = connected(boot=100)
    request_id, _ = link.submit([1, 1], ids(1, 2), 1.0)
    link.receive(result(request_id, [0], [1.0]), 1.0)
    link.ping()
    link.receive(pong(2, 200), 1.1)
    assert link.receive(result(request_id, [0], [1.0]), 1.2) is None
    assert link.late_replies == 1
    outcome = link.receive(result(request_id, [0, 1], [1.0, 2.0]), 1.3)
    assert isinstance(outcome, Answered)
    assert outcome.matrix()[:, 0].tolist() == [1.0, 2.0]
    link.validate()


def test_what_is_past_its_deadline_is_overdue_and_not_submitted_again() -> None:
    link = connected(boot=100)
    late, _ = link.submit([1], ids(1), 1.0, timeout_seconds=0.5)
    link.submit([1], ids(1), 1.0, timeout_seconds=60.0)
    assert link.overdue(1.4) == []
    assert link.overdue(1.5) == [late]
    assert link.overdue(1.5, grace_seconds=0.1) == []
    link.ping()
    outcome = link.receive(pong(2, 200), 1.6)
    assert isinstance(outcome, Restarted)
    assert late not in [wire.decode_submit(frame).request_id for frame in outcome.frames]


def test_silence_is_counted_from_the_newest_pong() -> None:
    link = Link()
    assert link.silent_seconds(5.0) == float("inf")
    link.ping()
    link.receive(pong(1, 100), 5.0)
    assert link.silent_seconds(7.5) == 2.5


def test_a_tiny_timeout_is_still_a_deadline_on_the_wire() -> None:
    _, frame = connected().submit([1], ids(1), 0.0, timeout_seconds=0.0001)
    assert wire.decode_submit(frame).timeout_ms == 1


def test_a_description_is_handed_on() -> None:
    outcome = connected().receive([wire.encode_json(wire.DESCRIPTION, {"tokenizer": "x"})], 0.0)
    assert outcome == Described(b'{"tokenizer":"x"}')


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\x01"],
        [b"\x09\x10"],
        [wire.encode_bare(wire.WHO)],
        [wire.encode_ping(1)],
        [wire.encode_pong(9, 1)],
        [wire.encode_pong(1, 1), b"more"],
        [wire.encode_pong(1, 1)[:-1]],
        result(1, [0], [1.0])[:1],
        [*result(1, [0], [1.0]), b"more"],
        [result(1, [0], [1.0])[0], b"123"],
        result(1, [2], [1.0]),
        result(1, [0, 0], [1.0, 1.0]),
        result(1, [0], [1.0], per_token=True),
    ],
    ids=str,
)
def test_what_is_no_message_for_this_client_is_counted_and_the_next_good_one_is_taken(frames: list[bytes]) -> None:
    link = connected()
    request_id, _ = link.submit([2, 2], ids(1, 2, 3, 4), 0.0)
    assert request_id == 1
    assert link.receive(frames, 0.1) is None
    assert link.malformed == 1
    link.validate()
    assert isinstance(link.receive(result(1, [0, 1], [1.0, 2.0]), 0.2), Answered)


def test_parts_of_different_widths_do_not_make_one_answer() -> None:
    link = connected()
    request_id, _ = link.submit([1, 1], ids(1, 2), 0.0)
    link.receive(result(request_id, [0], [1.0]), 0.1)
    head = wire.encode_result(
        request_id, [1], [8], width=2, per_token=False, instance=b"a", bucket=(0, 0), batch_size=1, queue_us=0,
        infer_us=0, attempts=1,
    )  # fmt: skip
    assert link.receive([head, bytes(8)], 0.2) is None
    assert link.malformed == 1


def test_a_new_connection_begins_with_a_ping_and_then_all_that_is_unanswered() -> None:
    link = connected()
    first, _ = link.submit([1], ids(1), 0.0, timeout_seconds=5.0)
    link.submit([1], ids(1), 0.0, timeout_seconds=0.5)
    answered, _ = link.submit([1], ids(1), 0.0)
    assert isinstance(link.receive(result(answered, [0], [1.0]), 0.1), Answered)
    ping, again = link.resume(1.0)
    assert wire.kind_of(ping) == wire.PING
    submit = wire.decode_submit(again)
    assert (submit.request_id, submit.timeout_ms) == (first, 4000)
    assert link.resubmitted == 1
    link.validate()


def test_what_went_out_behind_the_first_ping_of_a_connection_does_not_go_out_again_with_its_pong() -> None:
    link = connected(boot=1)
    link.submit([1], ids(1), 0.0)
    ping, _ = link.resume(1.0)
    said = link.receive([wire.encode_pong(wire.decode_id(ping), 2)], 1.1)
    assert isinstance(said, Restarted)
    assert (said.frames, link.boot) == ([], 2)
