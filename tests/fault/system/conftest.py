"""What do tests of deaths share? Faults inside the program, folders that are full, and the verdict on what clients saw."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

INJECT = Path(__file__).parent / "inject"


class Faults:
    """A folder whose files make a started program fail; see inject/sitecustomize.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        paths = [str(INJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {"PYTHONPATH": os.pathsep.join(paths), "FAULTS": str(folder)}

    def want(self, name: str, content: str = "") -> None:
        """Whole at once: a reader never sees half of it."""
        made = self.folder / f".{name}"
        made.write_text(content)
        made.rename(self.folder / name)

    def happened(self, name: str) -> bool:
        return not (self.folder / name).exists()


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path / "faults")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`mounted("size=8m")`: a new file system in memory. Skips where mounting is not allowed."""
    points: list[Path] = []

    def mount(options: str) -> Path:
        point = tmp_path / f"mount-{len(points)}"
        point.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "test", str(point)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        points.append(point)
        return point

    yield mount
    for point in points:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


@pytest.fixture
def all_right() -> Callable[[list[Any]], None]:
    """Every request of a load was answered, and rightly."""

    def check(outcomes: list[Any]) -> None:
        assert len(outcomes) > 0
        assert [outcome for outcome in outcomes if outcome.code != 200] == []
        assert [outcome for outcome in outcomes if outcome.wrong] == []

    return check
