"""Does the router's log name the requests that something befell?"""

from __future__ import annotations

from typing import Any

from orchestrator.router.events import Client, Note
from orchestrator.router.naming import LONGEST_REASON
from workers.said import MOST_REQUESTS

GATEWAY = Client(b"\x013 gateway-0.77")


def notes(desk: Any) -> list[Note]:
    return [action for action in desk.log if isinstance(action, Note)]


def test_a_lost_worker_names_what_it_held_and_one_that_held_nothing_is_no_warning(make_desk: Any) -> None:
    desk = make_desk(("all-0", 1, 512))
    desk.hello("all-0")
    desk.lose("all-0")
    assert (notes(desk)[-1].level, notes(desk)[-1].requests) == ("info", ())
    desk.hello("all-0", 2)
    first, second = desk.submit(500, client=GATEWAY), desk.submit(400, client=GATEWAY)
    desk.after(0.0)
    held = [f"gateway-0.77:{one.request_id:x}" for one in (first, second)]
    running = desk.lengths_at("all-0")
    desk.lose("all-0", 2)
    note = next(each for each in reversed(notes(desk)) if "lost" in each.text)
    assert note.level == "warning"
    assert list(note.requests) == held[: len(running)]
    assert held[0] in note.text


def test_a_failed_batch_is_named_with_its_requests_and_the_engine_s_reason(make_desk: Any) -> None:
    desk = make_desk(("all-0", 1, 512))
    desk.hello("all-0")
    request = desk.submit(30, client=GATEWAY)
    flight = desk.running("all-0")
    desk.fail("all-0", "no memory " * 100)
    note = notes(desk)[-1]
    assert (note.level, note.batch) == ("warning", flight.batch_id)
    assert note.requests == (f"gateway-0.77:{request.request_id:x}",)
    assert f"batch={flight.batch_id:x} of 1 failed instance=all-0" in note.text
    assert len(note.text) < LONGEST_REASON + 200
    assert desk.refused() == [(request.request_id, "model_error")]


def test_poison_is_an_error_that_names_its_request(make_desk: Any) -> None:
    desk = make_desk(("all-0", 1, 512))
    desk.hello("all-0")
    request = desk.submit(30, client=GATEWAY)
    desk.lose("all-0")
    desk.hello("all-0", 2)
    desk.lose("all-0", 2)
    (poison,) = [note for note in notes(desk) if note.level == "error"]
    assert poison.requests == (f"gateway-0.77:{request.request_id:x}",)
    assert "poison" in poison.text


def test_nobody_who_has_gone_is_named_and_no_line_names_more_than_it_can_hold(make_desk: Any) -> None:
    desk = make_desk(("all-0", 1, 512), max_batch_tokens=1 << 20)
    desk.submit(8, client=GATEWAY)
    for _ in range(3 * MOST_REQUESTS):
        desk.submit(8, client=GATEWAY)
    gone = desk.submit(8, client=GATEWAY)
    desk.hello("all-0")
    desk.cancel(gone)
    desk.lose("all-0")
    note = next(each for each in notes(desk) if "lost" in each.text)
    assert 1 <= len(note.requests) <= MOST_REQUESTS
    assert f"gateway-0.77:{gone.request_id:x}" not in note.requests
    assert len(note.text) < 300
