"""Does an orchestrator that a benchmark started outlive it?"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.bench.running import DidNotStart, running

ONE = ["--instances", "1", "--max-seqlen", "32"]
HOLDS_ONE = """
import sys
from pathlib import Path
from orchestrator.bench.running import running
with running(sys.argv[2:], Path(sys.argv[1])) as one:
    print(one.pid, one.runtime, flush=True)
    sys.stdin.read()
"""


def test_it_dies_with_a_benchmark_that_is_killed(model_cache: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS_ONE, str(model_cache), *ONE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as benchmark:
        assert benchmark.stdout is not None
        pid, _, _ = benchmark.stdout.readline().partition(" ")
        supervisor = psutil.Process(int(pid))
        all_of_it = [supervisor, *supervisor.children(recursive=True)]
        assert len(all_of_it) >= 4
        benchmark.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(all_of_it, timeout=30)
        assert [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE] == []


def test_what_cannot_start_is_told_in_its_own_words(model_cache: Path) -> None:
    with (
        pytest.raises(DidNotStart, match="--max-seqlen 9999 is more than the model can take"),
        running(["--max-seqlen", "9999"], model_cache),
    ):
        pass
