"""Does `orchestrator bench matrix` measure what it was asked, give it out in each form, and refuse the rest before it measures?"""

from __future__ import annotations

import csv
import io
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.bench.cells import MatrixRow
from orchestrator.claims import Claims
from orchestrator.cli.main import main
from orchestrator.simulate.costs import TrueCosts, decode_costs
from topology.sysfs import read_machine

tiny: Any = runpy.run_path(str(Path(__file__).parents[2] / "data" / "models" / "tiny_models.py"))
QUICK = [
    "--precision",
    "fp32",
    "--engine",
    "onnxruntime",
    "--cores",
    "1",
    "--instances",
    "1",
    "--seconds",
    "0.05",
    "--rounds",
    "1",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("matrix")
    tiny["write"](root / "tiny", tiny["CASES"]["bert-cls"])
    return {"model": str(root / "tiny"), "cache": str(root / "cache"), "scope": str(root)[-60:]}


@pytest.fixture
def bench(world: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("ORCHESTRATOR_CLAIM_SCOPE", world["scope"])

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["bench", "matrix", "--model", world["model"], "--cache-dir", world["cache"], *QUICK, *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_json_is_one_document_with_environment_settings_and_rows(bench: Any, world: dict[str, str]) -> None:
    code, out, _ = bench("--lengths", "8,16", "--batches", "1,2", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["benchmark"] == "matrix"
    assert [(row["batch"], row["length"]) for row in document["rows"]] == [(1, 8), (1, 16), (2, 8), (2, 16)]
    assert set(document["rows"][0]) == set(MatrixRow.__struct_fields__)
    assert document["lost"] == []
    assert document["settings"]["model"] == world["model"]
    environment = document["environment"]
    assert environment["cpu"]
    assert environment["kernel"] == os.uname().release
    assert {"orchestrator", "onnxruntime", "numpy"} <= set(environment["versions"])
    assert environment["load_average_before"] >= 0.0


def test_the_table_csv_the_page_and_the_cost_table_say_the_same(bench: Any, tmp_path: Path) -> None:
    sheet, page, costs = tmp_path / "r.csv", tmp_path / "r.html", tmp_path / "costs.json"
    code, out, _ = bench(
        "--lengths", "8,16", "--batches", "1", "--out", str(sheet), "--html", str(page), "--costs-out", str(costs)
    )  # fmt: skip
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(sheet.read_text())))
    assert [row["length"] for row in rows] == ["8", "16"]
    assert f"{float(rows[0]['sequences_per_second']):.1f}" in out
    assert f"{float(rows[0]['sequences_per_second']):.1f}" in page.read_text()
    file = decode_costs(costs.read_bytes(), "costs")
    assert [(point.threads, point.batch, point.length) for point in file.points] == [(1, 1, 8), (1, 1, 16)]
    assert [point.seconds for point in file.points] == pytest.approx(
        [float(row["min_ms"]) / 1e3 for row in rows], abs=1e-6
    )
    assert TrueCosts(file).seconds(1, False, 1, 12) > 0.0


def test_csv_goes_to_standard_output_alone(bench: Any) -> None:
    code, out, _ = bench("--lengths", "8", "--batches", "1", "--csv")
    assert code == 0
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["engine"], row["precision"], row["instances"], row["cores"]) == ("onnxruntime", "fp32", "1", "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cores", "4000"], "an instance of 4000 cores does not fit: no node has more than"),
        (["--instances", "4000"], "4000 instances of 1 core do not fit: there is room for"),
        (["--lengths", "45"], "takes 44 tokens; say --max-seqlen 45"),
        (["--lengths", "4096"], "takes 44 tokens; choose at most 48, its positions"),
        (["--out", "/nowhere/r.json"], "--out /nowhere/r.json: cannot be written: No such file or directory"),
        (["--html", "/"], "--html /: is a directory"),
        (["--costs-out", "/nowhere/c.json"], "--costs-out /nowhere/c.json: cannot be written"),
        (["--costs-out", "c.json", "--lengths", "8"], "it takes two lengths or more"),
        (["--costs-out", "c.json", "--cores", "2"], "take 1 into --cores"),
        (["--precision", "int8", "--engine", "openvino"], "int8 runs on onnxruntime, bf16 on openvino, fp32 on both"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name_before_anything_is(
    bench: Any, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--cores" in arguments and arguments[-1] == "2" and len(read_machine().cpus) < 2:
        pytest.skip("one core")
    monkeypatch.chdir(tmp_path)
    code, out, err = bench(*arguments)
    assert code in (2, 78)
    assert said in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batches", "0"], "0: from 1 to"),
        (["--lengths", ""], "an item is empty"),
        (["--lengths", "8,,16"], "an item is empty"),
        (["--lengths", "8;16"], "'8;16' is not a whole number"),
        (["--cores", "none"], "'none' is not a whole number"),
        (["--precision", "fp64"], "choose from auto, fp32, bf16, int8"),
        (["--seconds", "nan"], "more than 0"),
        (["--json", "--csv"], "not allowed with argument"),
    ],
)
def test_words_that_are_no_numbers_are_wrong_usage(
    bench: Any, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench(*arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_file_that_exists_is_kept_unless_it_is_forced(bench: Any, tmp_path: Path) -> None:
    there = tmp_path / "r.json"
    there.write_text("mine")
    code, out, err = bench("--out", str(there))
    assert (code, out, there.read_text()) == (2, "", "mine")
    assert "say --force" in err


def test_a_full_disk_costs_the_file_and_not_the_figures(bench: Any) -> None:
    code, out, err = bench("--lengths", "8", "--batches", "1", "--out", "/dev/full")
    assert code == 1
    assert "fp32 onnxruntime" in out
    assert "--out /dev/full: not written: No space left on device" in err


def test_cores_of_a_running_orchestrator_are_left_alone(bench: Any, world: dict[str, str]) -> None:
    claims = Claims(world["scope"])
    try:
        claims.claim(cpu.cpu for cpu in read_machine().cpus if cpu.allowed)
        code, out, err = bench("--lengths", "8")
    finally:
        claims.close()
    # The holder is this very process; it is named as any other would be.
    assert (code, out) == (1, "")
    assert f"no core is free: another orchestrator (pid {os.getpid()}" in err


def test_interrupted_it_prints_what_it_has_and_leaves_no_process(world: dict[str, str]) -> None:
    arguments = ["--lengths", "8,16,32", "--batches", "1", "--seconds", "600", "--rounds", "100", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "bench", "matrix", "--model", world["model"], "--cache-dir",
         world["cache"], *QUICK, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "ORCHESTRATOR_CLAIM_SCOPE": world["scope"]},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while " cells: " not in (line := process.stderr.readline()):
            assert line, "it ended before it measured"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    document = json.loads(out)
    assert "interrupted: not all was measured" in document["environment"]["warnings"]
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, check=False)
    assert found.stdout == b""


def test_killed_it_leaves_no_process(world: dict[str, str]) -> None:
    arguments = ["--lengths", "8", "--batches", "1", "--seconds", "600", "--rounds", "1"]
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "bench", "matrix", "--model", world["model"], "--cache-dir",
         world["cache"], *QUICK, *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "ORCHESTRATOR_CLAIM_SCOPE": world["scope"]},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while " cells: " not in (line := process.stderr.readline()):
            assert line, "it ended before it measured"
        deadline = time.monotonic() + 30
        while not (children := psutil.Process(process.pid).children()):
            assert time.monotonic() < deadline, "no measuring process was started"
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


def test_a_reader_that_has_seen_enough_costs_no_file(world: dict[str, str], tmp_path: Path) -> None:
    sheet = tmp_path / "r.csv"
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["--lengths", "8", "--batches", "1", "--out", str(sheet)]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "bench", "matrix", "--model", world["model"], "--cache-dir",
         world["cache"], *QUICK, *arguments],
        stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        env={**os.environ, "ORCHESTRATOR_CLAIM_SCOPE": world["scope"]},
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert len(sheet.read_text().splitlines()) == 2
