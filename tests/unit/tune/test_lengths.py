"""Are lengths read from whatever form they come in, and is a line that is none named?"""

from __future__ import annotations

import pytest

from orchestrator.simulate.mixes import MIXES, LengthClass, Mix, MixError
from orchestrator.tune.lengths import MOST_RANGES, cut, decode_lengths, kinds, of_recorded, shares


def test_a_number_of_tokens_on_each_line_becomes_classes_with_as_many_of_each() -> None:
    mix = decode_lengths(b"12\n\n12\n400\n 30 \n", "l.txt")
    assert [(each.name, each.low, each.high, each.weight) for each in mix.classes] == [
        ("short", 12, 12, 2), ("short", 30, 30, 1), ("long", 400, 400, 1),
    ]  # fmt: skip


def test_a_trace_counts_by_its_lengths_whatever_else_its_lines_say() -> None:
    mix = decode_lengths(b'{"time": 3.5, "length": 12}\n{"length": 40, "time": 0, "user": "a"}\n', "t.jsonl")
    assert kinds(mix) == {"short": 12, "medium": 40}


def test_a_mix_in_json_is_read_as_simulate_reads_it() -> None:
    raw = b'{"classes": [\n {"name": "a", "low": 8, "high": 32, "weight": 1}]}'
    assert decode_lengths(raw, "m.json") == Mix([LengthClass("a", 8, 32, 1)])


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "l.txt: nothing in it"),
        (b"\n \n", "l.txt: nothing in it"),
        (b"12\ntwelve\n", "l.txt:2: "),
        (b"12\n\n0\n", "l.txt:3: "),
        (b"12\n-4\n", "l.txt:2: "),
        (b"12\n3.5\n", "l.txt:2: "),
        (b"12\n99999999\n", "l.txt:2: "),
        (b'{"time": 1, "length": 4}\n{"time": 2}\n', "l.txt:2: "),
        (b'{"time": 1, "length": "4"}\n', "l.txt:1: "),
        (b'{"time": 1, "length": 4}\nnull\n', "l.txt:2: "),
        (b"\xff\xfe1\x002\x00", "l.txt:1: "),
        (b'{"classes": []}', "l.txt: not a mix"),
        (b'{"classes": [{"name": "a", "low": 9, "high": 3, "weight": 1}]}', "no range"),
    ],
)
def test_what_is_no_length_is_named_with_its_line(raw: bytes, says: str) -> None:
    with pytest.raises(MixError, match=says.replace("(", r"\(")):
        decode_lengths(raw, "l.txt")


def test_many_different_lengths_become_a_few_ranges_that_hold_all_of_them_within_their_classes() -> None:
    lengths = [1 + (at * 7919) % 500 for at in range(5000)]
    mix = of_recorded(lengths)
    assert len(mix.classes) <= MOST_RANGES
    assert sum(each.weight for each in mix.classes) == 5000
    assert min(each.low for each in mix.classes) == 1
    assert mix.longest == 500
    for each in mix.classes:
        assert {"short": each.high <= 32, "medium": 33 <= each.low <= each.high <= 384, "long": each.low > 384}[
            each.name
        ]


def test_shares_add_up_to_one_and_stand_for_a_mix_that_drifts_by_its_mean() -> None:
    for mix in MIXES.values():
        found = shares(mix)
        assert sum(share for _, share in found) == pytest.approx(1.0)
        assert [length for length, _ in found] == sorted({length for length, _ in found})
    assert sum(share for length, share in shares(MIXES["drift"]) if length > 300) == pytest.approx(
        (1 + 15.5 + 30) / 300, abs=0.02
    )


def test_what_is_longer_than_the_model_takes_is_cut_to_its_limit() -> None:
    assert cut(MIXES["mixed"], 256).longest == 256
    assert kinds(cut(MIXES["mixed"], 100)) == {"short": 28, "medium": 100, "long": 100}
    assert cut(MIXES["short"], 256) == MIXES["short"]
