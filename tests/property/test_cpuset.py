"""Do CPU lists and masks survive being written and read, and is every nonsense refused with its position?"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.cpuset import LARGEST_NUMBER, CpusetError, format_cpulist, format_mask, parse_cpulist, parse_mask, ranges

numbers = st.frozensets(st.integers(0, 9000), max_size=200) | st.builds(
    lambda start, size: frozenset(range(start, start + size)), st.integers(0, 9000), st.integers(0, 300)
)


@given(numbers)
def test_a_list_reads_back_as_the_set_it_was_written_from(cpus: frozenset[int]) -> None:
    assert parse_cpulist(format_cpulist(cpus)) == cpus


@given(numbers)
def test_a_mask_reads_back_as_the_set_it_was_written_from(cpus: frozenset[int]) -> None:
    assert parse_mask(format_mask(cpus)) == cpus


@given(numbers)
def test_leading_words_of_zeros_change_nothing(cpus: frozenset[int]) -> None:
    first, comma, rest = format_mask(cpus).partition(",")

    assert parse_mask(f"0,00000000,{first:0>8}{comma}{rest}") == cpus


@given(numbers)
def test_ranges_are_maximal_ascending_and_cover_exactly(cpus: frozenset[int]) -> None:
    runs = list(ranges(cpus))

    assert [n for first, last in runs for n in range(first, last + 1)] == sorted(cpus)
    assert all(before[1] + 1 < after[0] for before, after in itertools.pairwise(runs))


@given(numbers, st.sampled_from(["", " ", "\n", "\t\n"]))
def test_white_space_around_a_list_means_nothing(cpus: frozenset[int], space: str) -> None:
    assert parse_cpulist(space + format_cpulist(cpus) + space) == cpus
    assert parse_mask(space + format_mask(cpus) + space) == cpus


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 60), st.integers(1, 9)), min_size=1, max_size=6))
def test_strides_ranges_and_repetitions_are_a_union(parts: list[tuple[int, int, int]]) -> None:
    text = ",".join(f"{first}-{first + size}:{stride}" for first, size, stride in parts)

    assert parse_cpulist(text) == {n for first, size, stride in parts for n in range(first, first + size + 1, stride)}


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 8), st.integers(1, 8))
def test_the_used_of_group_form_takes_the_first_of_each_group(first: int, size: int, used: int, more: int) -> None:
    group = used + more
    expected = {n for n in range(first, first + size + 1) if (n - first) % group < used}

    assert parse_cpulist(f"{first}-{first + size}:{used}/{group}") == expected


@given(st.text(max_size=40))
def test_any_text_is_either_a_set_of_numbers_or_an_error_that_says_where(text: str) -> None:
    for parse in (parse_cpulist, parse_mask):
        found: frozenset[int] = frozenset()
        refused: CpusetError | None = None
        try:
            found = parse(text)
        except CpusetError as error:
            refused = error
        assert all(0 <= number <= LARGEST_NUMBER for number in found)
        if refused is not None:
            assert 0 <= refused.position <= len(text)
            assert f"at position {refused.position}: " in str(refused)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0-", 2),
        ("-3", 0),
        ("1,,2", 2),
        ("1,2,", 4),
        ("3-1", 0),
        ("0-7,x", 4),
        ("0-7 8", 3),
        ("0-7:0", 4),
        ("5:2", 2),
        ("0-7:3/2", 6),
        ("0x7", 1),
        ("1048576", 0),
        ("0-99999999999999999999", 2),
        ("９", 0),
        ("+1", 0),
        ("1_0", 1),
        ("9" * 5000, 0),
    ],
)
def test_a_bad_list_is_refused_at_its_position(text: str, position: int) -> None:
    with pytest.raises(CpusetError) as caught:
        parse_cpulist(text)

    assert caught.value.position == position
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("text", "position"),
    [("f,", 2), ("00000001,1", 9), ("123456789,00000001", 0), ("0000000g", 7), ("-1", 0), ("f" * 270000, 0)],
)
def test_a_bad_mask_is_refused_at_its_position(text: str, position: int) -> None:
    with pytest.raises(CpusetError) as caught:
        parse_mask(text)

    assert caught.value.position == position


def test_the_kernels_own_examples() -> None:
    assert parse_mask("00000001,00000000") == {32}
    assert parse_mask("ffff") == set(range(16))
    assert parse_mask("0") == parse_mask("00000000,00000000") == parse_cpulist("\n") == frozenset()
    assert format_mask([]) == "0"
    assert format_mask([32, 0]) == "1,00000001"
    assert format_cpulist([9, 0, 1, 2, 11, 10]) == "0-2,9-11"
    assert parse_cpulist("10-14:2") == {10, 12, 14}
