"""In how many ways can a worker die under load, and what does the operator read afterwards? Nothing that was accepted is lost in any."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]


def restarted(system: Any, name: str, count: int = 1) -> Any:
    """The status of an instance that has died `count` times and is back."""

    def back(status: Any) -> bool:
        return any(one.name == name and one.restarts == count and one.state == "ready" for one in status.instances)

    status = system.until(f"{name} is back for the {count}. time", back)
    return next(one for one in status.instances if one.name == name)


def test_a_segmentation_fault_loses_no_request(
    start_system: Start, load_on: Callable[[Any], Any], all_right: Any
) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start()
    load.until_answered(20)
    os.kill(system.pids()["short-0"], signal.SIGSEGV)
    load.until_answered(20)
    assert "SIGSEGV" in restarted(system, "short-0").last_error
    load.until_answered(20)
    all_right(load.stop())


def test_an_exit_in_the_middle_of_a_batch_loses_no_request(
    start_system: Start, load_on: Callable[[Any], Any], faults: Any, all_right: Any
) -> None:
    system = start_system("--instances", "2", environment=faults.environment)
    load = load_on(system)
    load.start()
    load.until_answered(20)
    for deaths in (1, 2):
        faults.want("exit-in-batch")
        load.until_answered(20)
        system.until("a worker died and is back", lambda status, deaths=deaths: (
            sum(one.restarts for one in status.instances) == deaths
            and all(one.state == "ready" for one in status.instances)
        ))  # fmt: skip
        assert faults.happened("exit-in-batch")
    load.until_answered(20)
    all_right(load.stop())
    status = system.until("settled", lambda status: status.router.settled == status.router.submitted)
    assert any("exit 7" in (one.last_error or "") for one in status.instances)
    assert status.router.retried > 0


def test_a_request_that_kills_two_workers_gets_no_third(
    start_system: Start, load_on: Callable[[Any], Any], faults: Any, all_right: Any
) -> None:
    """The text is one token, 4028 in the vocabulary of BERT, between [CLS] and [SEP]."""
    system = start_system("--instances", "2", environment=faults.environment)
    load = load_on(system)
    load.start()
    load.until_answered(20)
    faults.want("exit-on-tokens", "101 4028 102")
    code, _, body = system.post("/embed", {"inputs": "murder"})
    assert code == 424
    assert "2 workers died" in body["error"]
    system.until("both are back", lambda status: (
        sum(one.restarts for one in status.instances) == 2 and all(one.state == "ready" for one in status.instances)
    ))  # fmt: skip
    load.until_answered(20)
    all_right(load.stop())


class Cgroup:
    """A memory cgroup of its own, of either version."""

    def __init__(self, folder: Path, limit: str, counts: str) -> None:
        self.folder = folder
        self.limit = folder / limit
        self.counts = folder / counts

    def hold(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    own = dict(line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    name = f"orchestrator-test-{os.getpid()}"
    places = [
        (Path("/sys/fs/cgroup/memory") / own.get("memory", "/").strip("/"), "memory.limit_in_bytes", "memory.oom_control"),
        (Path("/sys/fs/cgroup") / own.get("", "/").strip("/"), "memory.max", "memory.events"),
    ]  # fmt: skip
    for parent, limit, counts in places:
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        made = Cgroup(folder, limit, counts)
        if made.limit.exists():
            yield made
            deadline = time.monotonic() + 10
            while True:
                try:
                    folder.rmdir()  # busy until the kernel has buried what was in it
                except OSError:
                    assert time.monotonic() < deadline, f"{folder} cannot be removed"
                    time.sleep(0.05)
                else:
                    return
        folder.rmdir()
    pytest.skip("no memory cgroup can be made here (it takes root and a controller that is delegated)")


def test_a_worker_that_runs_out_of_memory_is_replaced_and_the_kernel_is_quoted(
    start_system: Start, load_on: Callable[[Any], Any], cgroup: Cgroup, all_right: Any
) -> None:
    system = start_system("--instances", "2")
    load = load_on(system)
    load.start()
    load.until_answered(20)
    cgroup.hold(system.pids()["long-0"])
    system.status()
    cgroup.limit.write_text("4096")
    back = restarted(system, "long-0")
    assert "SIGKILL: killed, probably out of memory" in back.last_error
    assert f"oom_kill in {cgroup.counts} rose from 0 to 1, the limit is 0 MiB" in back.last_error
    load.until_answered(20)
    all_right(load.stop())


def test_a_kill_by_hand_is_not_taken_for_want_of_memory(start_system: Start) -> None:
    system = start_system("--instances", "1")
    os.kill(system.pids()["all-0"], signal.SIGKILL)
    assert "memory" not in restarted(system, "all-0").last_error


def test_a_model_that_vanishes_between_plan_and_spawn_ends_the_start_with_its_name(
    start_system: Start, faults: Any, model_cache: Path, tmp_path: Path
) -> None:
    start_system("--instances", "1", runtime="before").stop()  # the cache holds the model
    cache = tmp_path / "cache"
    shutil.copytree(model_cache, cache)
    faults.want("vanish", str(cache))
    system = start_system(
        "--instances", "1", "--cache-dir", str(cache), environment=faults.environment, ready=False
    )  # fmt: skip
    code = system.process.wait(60)
    said = system.said()
    assert code == 1
    assert "Traceback" not in said
    assert re.search(
        rf"orchestrator up: .* failed after 3 tries: exit 1: {re.escape(str(cache))}/.*the next `orchestrator up`", said
    )
    (faults.folder / "vanish").unlink()
    again = start_system("--instances", "1", "--cache-dir", str(cache), runtime="again")
    assert len(again.embed("the model is made anew")) == 384


def test_a_model_that_vanishes_under_a_running_system_leaves_the_others_serving(
    start_system: Start, load_on: Callable[[Any], Any], model_cache: Path, tmp_path: Path, all_right: Any
) -> None:
    start_system("--instances", "1", runtime="before").stop()
    cache = tmp_path / "cache"
    shutil.copytree(model_cache, cache)
    system = start_system("--instances", "2", "--cache-dir", str(cache))
    load = load_on(system)
    load.start()
    load.until_answered(20)
    cache.rename(tmp_path / "away")
    os.kill(system.pids()["long-0"], signal.SIGKILL)
    status = system.until(
        "it fails to come back", lambda status: any(str(cache) in warning for warning in status.warnings)
    )
    assert status.state == "degraded"
    load.until_answered(20)
    (tmp_path / "away").rename(cache)
    system.until("it is back", lambda status: status.state == "ready")
    load.until_answered(20)
    all_right(load.stop())
