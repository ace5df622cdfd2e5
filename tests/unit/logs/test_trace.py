"""Are the lines of one request found, and those of others left out?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator.logs.read import merge
from orchestrator.logs.record import Record
from orchestrator.logs.trace import trace

START = datetime(2026, 1, 1, tzinfo=UTC)


def line(message: str, second: float = 0.0, **more: object) -> Record:
    return Record(
        time=START + timedelta(seconds=second), level="info", part="router", instance="router", event="note", message=message,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


STORY = [
    line("lost", requests=["gateway-0.7:1", "gateway-0.7:2"]),
    line("the batch failed in the worker", batch="ab"),
    line("the batch failed", batch="ab", requests=["gateway-0.7:2"]),
    line("another batch", batch="cd", requests=["gateway-0.7:3"]),
    line("424", request_id="mine", requests=["gateway-0.7:2"]),
    line("424", request_id="other", requests=["gateway-0.7:3"]),
    line("nothing"),
]


def test_the_id_that_the_client_saw_leads_to_the_router_and_to_the_worker() -> None:
    assert trace("mine", lambda: STORY) == [STORY[0], STORY[1], STORY[2], STORY[4]]


def test_the_names_of_router_and_batch_lead_there_as_well() -> None:
    assert trace("gateway-0.7:3", lambda: STORY) == [STORY[3], STORY[5]]
    assert trace("cd", lambda: STORY) == [STORY[3]]
    assert trace("unknown", lambda: STORY) == []


def test_lines_of_several_files_come_by_time_and_each_file_in_its_own_order() -> None:
    one = [line("a", 1), line("b", 5), line("after the clock was set back", 2), line("c", 6)]
    two = [line("x", 2), line("y", 5.5)]
    assert [each.message for each in merge([one, two])] == ["a", "x", "b", "after the clock was set back", "y", "c"]
