"""Does the blocking client get its rows over a real socket, and say clearly why it does not?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from orchestrator.client import Client, Refused, RouterSilent, TextTooLong
from workers import wire


@pytest.fixture
def client(own_router: Any, kit: Any) -> Iterator[Client]:
    own_router.description = {"model": kit.MODEL, "tokenizer": str(kit.model_folder() / "tokenizer.json")}
    with Client(own_router.endpoint, timeout_seconds=kit.PATIENCE) as client:
        yield client


def test_it_describes_the_model(client: Client, kit: Any) -> None:
    described = client.describe()
    assert described.model == kit.MODEL
    assert described.tokenizer.endswith("tokenizer.json")


def test_it_embeds_texts_in_order(client: Client, own_router: Any, kit: Any) -> None:
    matrix = client.embed(["I like you.", ""])
    assert matrix.shape == (2, 384)
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [kit.row_of([101, 1045, 2066, 2017, 1012, 102]).tolist(), kit.row_of([101, 102]).tolist()]
    assert client.embed([]).shape == (0, 384)


def test_it_runs_token_ids(client: Client, kit: Any) -> None:
    rows = client.run([[7, 8], [9]])
    assert [row.tolist() for row in rows] == [kit.row_of([7, 8]).tolist(), kit.row_of([9]).tolist()]
    assert client.run([]) == []


def test_thousands_of_sequences_go_in_requests_of_a_bounded_number_and_come_back_in_order(
    client: Client, own_router: Any, kit: Any
) -> None:
    rows = client.run([[number, 1] for number in range(1000)])
    assert [row[0] for row in rows] == [kit.row_of([number, 1])[0] for number in range(1000)]
    sizes = [len(own_router.next().sequences) for _ in range(16)]
    assert sizes == [64] * 15 + [40]
    assert client.link.resubmitted == 0


def test_answers_that_come_out_of_order_are_put_in_order(client: Client, own_router: Any, kit: Any) -> None:
    held: list[Any] = []

    def respond(seen: Any) -> list[list[bytes]]:
        held.append(seen)
        return [kit.answer(one)[0] for one in reversed(held)] if len(held) == 3 else []

    own_router.respond = respond
    rows = client.run([[number, 1] for number in range(150)])
    assert [row[0] for row in rows] == [kit.row_of([number, 1])[0] for number in range(150)]


def test_a_refusal_carries_its_reason_and_cancels_the_rest(client: Client, own_router: Any, kit: Any) -> None:
    def respond(seen: Any) -> list[list[bytes]]:
        if len(seen.sequences) == 64:
            return []
        return [[wire.encode_refused(seen.request_id, "queue_full", retry_after_ms=1500, message="full")]]

    own_router.respond = respond
    with pytest.raises(Refused, match="queue_full: full") as caught:
        client.run([[1]] * 65)
    assert (caught.value.reason, caught.value.retry_after) == ("queue_full", 1.5)
    assert own_router.cancelled.get(timeout=kit.PATIENCE) == own_router.next().request_id
    own_router.respond = kit.answer
    assert len(client.run([[1]])) == 1


def test_a_text_over_the_limit_is_refused_or_cut(client: Client, own_router: Any) -> None:
    with pytest.raises(TextTooLong, match="text 0 has 302 tokens, the limit is 256"):
        client.embed(["like " * 300])
    assert client.embed(["like " * 300], cut="right").shape == (1, 384)
    assert [len(one) for one in own_router.next().sequences] == [256]


def test_an_empty_sequence_is_named(client: Client) -> None:
    with pytest.raises(ValueError, match="sequence 1 is empty"):
        client.run([[1], []])


def test_a_restarted_router_gets_the_request_again(client: Client, own_router: Any, kit: Any, endpoint: str) -> None:
    client.describe()
    own_router.respond = lambda _: []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.run, [[7, 8]])
        own_router.next()
        own_router.stop()
        second = kit.RouterDouble(endpoint)
        try:
            assert running.result(kit.PATIENCE)[0].tolist() == kit.row_of([7, 8]).tolist()
        finally:
            second.stop()
    assert client.link.resubmitted == 1


def test_a_deadline_that_passes_unanswered_is_a_refusal_and_cancels(client: Client, own_router: Any, kit: Any) -> None:
    client.describe()
    own_router.respond = lambda _: []
    with pytest.raises(Refused, match="deadline"):
        client.run([[1]], timeout_seconds=0.3)
    seen = own_router.next()
    assert 0 < seen.timeout_ms <= 300
    assert own_router.cancelled.get(timeout=kit.PATIENCE) == seen.request_id


def test_without_a_router_it_says_where_it_looked(endpoint: str) -> None:
    with Client(endpoint, timeout_seconds=0.2) as client, pytest.raises(RouterSilent, match=r"front\.sock.*running"):
        client.describe()


def test_a_second_thread_is_turned_away_and_the_first_not_disturbed(client: Client, own_router: Any, kit: Any) -> None:
    held = threading.Event()

    def respond(seen: Any) -> list[list[bytes]]:
        held.set()
        return []

    own_router.respond = respond
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.run, [[7]])
        assert held.wait(kit.PATIENCE)
        with pytest.raises(RuntimeError, match="in use by another thread"):
            client.run([[8]])
        seen = own_router.next()
        own_router.send(seen.identity, kit.answer(seen)[0])
        assert len(running.result(kit.PATIENCE)) == 1


def test_closing_twice_does_no_harm(own_router: Any) -> None:
    client = Client(own_router.endpoint)
    client.close()
    client.close()
