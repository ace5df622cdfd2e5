"""Does a layout that travels as text come back as the same layout?"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.load import LayoutErrors, load_layout, parse_layout
from orchestrator.config.schema import Layout
from orchestrator.draft import as_text

GOOD = sorted((Path(__file__).parent / "data" / "good").glob("*.yaml"))


def test_there_are_layouts_to_try() -> None:
    assert len(GOOD) > 3


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_layout_comes_back_from_its_text(path: Path) -> None:
    layout = load_layout(path)
    assert parse_layout(as_text(layout).encode(), "text") == layout


def test_the_defaults_come_back_from_their_text() -> None:
    assert parse_layout(as_text(Layout(version=1)).encode(), "text") == Layout(version=1)


def test_what_is_no_layout_does_not() -> None:
    with pytest.raises(LayoutErrors):
        parse_layout(as_text(Layout(version=1)).replace("version", "verzion").encode(), "text")
