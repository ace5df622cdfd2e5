"""Does a minute of random deaths under load lose anything? The same program as `make soak`, shorter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "soak"


@pytest.mark.timeout(180)
def test_a_minute_of_random_deaths_loses_nothing_and_leaves_nothing_behind(model_cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "orchestrator.log"
    # The five seconds of the promise hold on cores that nobody else uses; those of a test run may be anybody's.
    done = subprocess.run(
        [sys.executable, str(SOAK), "--seconds", "50", "--kills", "17", "--seed", "165", "--json", "--back-within", "30",
         "--cache-dir", str(model_cache), "--log", str(log)],
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    said = f"{done.stdout[-3000:]}\n{done.stderr[-2000:]}\n{log.read_text()[-3000:] if log.exists() else ''}"
    assert done.returncode == 0, said
    result = json.loads(done.stdout)
    assert result["complaints"] == []
    assert result["lost"] == result["wrong"] == 0
    assert result["answered"] > 1000, said
    assert sum(result["deaths"].values()) >= 17
    assert result["operations"], said
