"""How often does a gateway ask the supervisor for the past, and what if that does not answer?"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from orchestrator.gateway import recollection
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.recollection import KEPT_SECONDS, Recollection
from orchestrator.history import Step


class Supervisor:
    """Answers nothing by itself; the clock is its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Step] = []
        self.now = 100.0
        self.past = Recollection(self.asked.append)
        monkeypatch.setattr(recollection, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    return Supervisor(monkeypatch)


async def test_all_who_wait_get_one_answer_and_so_does_who_comes_within_a_second(supervisor: Supervisor) -> None:
    past = supervisor.past
    waiting = [asyncio.create_task(past.document(2)) for _ in range(3)]
    await asyncio.sleep(0)
    assert supervisor.asked == [2]
    past.heard(2, b"first")
    assert await asyncio.gather(*waiting) == [b"first"] * 3
    supervisor.now += KEPT_SECONDS / 2
    assert await past.document(2) == b"first"
    assert supervisor.asked == [2]


async def test_after_a_second_and_for_another_step_it_asks_again(supervisor: Supervisor) -> None:
    past = supervisor.past
    past.heard(2, b"old")
    supervisor.now += KEPT_SECONDS
    fine, coarse = asyncio.create_task(past.document(2)), asyncio.create_task(past.document(60))
    await asyncio.sleep(0)
    assert supervisor.asked == [2, 60]
    past.heard(60, b"hours")
    past.heard(2, b"minutes")
    assert (await fine, await coarse) == (b"minutes", b"hours")


async def test_a_supervisor_that_does_not_answer_is_asked_again_by_the_next_and_a_late_answer_serves_it(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = supervisor.past
    monkeypatch.setattr(recollection, "PATIENCE_SECONDS", 0.0)
    for _ in range(2):
        with pytest.raises(Refusal, match="the supervisor has not answered within 0 s"):
            await past.document(2)
    assert supervisor.asked == [2, 2]
    past.heard(2, b"late")
    assert await past.document(2) == b"late"


async def test_one_who_hangs_up_does_not_take_the_answer_from_the_others(supervisor: Supervisor) -> None:
    past = supervisor.past
    leaving, staying = asyncio.create_task(past.document(2)), asyncio.create_task(past.document(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    past.heard(2, b"answer")
    assert await staying == b"answer"
