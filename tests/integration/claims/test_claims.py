"""Do two processes of one host keep out of each other's cores?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.claims import ClaimError, Claims

HOLDER = """
import sys
from orchestrator.claims import Claims
claims = Claims(sys.argv[1])
claims.claim([3, 4])
print("holding", flush=True)
sys.stdin.read()
"""


def test_what_another_process_holds_is_named_with_its_pid_and_free_when_it_is_killed(tmp_path: Path) -> None:
    scope = tmp_path.name
    other = subprocess.Popen([sys.executable, "-c", HOLDER, scope], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdin is not None
    with closing(Claims(scope)) as claims:
        assert other.stdout.readline() == b"holding\n"
        said = f"another orchestrator (pid {other.pid}, user {os.getuid()})"
        assert claims.taken([2, 3, 4, 5]) == {3: said, 4: said}
        with pytest.raises(ClaimError, match="CPU 4 is held by another orchestrator"):
            claims.claim([4, 5])
        assert claims.taken([5]) == {}
        other.kill()
        other.wait(10)
        assert claims.taken([3, 4]) == {}
        claims.claim([4, 5])
    other.stdin.close()
    other.stdout.close()


def test_a_refused_claim_takes_nothing(tmp_path: Path) -> None:
    with closing(Claims(tmp_path.name)) as first, closing(Claims(tmp_path.name)) as second:
        first.claim([7])
        with pytest.raises(ClaimError):
            second.claim([5, 6, 7])
        first.claim([5, 6])


def test_being_asked_often_does_not_wear_a_claim_out(tmp_path: Path) -> None:
    with closing(Claims(tmp_path.name)) as holder, closing(Claims(tmp_path.name)) as asker:
        holder.claim([1])
        for _ in range(200):
            assert 1 in asker.taken([1])
            holder.attend()
        assert f"pid {os.getpid()}" in asker.taken([1])[1]


def test_a_second_orchestrator_does_not_take_the_cores_of_the_first(start_system: Callable[..., Any]) -> None:
    world = {"ORCHESTRATOR_CLAIM_SCOPE": "two-on-one-host"}
    first = start_system("--instances", str(len(os.sched_getaffinity(0))), environment=world)
    second = start_system("--instances", "1", runtime="second", ready=False, environment=world)
    assert second.process.wait(60) == 1
    assert f"pid {first.process.pid}" in second.said()
    plan = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "plan", "--json"],
        env={**os.environ, **world}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert f"are held by another orchestrator (pid {first.process.pid}" in plan.stdout
    assert len(first.embed("not disturbed")) == 384
    assert first.stop() == 0
    third = start_system("--instances", "1", runtime="third", environment=world)
    assert len(third.embed("free again")) == 384


def test_what_is_let_go_is_free_for_others_and_the_rest_is_not(tmp_path: Path) -> None:
    with closing(Claims(tmp_path.name)) as first, closing(Claims(tmp_path.name)) as second:
        first.claim([1, 2, 3])
        first.keep_only([2, 9])
        assert first.held == {2}
        assert set(second.taken([1, 2, 3])) == {2}
        second.claim([1, 3])
        first.attend()
