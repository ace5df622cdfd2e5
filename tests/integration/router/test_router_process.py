"""Does the router process serve over real sockets what its core decides?"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from workers import spec as messages
from workers import wire

Start = Callable[..., Any]


def test_a_sequence_goes_to_the_worker_of_its_bucket_and_the_row_comes_back(start_router: Start) -> None:
    router = start_router()
    short, long, client = router.worker("short-0"), router.worker("long-0"), router.client()
    router.report_when(lambda report: all(one.connected for one in report.instances))
    client.submit(11, [5, 6, 7])
    short.answer(short.take())
    result = client.result()
    assert (result.request_id, result.positions, result.instance, result.bucket) == (11, [0], "short-0", (1, 32))
    assert msgspec.structs.asdict(result)["rows"] == b"\x00\x00\x90A\x00\x00@@"  # 18.0, 3.0
    client.submit(12, [1] * 100)
    long.answer(long.take())
    assert client.result().instance == "long-0"
