"""Does `orchestrator tune` end with a layout that serves, whatever dies on the way, and leave nothing behind?"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from orchestrator.bench.cells import Subject
from orchestrator.claims import Claims
from orchestrator.cli.bar import Bar
from orchestrator.cli.main import main
from orchestrator.models.progress import Step
from orchestrator.tune.search import Effort
from orchestrator.tune.session import subjects_of

tiny: Any = runpy.run_path(str(Path(__file__).parents[2] / "data" / "models" / "tiny_models.py"))
LITTLE = Effort(field=6, rungs=((150, 3),), final_requests=300, final_seeds=1)
DEADLINE = 60.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny["write"](tmp_path_factory.mktemp("models") / "tiny", tiny["CASES"]["bert-mean-normalised"]))


@pytest.fixture(autouse=True)
def _short_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Little of everything; on a machine that others use as well, what is measured is kept all the same."""
    monkeypatch.setenv("ORCHESTRATOR_CLAIM_SCOPE", str(tmp_path)[-60:])
    monkeypatch.setattr("orchestrator.tune.session.EFFORT", LITTLE)
    monkeypatch.setattr("orchestrator.tune.measure.USUAL_SECONDS", 0.05)
    monkeypatch.setattr("orchestrator.tune.verify.ROUNDS", 2)
    monkeypatch.setattr("orchestrator.tune.verify.USUAL_ROUND_SECONDS", 0.4)
    monkeypatch.setattr("orchestrator.tune.verify._WARM_UP_SECONDS", 0.2)
    for limit in ("NOISY", "DISTURBED"):
        monkeypatch.setattr(f"orchestrator.bench.cells.{limit}", 1e9)


@pytest.fixture
def tune(cache: Path, model: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`tune` with these words → exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        before = signal.getsignal(signal.SIGTERM)
        try:
            code = main(["tune", "--model", model, "--cache-dir", str(cache), *map(str, words)])
        finally:
            signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def children() -> set[int]:
    """Pids of all that live below this process: other tests share systems that go on running."""
    return {each.pid for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE}


def test_the_layout_that_is_found_is_served_and_a_second_tune_measures_nothing(
    tune: Any, tmp_path: Path, model: str, start_system: Any
) -> None:
    out = tmp_path / "best.yaml"
    before = children()
    code, printed, said = tune("--precision", "fp32", "--json", "--out", out)
    assert code == 0, said
    found = json.loads(printed)
    assert found["layout"] == out.read_text()
    assert found["layout"].startswith("# Found by `orchestrator tune` on ")
    served = [one for one in found["candidates"] if one["served"] is not None]
    assert len(served) >= 2, said
    for one in served:
        assert one["served"]["figures"]["per_second"] > 0
        assert one["served"]["figures"]["refused"] == 0
        assert len(one["served"]["rounds"]) == 2
    assert next(one for one in served if one["default"])["served"]["ratio_to_default"] == 1.0
    assert main(["check", str(out)]) == 0
    assert children() <= before

    system = start_system("--layout", str(out))
    assert len(system.embed("a text for the layout that was found")) > 0
    running = {one.name: one.cpus for one in system.status().instances}
    chosen = next(one for one in found["candidates"] if one["chosen"])
    assert running == {one["name"]: one["cpus"] for one in chosen["instances"]}
    assert system.stop() == 0

    code, again, said = tune("--precision", "fp32", "--no-verify", "--mix", "mixed", "--goal", "latency", "--rate", "5")
    assert code == 0
    assert "everything needed was measured before" in said
    assert "Not served" in again


def test_a_measuring_process_that_is_killed_costs_its_cell_and_is_said(
    tune: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed: list[int] = []

    def show(_: Bar, step: Step) -> None:
        if step.what.startswith("measuring") and step.done >= 2 and not killed:
            process = next(each for each in psutil.Process().children() if "cell_process" in " ".join(each.cmdline()))
            killed.append(process.pid)
            process.kill()

    monkeypatch.setattr(Bar, "show", show)
    code, printed, said = tune(
        "--precision", "fp32", "--no-verify", "--cache-dir", tmp_path / "fresh", "--mix", "short"
    )
    assert code == 0, said
    assert killed
    assert f"(pid {killed[0]}) was ended by SIGKILL" in said
    assert "version: 1" in printed


def test_a_form_that_does_not_load_is_left_out_and_the_rest_goes_on(
    tune: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def with_one_harmed(*arguments: Any) -> list[Subject]:
        first, *others = subjects_of(*arguments)
        harmed = {
            node: msgspec.structs.replace(one, path="/nowhere/model.onnx") for node, one in first.artefacts.items()
        }
        return [msgspec.structs.replace(first, artefacts=harmed), *others]

    monkeypatch.setattr("orchestrator.tune.session.subjects_of", with_one_harmed)
    monkeypatch.setattr("orchestrator.tune.session.contenders", list)
    code, printed, said = tune(
        "--engine", "onnxruntime", "--no-verify", "--mix", "short", "--json", "--cache-dir", tmp_path
    )
    assert code == 0, said
    assert "fp32 on onnxruntime is left out" in said
    assert {one["form"] for each in json.loads(printed)["candidates"] for one in each["instances"]} == {
        "int8 on onnxruntime"
    }


def test_where_nothing_loads_there_is_no_layout(tune: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def harmed(*arguments: Any) -> list[Subject]:
        return [
            msgspec.structs.replace(
                each,
                artefacts={node: msgspec.structs.replace(one, path="/nowhere") for node, one in each.artefacts.items()},
            )
            for each in subjects_of(*arguments)
        ]

    monkeypatch.setattr("orchestrator.tune.session.subjects_of", harmed)
    out = tmp_path / "l.yaml"
    code, printed, said = tune("--precision", "fp32", "--out", out, "--cache-dir", tmp_path / "fresh")
    assert (code, printed) == (1, "")
    assert "nothing could be measured" in said
    assert not out.exists()


def test_an_orchestrator_that_holds_the_cores_is_named_and_left_alone(
    tune: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.tune.prepare", lambda *_, **__: pytest.fail("it went on"))
    with closing(Claims(os.environ["ORCHESTRATOR_CLAIM_SCOPE"])) as claims:
        held = sorted(os.sched_getaffinity(0))[0]
        claims.claim([held])
        code, printed, said = tune()
    assert (code, printed) == (1, "")
    assert f"CPU {held} is held by another orchestrator (pid {os.getpid()}" in said
    assert "stop it first" in said


def test_a_budget_that_is_too_small_says_the_least(tune: Any) -> None:
    code, printed, said = tune("--precision", "fp32", "--seconds", "1", "--max-seqlen", "36")
    assert (code, printed) == (2, "")
    assert "at least" in said
    assert "--no-verify leaves that out" in said


def test_ctrl_c_while_measuring_leaves_no_process_and_no_file(model: str, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "tune", "--model", model, "--cache-dir", str(cache), "--precision", "fp32",
         "--max-seqlen", "42", "--out", str(folder / "l.yaml")],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    watched = psutil.Process(process.pid)
    children: list[psutil.Process] = []
    deadline = time.monotonic() + DEADLINE
    while not any("cell_process" in " ".join(each.cmdline()) for each in children):
        assert process.poll() is None
        assert time.monotonic() < deadline, "nothing was measured"
        threading.Event().wait(0.01)
        children = [each for each in watched.children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    assert printed == b""
    _, alive = psutil.wait_procs(children, timeout=DEADLINE)
    assert alive == []
    assert list(folder.iterdir()) == []
