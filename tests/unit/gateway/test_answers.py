"""Are answers shared only among requests that are alike, and does everybody get one?"""

from __future__ import annotations

import asyncio
from array import array
from typing import Any

import numpy as np
import pytest

from orchestrator.client.link import Answered, Declined, Part
from orchestrator.client.texts import Tokens
from orchestrator.gateway.answers import Answers
from orchestrator.gateway.caches import BoundedCache
from orchestrator.gateway.caller import Caller
from workers.wire import RequestId


def tokens(*ids: int, splits: list[int] | None = None) -> Tokens:
    return Tokens([len(ids)], array("i", ids).tobytes(), splits)


def answered(value: float) -> Answered:
    row = np.array([value], np.float32).tobytes()
    return Answered(RequestId(1), [memoryview(row)], 1, False, [Part("short-0", (1, 32), 4, 10, 20, 1)], row)


class Router:
    """Answers when told to; knows who was cancelled."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Any]] = []
        self.timeouts: list[float] = []
        self.callers: list[Caller] = []
        self.cancelled = 0
        self.changed = asyncio.Event()

    async def infer(self, _: Tokens, timeout_seconds: float, caller: Caller) -> Answered | Declined:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.append(future)
        self.timeouts.append(timeout_seconds)
        self.callers.append(caller)
        self.changed.set()
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled += 1
            self.changed.set()
            raise

    async def until(self, reached: Any) -> None:
        async with asyncio.timeout(10):
            while not reached():
                self.changed.clear()
                await self.changed.wait()


async def until_joined(router: Router, answers: Answers, count: int) -> None:
    """The first request has reached the router, and so many others wait for it."""
    await router.until(lambda: router.asked and answers.joined == count)


def cache() -> BoundedCache[Any, Answered]:
    return BoundedCache(1 << 20)


async def test_nothing_is_shared_unless_it_is_switched_on() -> None:
    router = Router()
    answers = Answers(router.infer, None, join=False)
    both = [asyncio.create_task(answers.infer(tokens(1, 2), 5)) for _ in range(2)]
    await router.until(lambda: len(router.asked) == 2)
    for number, future in enumerate(router.asked):
        future.set_result(answered(number))
    assert [(await one).matrix()[0, 0] for one in both] == [0, 1]
    assert answers.joined == 0


async def test_an_answer_that_is_kept_is_given_again_and_says_so() -> None:
    router = Router()
    answers = Answers(router.infer, cache(), join=False)
    first = asyncio.create_task(answers.infer(tokens(1, 2), 5))
    await router.until(lambda: router.asked)
    router.asked[0].set_result(answered(7))
    fresh, again = await first, await answers.infer(tokens(1, 2), 5)
    assert fresh.parts[0].instance == "short-0"
    assert again.parts[0].instance == "cache"
    assert again.matrix().tolist() == fresh.matrix().tolist() == [[7]]
    assert (answers.cache.hits, answers.cache.misses, len(router.asked)) == (1, 1, 1)


@pytest.mark.parametrize(
    "other",
    [tokens(1, 3), tokens(1, 2, splits=[1]), Tokens([1, 1], array("i", [1, 2]).tobytes())],
    ids=["other ids", "a pair", "two sequences of the same ids"],
)
async def test_what_differs_is_asked_for(other: Tokens) -> None:
    router = Router()
    answers = Answers(router.infer, cache(), join=True)
    both = [asyncio.create_task(answers.infer(one, 5)) for one in (tokens(1, 2), other)]
    await router.until(lambda: len(router.asked) == 2)
    for number, future in enumerate(router.asked):
        future.set_result(answered(number))
    assert [(await one).matrix()[0, 0] for one in both] == [0, 1]
    third = asyncio.create_task(answers.infer(other, 5))
    assert (await third).matrix()[0, 0] == 1


async def test_requests_that_are_alike_are_computed_once_and_all_are_answered() -> None:
    router = Router()
    answers = Answers(router.infer, None, join=True)
    all_ = [asyncio.create_task(answers.infer(tokens(1, 2), 5)) for _ in range(4)]
    await until_joined(router, answers, 3)
    router.asked[0].set_result(answered(7))
    assert [(await one).matrix()[0, 0] for one in all_] == [7] * 4
    assert (len(router.asked), answers.joined) == (1, 3)
    again = asyncio.create_task(answers.infer(tokens(1, 2), 5))
    await router.until(lambda: len(router.asked) == 2)
    router.asked[1].set_result(answered(8))
    assert (await again).matrix()[0, 0] == 8


async def test_an_urgent_request_does_not_wait_for_a_bulk_one_that_is_alike() -> None:
    router = Router()
    answers = Answers(router.infer, None, join=True)
    callers = [Caller(2, 5), Caller(0, 5), Caller(2, 6)]
    all_ = [asyncio.create_task(answers.infer(tokens(1, 2), 5, caller)) for caller in callers]
    await router.until(lambda: len(router.asked) == 2 and answers.joined == 1)
    assert router.callers == callers[:2]
    for number, future in enumerate(router.asked):
        future.set_result(answered(number))
    assert [(await one).matrix()[0, 0] for one in all_] == [0, 1, 0]


async def test_the_first_client_hanging_up_takes_the_answer_from_nobody() -> None:
    router = Router()
    answers = Answers(router.infer, None, join=True)
    first, second = (asyncio.create_task(answers.infer(tokens(1, 2), 5)) for _ in range(2))
    await until_joined(router, answers, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert router.cancelled == 0
    router.asked[0].set_result(answered(7))
    assert (await second).matrix()[0, 0] == 7


async def test_the_last_client_hanging_up_cancels_the_request() -> None:
    router = Router()
    answers = Answers(router.infer, None, join=True)
    both = [asyncio.create_task(answers.infer(tokens(1, 2), 5)) for _ in range(2)]
    await until_joined(router, answers, 1)
    for one in both:
        one.cancel()
    await asyncio.gather(*both, return_exceptions=True)
    await router.until(lambda: router.cancelled == 1)
    again = asyncio.create_task(answers.infer(tokens(1, 2), 5))
    await router.until(lambda: len(router.asked) == 2)
    router.asked[1].set_result(answered(8))
    assert (await again).matrix()[0, 0] == 8


async def test_a_refusal_of_the_first_is_not_that_of_the_others() -> None:
    router = Router()
    answers = Answers(router.infer, cache(), join=True)
    first = asyncio.create_task(answers.infer(tokens(1, 2), 1))
    second = asyncio.create_task(answers.infer(tokens(1, 2), 60))
    await until_joined(router, answers, 1)
    router.asked[0].set_result(Declined(RequestId(1), "deadline", 0.0, "too late"))
    await router.until(lambda: len(router.asked) == 2)
    assert 50 < router.timeouts[1] <= 60
    router.asked[1].set_result(answered(7))
    outcome = await first
    assert isinstance(outcome, Declined)
    assert (await second).matrix()[0, 0] == 7


async def test_one_that_joins_keeps_its_own_deadline() -> None:
    router = Router()
    answers = Answers(router.infer, None, join=True)
    first = asyncio.create_task(answers.infer(tokens(1, 2), 60))
    await router.until(lambda: router.asked)
    outcome = await answers.infer(tokens(1, 2), 0.0)
    assert isinstance(outcome, Declined)
    assert outcome.reason == "deadline"
    router.asked[0].set_result(answered(7))
    assert (await first).matrix()[0, 0] == 7


async def test_a_failure_reaches_everybody_who_waits_and_is_not_kept() -> None:
    router = Router()
    answers = Answers(router.infer, cache(), join=True)
    both = [asyncio.create_task(answers.infer(tokens(1, 2), 5)) for _ in range(2)]
    await until_joined(router, answers, 1)
    router.asked[0].set_exception(ZeroDivisionError("a bug"))
    assert [type(one) for one in await asyncio.gather(*both, return_exceptions=True)] == [ZeroDivisionError] * 2
    assert len(answers.cache) == 0
