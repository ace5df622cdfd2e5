"""Does an engine leave anything behind, or tell anybody? Both would, if they were not told otherwise before they are imported."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = {
    "a worker's onnxruntime": "from workers.engines import onnxruntime",
    "the makers of models": "import orchestrator.models, onnxruntime",
    "openvino": "import workers.engines, openvino; openvino.Core()",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_engine_writes_nothing_into_the_home_of_its_user(program: str, home: Path) -> None:
    if program == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra openvino is not installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    # Where a continuous integration is recognised they are silent by themselves, and this would prove nothing.
    for name in ("CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-c", PROGRAMS[program]], env={**environment, "HOME": str(home)}, check=True)
    assert [str(path) for path in home.rglob("*")] == []


def test_a_run_writes_nothing_into_the_home_of_its_user(start_system: Callable[..., Any], home: Path) -> None:
    system = start_system("--instances", "1", environment={"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")})
    system.embed("nobody else needs to know")
    assert system.stop() == 0
    assert [str(path) for path in home.rglob("*")] == []
