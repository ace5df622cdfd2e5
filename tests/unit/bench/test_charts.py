"""Are drawings and pages whole, and do they say what the figures say?"""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from orchestrator.bench.charts import Series, heat, lines, short
from orchestrator.bench.environment import Environment
from orchestrator.bench.page import page

ENVIRONMENT = Environment(
    when="2026-01-02T03:04:05+00:00", seconds=1.5, cpu="A <CPU> & more", isa=["avx2"], cores=2, smt=1, numa=["node 0: CPUs 0-1, 4 GiB"],
    quota_cpus=None, kernel="6.1", governor="performance", turbo="on", transparent_huge_pages="madvise", numa_balancing="off",
    python="3.11", versions={"numpy": "2"}, commit=None, load_average_before=0.1, load_average_after=1.9, others_cpus=0.0, others=[],
    warnings=["something <else> ran"],
)  # fmt: skip


def svg_of(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", figure, re.DOTALL)[0])  # type: ignore[index]


def test_a_drawing_has_a_path_and_a_name_for_each_series_and_its_marks_carry_the_figures() -> None:
    drawn = lines(
        "t", "x", "y", [Series("a <b>", [(16, 2.0), (8, 1.0)]), Series("c", [(8, 4.0)])], log_x=True, log_y=True
    )
    svg = svg_of(drawn)
    assert len(svg.findall(".//path")) == 2
    assert [title.text for title in svg.findall(".//title")] == ["a <b>: 1 at 8", "a <b>: 2 at 16", "c: 4 at 8"]
    assert {label.text for label in svg.findall('.//text[@class="label"]')} == {"● a <b>", "▲ c"}


@pytest.mark.parametrize("points", [[(5.0, 5.0)], [(1, 0.0), (2, 0.0)], [(1, 3.0), (2, 3.0), (900, 3.0)]])
@pytest.mark.parametrize("log", [False, True])
def test_what_does_not_vary_is_drawn_all_the_same(points: list[tuple[float, float]], log: bool) -> None:
    values = [(at, value + (1.0 if log else 0.0)) for at, value in points]
    for number in re.findall(
        r'[xyd][12]?="([^"]*)"', lines("t", "x", "y", [Series("a", values)], log_x=log, log_y=log)
    ):
        assert "nan" not in number
        assert "inf" not in number


def test_twenty_series_keep_their_names_apart() -> None:
    figure = lines("t", "x", "y", [Series(f"s{n}", [(1, 10.0 + n / 100), (2, 10.0)]) for n in range(20)])
    heights = sorted(float(label.get("y", "0")) for label in svg_of(figure).findall('.//text[@class="label"]'))
    assert min(b - a for a, b in pairwise(heights)) >= 13.9


def test_nothing_measured_is_no_drawing() -> None:
    assert lines("t", "x", "y", [Series("a", [])]) == ""
    assert heat("t", ["a"], [("r", [None])], "u") == ""


def test_a_map_is_darkest_where_the_value_is_largest_and_says_where_there_is_none() -> None:
    drawn = heat("t", ["a", "b", "c"], [("r", [1.0, None, 11.0])], "u")
    assert re.findall(r'<td class="([^"]*)">([^<]*)<', drawn) == [("h0", "1"), ("none", "–"), ("h10 dark", "11")]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.123456, "0.123"), (12.34, "12.3"), (480, "480"), (9999, "9999"), (12345, "12.3k"), (2e6, "2M")],
)
def test_figures_are_short(value: float, said: str) -> None:
    assert short(value) == said


def test_the_page_is_one_file_without_scripts_whose_texts_are_escaped() -> None:
    text = page(
        "m <x>",
        ["said"],
        [],
        [["form", "p50", ""], ["a", "1", ""], ["b", "2", "noisy"]],
        ["lost <one>"],
        ENVIRONMENT,
        {"seed": 7},
    )
    assert "<script" not in text
    assert not re.search(r"(src|href)=|url\(|@import", text), "nothing is fetched from elsewhere"
    for escaped in ("m &lt;x&gt;", "A &lt;CPU&gt; &amp; more", "something &lt;else&gt; ran", "lost &lt;one&gt;"):
        assert escaped in text
    assert text.count('<tr class="noisy">') == 1
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
