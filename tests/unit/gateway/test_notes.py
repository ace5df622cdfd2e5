"""Which requests are written down?"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from orchestrator.gateway.notes import LINES_AT_ONCE, Access, Handler, Notes


class Said:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.now = 100.0

    def __call__(self, message: str, **more: Any) -> None:
        self.lines.append((message, more))


def answer(notes: Notes, status: int, error: str | None = None, asked: int = 31) -> None:
    """As the gateway does it: nothing is asked of the notes below `above`."""
    if status >= notes.above:
        notes.answered(
            request_id="mine", asked=asked, method="POST", route="/embed", status=status, seconds=0.25, peer="::1", error=error,
            why="it said so" if error else "",
        )  # fmt: skip


def notes_of(access: Access) -> tuple[Notes, Said]:
    said = Said()
    return Notes(access, "gateway-0.7", now=lambda: said.now, say=said), said


@pytest.mark.parametrize(
    ("access", "written"),
    [("off", []), ("errors", [424, 500, 503, 504]), ("all", [200, 304, 404, 413, 422, 424, 429, 500, 503, 504])],
)
def test_what_is_written_down_is_what_was_asked_for(access: Access, written: list[int]) -> None:
    notes, said = notes_of(access)
    for status in (200, 304, 404, 413, 422, 424, 429, 500, 503, 504):
        answer(notes, status, error=None if status < 400 else f"error-{status}")
    assert [more["status"] for _, more in said.lines] == written


def test_a_failed_request_carries_its_id_and_the_name_that_the_router_knows() -> None:
    notes, said = notes_of("errors")
    answer(notes, 424, "worker_lost")
    ((message, more),) = said.lines
    assert message == "request=mine POST /embed 424 took=250.0ms error=worker_lost why='it said so'"
    assert (more["request_id"], more["requests"], more["error"], more["took_ms"], more["level"]) == (
        "mine", ["gateway-0.7:1f"], "worker_lost", 250.0, "warning",
    )  # fmt: skip


def test_a_request_that_never_came_to_the_router_names_none() -> None:
    notes, said = notes_of("errors")
    answer(notes, 503, "draining", asked=0)
    assert said.lines[0][1]["requests"] == []


def test_a_flood_of_one_kind_is_told_once_and_counted_and_hides_no_other_kind() -> None:
    notes, said = notes_of("errors")
    for _ in range(1000):
        answer(notes, 504, "deadline")
    assert len(said.lines) == LINES_AT_ONCE
    answer(notes, 500, "internal")
    assert said.lines[-1][1]["error"] == "internal"
    said.now += 1.0
    answer(notes, 504, "deadline")
    assert said.lines[-1][0].endswith("(and 980 more like it)")


def test_all_means_all() -> None:
    notes, said = notes_of("all")
    for _ in range(1000):
        answer(notes, 200)
        answer(notes, 504, "deadline")
    assert len(said.lines) == 2000


def test_a_request_that_took_two_attempts_is_told_unless_nothing_is_to_be() -> None:
    notes, said = notes_of("errors")
    notes.retried("mine", 31, 2, "long-0")
    ((message, more),) = said.lines
    assert message == "request=mine answered by long-0 at attempt 2"
    assert more["requests"] == ["gateway-0.7:1f"]
    silent, nothing = notes_of("off")
    silent.retried("mine", 31, 2, "long-0")
    assert nothing.lines == []


def test_what_libraries_log_becomes_one_line_with_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("a library")
    logger.addHandler(Handler())
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("it failed")
    line, end = capfd.readouterr().err.split("\n")
    assert end == ""
    assert line.startswith("\x1e{")
    assert "ValueError: broken" in line
    assert '"level":"error"' in line
