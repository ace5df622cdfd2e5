"""Do the studies hold what they claim? Their own commands, shorter, against the claims of their pages."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "studies"
RUN = runpy.run_path(str(PAGES / "run.py"))


def commands(page: str) -> list[list[str]]:
    found: list[list[str]] = RUN["commands"]((PAGES / page).read_text())
    assert found
    return found


@pytest.fixture
def shorter(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command of a page for so many seconds with some of its policies; rows by policy."""
    monkeypatch.chdir(ROOT)

    def run(arguments: list[str], seconds: float, *policies: str) -> dict[str, dict[str, Any]]:
        if policies and "--policy" not in arguments:
            arguments = [*arguments, "--policy", *policies]
        assert main([*arguments, "--seconds", str(seconds), "--json"]) == 0
        return {row["name"]: row for row in json.loads(capsys.readouterr().out)["rows"]}

    return run


def p99(row: dict[str, Any], kind: str | None = None) -> float:
    value = (row["classes"][kind] if kind else row["latency"])["p99_ms"]
    assert isinstance(value, float)
    return value


def test_three_buckets_on_two_sockets_beat_one_instance(shorter: Any) -> None:
    one_full, three_full, planned_full, one, three, *_ = commands("dual-socket.md")
    alone, both = shorter(one_full, 4), shorter(three_full, 4, "by-seqlen", "shortest-completion")
    for policy in ("by-seqlen", "shortest-completion"):
        assert both[policy]["per_second"] >= 2.0 * alone["by-seqlen"]["per_second"]
    planned = shorter(planned_full, 4, "shortest-completion")["shortest-completion"]
    assert planned["per_second"] >= 1.5 * both["shortest-completion"]["per_second"]
    alone, both = shorter(one, 8), shorter(three, 8, "by-seqlen", "shortest-completion")
    for policy in ("by-seqlen", "shortest-completion"):
        assert p99(both[policy], "short") <= 0.25 * p99(alone["by-seqlen"], "short")


def test_even_where_threads_scale_almost_perfectly_buckets_beat_one_instance(shorter: Any) -> None:
    *_, one_full, three_full, _, one, three = commands("dual-socket.md")
    alone, both = shorter(one_full, 3)["by-seqlen"], shorter(three_full, 3, "by-seqlen")["by-seqlen"]
    assert (
        1.4 <= both["per_second"] / alone["per_second"] < 2.0
    )  # the page says that the goal of 2 is missed here, and why
    alone, both = shorter(one, 4)["by-seqlen"], shorter(three, 4, "by-seqlen")["by-seqlen"]
    assert p99(both, "short") <= 0.3 * p99(alone, "short")


def test_the_tuned_layout_bears_ten_times_what_the_published_buckets_bear(shorter: Any) -> None:
    three, _, tuned, tuned_full, *_ = commands("tuned.md")
    limit = 15.5  # ms for short text, as the page has it
    assert p99(shorter(three, 2)["by-seqlen"], "short") > 0.8 * limit  # at 1250 per second it just bears it
    alike, full = shorter(tuned, 2)["by-seqlen"], shorter(tuned_full, 0.6)["by-seqlen"]
    assert p99(alike, "short") < 0.3 * limit
    assert full["per_second"] > 9 * alike["per_second"]
    assert p99(full, "short") < limit
    assert full["refused"] == {}


def test_among_192_alike_whoever_is_free_is_right(shorter: Any) -> None:
    steady, _ = commands("eight-sockets.md")
    rows = shorter(steady, 3, "shortest-completion", "least-loaded")
    assert p99(rows["shortest-completion"]) <= 1.1 * p99(rows["least-loaded"])
    # The regression that the study found: noise alone kept idle instances idle, which made it 1.6.
    assert rows["shortest-completion"]["latency"]["p95_ms"] <= 1.3 * rows["least-loaded"]["latency"]["p95_ms"]


def test_when_the_mix_drifts_strict_buckets_drown_and_preferred_ones_do_not(shorter: Any) -> None:
    drift, *_ = commands("drifting-mix.md")
    rows = shorter(drift, 15)
    best = min(p99(row) for row in rows.values())
    assert p99(rows["by-seqlen"]) <= 1.1 * best
    assert p99(rows["shortest-completion"]) <= 1.1 * best
    assert p99(rows["by-seqlen-strict"]) >= 4 * best
    assert p99(rows["round-robin"]) >= 1.5 * best


def test_an_instance_that_has_become_slow_is_shunned_where_finishes_are_predicted(shorter: Any) -> None:
    *_, slow = commands("drifting-mix.md")
    rows = shorter(slow, 10, "by-seqlen", "shortest-completion", "round-robin")
    assert p99(rows["shortest-completion"]) <= 0.1 * p99(rows["round-robin"])


@pytest.mark.parametrize("page", RUN["pages"](), ids=lambda page: page.name)
def test_every_command_of_a_page_has_its_table(page: Path) -> None:
    text = page.read_text()
    tables = [found[2] for found in RUN["BLOCK"].finditer(text)]
    assert len(tables) == text.count("```sh\norchestrator simulate")
    assert all("by-seqlen" in table for table in tables)
