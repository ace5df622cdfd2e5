"""Do requests come as was said: how often, how long, and in which order?"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from orchestrator.simulate.mixes import MIXES, MixError, decode_mix
from orchestrator.simulate.traffic import BURST, OpenLoop, TraceError, decode_trace


@pytest.mark.parametrize("bursty", [False, True])
def test_as_many_come_as_the_rate_says(bursty: bool) -> None:
    arrivals = list(OpenLoop(200.0, MIXES["short"], 200.0, bursty).arrivals(1))
    assert len(arrivals) == pytest.approx(200 * 200, rel=0.05)
    assert all(earlier.due <= later.due for earlier, later in pairwise(arrivals))
    assert arrivals[0].due >= 0.0
    assert arrivals[-1].due < 200.0


def test_bursts_are_bursts() -> None:
    def busiest(bursty: bool) -> int:
        arrivals = OpenLoop(200.0, MIXES["short"], 200.0, bursty).arrivals(1)
        return Counter(int(each.due * 10) for each in arrivals).most_common(1)[0][1]

    assert busiest(False) < 2.5 * 20
    assert busiest(True) > 0.75 * BURST * 20


def test_the_mix_has_the_shares_it_says() -> None:
    drawn = [MIXES["mixed"].draw(rng, 0.0) for rng in [Random(1)] for _ in range(20_000)]
    kinds = Counter(kind for kind, _ in drawn)
    assert kinds["short"] / 20_000 == pytest.approx(0.70, abs=0.02)
    assert kinds["medium"] / 20_000 == pytest.approx(0.25, abs=0.02)
    assert {length for kind, length in drawn if kind == "short"} == set(range(10, 29))


def test_a_drifting_mix_moves_from_its_first_weights_to_its_last() -> None:
    def share(progress: float) -> float:
        rng = Random(1)
        return sum(MIXES["drift"].draw(rng, progress)[0] == "short" for _ in range(5000)) / 5000

    assert (share(0.0), share(0.5), share(1.0)) == (
        pytest.approx(0.9, abs=0.03), pytest.approx(0.55, abs=0.03), pytest.approx(0.2, abs=0.03),
    )  # fmt: skip


def test_the_lengths_that_stand_for_a_mix_have_its_mean() -> None:
    rng = Random(1)
    mean = sum(MIXES["mixed"].draw(rng, 0.0)[1] for _ in range(50_000)) / 50_000
    shares = MIXES["mixed"].shares(0.0)
    assert sum(share for _, share in shares) == pytest.approx(1.0)
    assert sum(length * share for length, share in shares) == pytest.approx(mean, rel=0.03)


def test_a_recorded_trace_comes_as_it_was_recorded() -> None:
    trace = decode_trace(b'{"time": 0.5, "length": 20}\n\n{"time": 0.5, "length": 400, "id": 7}\n', "t.jsonl")
    assert [(each.due, each.length, each.kind) for each in trace.arrivals(1)] == [
        (0.5, 20, "short"),
        (0.5, 400, "long"),
    ]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"t.jsonl: no request in it"),
        (b'{"time": 0, "length": 3}\n{"time": 1}\n', r"t.jsonl:2: Object missing required field `length`; expected"),
        (b'{"time": 0, "length": 0}\n', r"t.jsonl:1: Expected `int` >= 1"),
        (b'{"time": -1, "length": 5}\n', r"t.jsonl:1: Expected `float` >= 0.0"),
        (b'{"time": 2, "length": 5}\n{"time": 1, "length": 5}\n', r"t.jsonl:2: time 1.0 after 2.0; sort the lines"),
        (b"12 40\n", r"t.jsonl:1: "),
        (b'\xff\xfe{"time": 2}\n', r"t.jsonl:1: "),
    ],
)
def test_a_malformed_trace_is_refused_with_the_number_of_its_line(raw: bytes, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        decode_trace(raw, "t.jsonl")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{}", "m.json: not a mix: Object missing required field `classes`; for example"),
        (b'{"classes": []}', "Expected `array` of length >= 1"),
        (
            b'{"classes": [{"name": "a", "low": 9, "high": 3, "weight": 1}]}',
            r"classes\[0\]: from 9 to 3 tokens is no range",
        ),
        (b'{"classes": [{"name": "a", "low": 1, "high": 3, "weight": 0}]}', "all weights are 0 at the start"),
        (
            b'{"classes": [{"name": "a", "low": 1, "high": 3, "weight": 1, "end_weight": 0}]}',
            "all weights are 0 at the end",
        ),
        (
            b'{"classes": [{"name": "a", "low": 1, "high": 3, "weight": 1}, {"name": "a", "low": 4, "high": 5, "weight": 1}]}',
            "two classes have the same name",
        ),
    ],
)
def test_a_mix_that_cannot_be_used_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(MixError, match=message):
        decode_mix(raw, "m.json")
