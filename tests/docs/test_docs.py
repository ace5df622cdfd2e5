"""Do README and docs say what the program does?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.cli.main import COMMANDS, main
from orchestrator.supervisor.states import diagram

ROOT = Path(__file__).parents[2]
PROSE = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def test_the_readme_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"^\| `orchestrator ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_each_of_its_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: orchestrator" in printed
    assert "None" not in printed


def test_the_diagram_of_states_is_the_table_of_the_code() -> None:
    assert diagram() in (ROOT / "docs" / "architecture.md").read_text()


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_that_exists(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("target", ["up", "test", "bench-overhead", "lock"])
def test_every_make_target_that_the_prose_names_exists(target: str) -> None:
    assert any(f"make {target}" in page.read_text() for page in PROSE)
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
