"""Does the bar show what goes on to a terminal, and stay out of everything else?"""

from __future__ import annotations

import io

import pytest

from orchestrator.cli.bar import Bar, drawn
from orchestrator.models.progress import Step, decode, encode


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True

    def line(self) -> str:
        """What stands in the last line now."""
        return self.getvalue().rpartition("\x1b[K")[2]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def test_the_line_has_the_share_that_is_done_and_the_seconds_it_took() -> None:
    assert drawn(Step("rounding", 12, 24), 2.4) == "rounding [############------------] 12/24 2 s"
    assert drawn(Step("rounding", 6, 24), 8.4) == "rounding [######------------------] 6/24 8 s, about 25 s left"
    assert drawn(Step("rounding", 24, 24), 16) == "rounding [########################] 24/24 16 s"
    assert drawn(Step("comparing"), 3.6) == "comparing …"
    assert drawn(Step("rounding", 99, 24), 1).count("#") == 24


def test_steps_are_written_over_one_another_and_words_stay_above_them() -> None:
    screen, clock = Screen(), Clock()
    with Bar(screen, clock=clock) as bar:
        bar.show(Step("rounding", 1, 4))
        clock.now = 2.0
        bar.show(Step("rounding", 2, 4))
        assert screen.line() == "rounding [############------------] 2/4 2 s"
        bar.say("a word")
        assert "a word\n" in screen.getvalue()
        assert screen.line() == "rounding [############------------] 2/4 2 s"
        assert screen.getvalue().count("\n") == 1
    assert screen.line() == ""


def test_the_seconds_of_a_new_kind_of_step_begin_anew() -> None:
    screen, clock = Screen(), Clock()
    bar = Bar(screen, clock=clock)
    bar.show(Step("reading"))
    clock.now = 5.0
    bar.show(Step("rounding", 0, 4))
    assert screen.line().endswith("0/4 0 s")


def test_steps_in_quick_succession_are_left_out_but_never_the_last() -> None:
    screen, clock = Screen(), Clock()
    bar = Bar(screen, clock=clock)
    for done in range(1001):
        bar.show(Step("rounding", done, 1000))
    assert screen.line().endswith("1000/1000 0 s")
    assert screen.getvalue().count("rounding") == 2


def test_a_line_is_never_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen()
    Bar(screen, clock=Clock()).show(Step("rounding the weights", 1, 2))
    assert screen.line() == "rounding the weight"


@pytest.mark.parametrize("case", ["no terminal", "dumb terminal", "not wanted"])
def test_without_a_terminal_there_are_words_and_nothing_else(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "dumb terminal":
        monkeypatch.setenv("TERM", "dumb")
    stream = io.StringIO() if case == "no terminal" else Screen()
    with Bar(stream, wanted=case != "not wanted", clock=Clock()) as bar:
        bar.show(Step("rounding", 1, 4))
        bar.say("a word")
    assert stream.getvalue() == "a word\n"


def test_a_step_crosses_the_pipe_and_everything_else_stays_words() -> None:
    step = Step("int8: rounding weights", 3, 24)
    assert decode(encode(step) + b"\n") == step
    for line in (b"timing 3 variants\n", b"@step nonsense\n", b'@step {"done": 1}\n', b"@step \xff\n", b""):
        assert decode(line) is None
