"""Do servers that are compared have names of their own?"""

from __future__ import annotations

from pathlib import Path

from orchestrator.cli.bench_servers import _short


def test_a_layout_is_named_by_its_file_unless_another_has_the_same_name() -> None:
    one, other, third = Path("a/dual.yaml"), Path("b/dual.yaml"), Path("b/single.yaml")
    assert [_short(each, [one, other, third]) for each in (one, other, third)] == [
        "a/dual.yaml",
        "b/dual.yaml",
        "single",
    ]
