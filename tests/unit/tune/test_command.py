"""What does `orchestrator tune` say of a machine that is not this one, and to what cannot be done?"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.tune.search import Effort

TABLE = Path(__file__).parents[3] / "orchestrator" / "simulate" / "tables" / "minilm-int8.json"
TREE = Path(__file__).parents[2] / "data" / "topology" / "two-sockets.tar.gz"
ELSEWHERE = ["tune", "--costs", "minilm-int8", "--machine", "1x4"]


@pytest.fixture(autouse=True)
def _little_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    little = Effort(field=4, rungs=((100, 2),), final_requests=200, final_seeds=1)
    monkeypatch.setattr("orchestrator.tune.session.EFFORT", little)


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(ended.code or 0)
    captured = capsys.readouterr()
    assert captured.out == "", "what cannot be done prints no layout"
    return code, captured.err


def test_the_layout_goes_to_standard_output_and_everything_else_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(ELSEWHERE) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("# Found by `orchestrator tune` on ")
    assert "\nversion: 1\n" in captured.out
    assert "Nothing of this was measured by serving" in captured.out
    assert "worked out from minilm-int8, measured on Intel" in captured.out
    assert "goal: the highest rate" in captured.err


def test_a_layout_for_another_machine_passes_its_check_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tarfile.open(TREE) as archive:
        archive.extractall(tmp_path / "tree", filter="data")
    captured = next(path.parent for path in (tmp_path / "tree").rglob("sys") if path.is_dir())
    out = tmp_path / "l.yaml"
    assert main(["tune", "--costs", "minilm-int8", "--sysroot", str(captured), "--out", str(out)]) == 0
    assert main(["check", str(out), "--sysroot", str(captured)]) == 0


def test_json_is_one_document_with_the_layout_and_every_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ELSEWHERE, "--json", "--mix", "short", "--goal", "latency", "--rate", "50"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layout"].startswith("# Found by")
    assert document["goal"] == "latency"
    assert document["load"] == {"rate": 50.0, "in_flight": None}
    assert sum(one["chosen"] for one in document["candidates"]) == 1
    assert sum(one["default"] for one in document["candidates"]) == 1
    assert all(one["served"] is None for one in document["candidates"])


def test_equal_seeds_find_equal_layouts(capsys: pytest.CaptureFixture[str]) -> None:
    def found(seed: str) -> object:
        assert main([*ELSEWHERE, "--json", "--seed", seed]) == 0
        document = json.loads(capsys.readouterr().out)
        return document["candidates"]

    assert found("7") == found("7")


def test_a_file_is_written_whole_and_one_that_exists_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "l.yaml"
    assert main([*ELSEWHERE, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"orchestrator up --layout {out}" in captured.err
    first = out.read_text()
    assert first.startswith("# Found by")
    code, words = said([*ELSEWHERE, "--out", str(out)], capsys)
    assert (code, "say --force" in words) == (2, True)
    out.write_text("mine")
    assert main([*ELSEWHERE, "--out", str(out), "--force"]) == 0
    assert out.read_text() != "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["l.yaml"]


def test_a_folder_that_cannot_be_written_is_found_out_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.tune.search", lambda *_: pytest.fail("the search began"))
    code, words = said([*ELSEWHERE, "--out", str(tmp_path / "no" / "l.yaml")], capsys)
    assert (code, "cannot be written" in words) == (2, True)
    assert said([*ELSEWHERE, "--out", str(tmp_path)], capsys)[0] == 2


def test_a_disk_that_is_full_costs_the_file_and_not_the_layout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ELSEWHERE, "--out", "/dev/full"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("# Found by")
    assert "/dev/full: not written: No space left on device" in captured.err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--machine", "2x24"], 2, "say --costs as well"),
        (["--sysroot", "/"], 2, "say --costs as well"),
        (["--costs", "minilm-int8", "--model", "x"], 2, "leave --model"),
        (["--any-costs"], 2, "--any-costs goes with --costs"),
        (["--force"], 2, "--force goes with --out"),
        ([*ELSEWHERE[1:], "--rate", "5"], 2, "leave --rate out"),
        ([*ELSEWHERE[1:], "--goal", "latency"], 2, "at which load?"),
        ([*ELSEWHERE[1:], "--goal", "speed"], 2, "invalid choice"),
        ([*ELSEWHERE[1:], "--rate", "5", "--in-flight", "2"], 2, "not allowed with"),
        ([*ELSEWHERE[1:], "--in-flight", "0"], 2, "from 1 to 4096"),
        ([*ELSEWHERE[1:], "--p99-ms", "0"], 2, "more than 0"),
        ([*ELSEWHERE[1:], "--seconds", "nan"], 2, "more than 0"),
        ([*ELSEWHERE[1:], "--mix", "nothing-of-this-name"], 2, "there are mixed, short"),
        (["--costs", "minilm-int8", "--machine", "0x4"], 2, "has no CPU"),
        (["--costs", "minilm-int8", "minilm-int8", "--machine", "1x4"], 2, "two tables of int8 on onnxruntime"),
        (["--costs", "minilm-int8", "bert-base-int8", "--machine", "1x4"], 2, "of different models"),
        (["--costs", "/nowhere/costs.json", "--machine", "1x4"], 2, "No such file"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_to_do(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, words = said(["tune", *arguments], capsys)
    assert (found, says in words) == (code, True), words


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("12\nmany\n", 1, ":2: "),
        ("", 1, "nothing in it"),
        ("12\n900\n", 2, "say --max-seqlen 900"),
        ('{"time": 0, "length": 600}\n', 2, "say --max-seqlen 600"),
        ('{"classes": 3}', 1, "not a mix"),
    ],
)
def test_lengths_that_cannot_be_read_or_served_are_named(
    text: str, code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lengths"
    path.write_text(text)
    found, words = said([*ELSEWHERE, "--mix", str(path)], capsys)
    assert (found, says in words) == (code, True), words


def test_costs_of_another_cpu_are_refused_unless_it_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "costs.json"
    table = json.loads(TABLE.read_text())
    path.write_text(json.dumps({**table, "cpu": "another CPU"}))
    code, words = said(["tune", "--costs", str(path)], capsys)
    assert (code, "measured on another CPU" in words) == (1, True)
    assert main(["tune", "--costs", str(path), "--any-costs", "--mix", "short"]) == 0
    capsys.readouterr()
    path.write_text("{}")
    assert said(["tune", "--costs", str(path), "--machine", "1x2"], capsys)[0] == 1


def test_one_core_is_no_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--costs", "minilm-int8", "--machine", "1x1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["chosen"] == document["default"]
