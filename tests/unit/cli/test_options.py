"""Which numbers does the command line take? Those that the layout schema declares, and it says the bounds."""

from __future__ import annotations

import argparse

import pytest

from orchestrator.cli.options import as_declared, number, whole


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("port", "65535", 65535), ("max_seqlen", "512", 512), ("min_cosine", "0.5", 0.5), ("caches.answers_mb", "0", 0.0)],
)
def test_a_number_within_the_bounds_of_the_schema_is_taken(name: str, text: str, value: float) -> None:
    assert as_declared(name)(text) == value


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("port", "65536", "65536: from 0 to 65535"),
        ("max_seqlen", "0", "0: from 1 to"),
        ("max_seqlen", "12.5", "'12.5' is not a whole number"),
        ("min_cosine", "nan", "nan: from 0 to 1"),
        ("limits.body_mb", "0", "0: more than 0 to 1024"),
        ("supervision.start_timeout_s", "inf", "inf: from 1 to 86400"),
    ],
)
def test_a_number_out_of_bounds_is_refused_with_the_bounds(name: str, text: str, why: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        as_declared(name)(text)
    assert why in str(refused.value)


def test_an_option_that_the_schema_does_not_know_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        as_declared("caches.nothing")


def test_bounds_are_inclusive_and_above_is_not() -> None:
    assert whole(1, 3)("3") == 3
    assert number(0, 1)("0") == 0
    with pytest.raises(argparse.ArgumentTypeError):
        number(0, 1, above=True)("0")
