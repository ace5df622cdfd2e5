"""What does `orchestrator simulate` print, and what does it say to wrong arguments?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from orchestrator.bench.rows import LoadRow
from orchestrator.cli.main import main
from orchestrator.config.schema import Policy

SMALL = ["simulate", "--machine", "1x4", "--seconds", "0.5"]


def test_the_table_has_a_row_for_each_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    printed = capsys.readouterr().out
    for policy in get_args(Policy):
        assert f"\n{policy} " in printed


def test_one_policy_is_shown_with_each_of_its_instances(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--policy", "by-seqlen"]) == 0
    assert "\n  short-0        busy" in capsys.readouterr().out


def test_json_is_one_document_with_the_rows_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json", "--policy", "by-seqlen", "round-robin"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["rows"]] == ["by-seqlen", "round-robin"]
    assert set(document["rows"][0]) == set(LoadRow.__struct_fields__)
    assert document["plans"]["by-seqlen"]["instances"][0]["name"] == "short-0"
    assert document["seed"] == 1


def test_the_same_seed_prints_the_same_and_another_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(seed: str) -> str:
        assert main([*SMALL, "--seed", seed]) == 0
        return capsys.readouterr().out

    assert printed("4") == printed("4")
    assert printed("4").splitlines()[-1] != printed("5").splitlines()[-1]


def test_a_trace_is_simulated_for_as_long_as_it_lasts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text("".join(f'{{"time": {at / 100}, "length": 20}}\n' for at in range(200)))
    assert main(["simulate", "--machine", "1x2", "--arrivals", str(trace), "--policy", "by-seqlen", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["seconds"] == pytest.approx(1.991)
    assert document["load"].endswith("200 requests")
    (row,) = document["rows"]
    assert row["latency"]["count"] == 180  # the first tenth of the time is warm-up


def wrong(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    try:
        code = main(["simulate", *arguments])
    except SystemExit as ended:
        code = int(ended.code or 0)
    caught = capsys.readouterr()
    assert caught.out == ""
    return code, caught.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--policy", "fastest"], 2, "invalid choice: 'fastest' (choose from"),
        (["--machine", "24"], 2, "'24' is no machine; write PACKAGESxCORES, such as 2x24"),
        (["--machine", "0x4"], 2, "has no CPU"),
        (["--machine", "999x999"], 2, "at most 4096"),
        (["--machine", "1x4", "--sysroot", "/"], 2, "not allowed with argument"),
        (["--machine", "1x4", "--rate", "0"], 2, "0: more than 0"),
        (["--machine", "1x4", "--rate", "nan"], 2, "nan: more than 0"),
        (["--machine", "1x4", "--rate", "5", "--in-flight", "5"], 2, "not allowed with argument"),
        (["--machine", "1x4", "--instances", "9"], 78, "9 instances"),
        (
            ["--machine", "1x4", "--costs", "/nonexistent.json"],
            2,
            "--costs /nonexistent.json: No such file or directory; there are",
        ),
        (["--machine", "1x4", "--mix", "heavy"], 2, "there are mixed, short, long, uniform, drift"),
        (["--machine", "1x4", "--arrivals", "monthly"], 2, "say poisson, bursty or the name of a trace"),
        (["--machine", "1x4", "--arrivals", "bursty", "--in-flight", "4"], 2, "make no bursts"),
        (["--machine", "1x4", "--max-seqlen", "128"], 2, "has sequences of 482 tokens, the largest instance holds 128"),
        (["--machine", "1x4", "--slow", "short=2"], 2, "no instance 'short'; there are"),
        (["--machine", "1x4", "--slow", "short-0=fast"], 2, "'fast' is not a number"),
        (["--sysroot", "/nonexistent"], 2, "no such file or directory; name the root of a captured tree"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_right(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, said = wrong(arguments, capsys)
    assert ended == code
    assert message in said


def table(folder: Path, **changes: object) -> str:
    path = folder / "costs.json"
    points = [{"threads": 1, "batch": 1, "length": length, "seconds": length * 1e-4} for length in (10, 100)]
    document = {
        "version": 1, "model": "m", "engine": "onnxruntime", "engine_version": "0.1", "precision": "fp32", "cpu": "another CPU",
        "points": points, **changes,
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return str(path)


def test_a_table_of_another_machine_is_refused_for_this_one_and_not_for_an_invented_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    costs = table(tmp_path)
    ended, said = wrong(["--costs", costs, "--seconds", "0.2"], capsys)
    assert ended == 1
    assert "measured on another CPU, the machine is" in said
    assert main(["simulate", "--machine", "1x2", "--instances", "2", "--costs", costs, "--seconds", "0.2"]) == 0


def test_a_table_that_cannot_be_scaled_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended, said = wrong(["--machine", "1x4", "--instances", "1", "--costs", table(tmp_path)], capsys)
    assert ended == 1
    assert "measured with one thread only, and an instance has" in said


def test_a_malformed_trace_is_refused_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_text('{"time": 0, "length": 3}\nsoon\n')
    ended, said = wrong(["--machine", "1x2", "--arrivals", str(trace)], capsys)
    assert ended == 1
    assert f"{trace}:2: " in said
