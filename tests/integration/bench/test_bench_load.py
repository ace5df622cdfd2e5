"""Does `orchestrator bench load` measure a real server, and refuse those that it cannot measure before it begins?"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bench import knee
from orchestrator.bench.rows import LoadRow
from orchestrator.claims import Claims
from orchestrator.cli.main import main
from topology.sysfs import read_machine

QUICK = ["--mix", "short", "--seconds", "0.4", "--warmup", "0.1"]


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["bench", "load", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_a_running_server_is_measured_at_rates_and_its_answers_say_who_gave_them(
    bench: Any, shared_system: Any, tmp_path: Path
) -> None:
    page = tmp_path / "load.html"
    code, out, _ = bench(
        "--url", f"http://127.0.0.1:{shared_system.port}", "--rate", "20,40", *QUICK, "--json", "--html", str(page)
    )
    assert code == 0
    document = json.loads(out)
    assert document["benchmark"] == "load"
    assert [row["load"] for row in document["rows"]] == ["20/s", "40/s"]
    for row in document["rows"]:
        assert set(row) == set(LoadRow.__struct_fields__)
        assert row["refused"] == {}
        assert row["latency"]["count"] == sum(of["count"] for of in row["served_by"].values()) > 0
        assert set(row["served_by"]) <= {"short-0", "long-0"}
        assert set(row["stages"]) == {"tokenize", "queue", "inference", "post"}
        assert row["stages"]["inference"]["p50_ms"] <= row["latency"]["p50_ms"]
        assert row["lag_p99_ms"] >= 0.0
        assert row["batch_mean"] >= 1.0
    assert document["settings"]["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "Latency of all requests" in page.read_text()


def test_several_policies_are_started_and_compared_in_turns(
    bench: Any, model_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CLAIM_SCOPE", str(tmp_path)[-60:])
    code, out, _ = bench(
        "--policy", "by-seqlen,round-robin", "--instances", "2", "--in-flight", "2", "--rounds", "2", *QUICK, "--json",
        "--cache-dir", str(model_cache),
    )  # fmt: skip
    assert code == 0
    document = json.loads(out)
    assert [(row["name"], row["rounds"]) for row in document["rows"]] == [("by-seqlen", 2), ("round-robin", 2)]
    assert all(row["cpu_seconds_per_1000"] > 0.0 for row in document["rows"])
    (ratio,) = document["ratios"]
    assert (ratio["name"], ratio["against"]) == ("round-robin", "by-seqlen")
    assert ratio["per_second"] > 0.0
    assert set(document["settings"]["plans"]) == {"by-seqlen", "round-robin"}
    assert "CPUs" in document["settings"]["plans"]["by-seqlen"][0]


def test_the_highest_rate_within_the_limit_is_looked_for(
    bench: Any, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knee, "MOST_TRIES", 2)
    auto = ["--url", serve().url, "--rate", "auto", "--mix", "short", "--seconds", "0.1", "--warmup", "0", "--json"]
    code, out, _ = bench(*auto, "--p99-ms", "10000")
    assert code == 0
    document = json.loads(out)
    (ceiling,) = document["ceilings"]
    rates = [row["rate"] for row in document["rows"] if row["rate"] is not None]
    assert rates == sorted(rates)
    assert ceiling["rate"] == pytest.approx(rates[-1], abs=0.01)
    assert (ceiling["over"], ceiling["resolution"]) == (None, 0.05)
    code, out, _ = bench(*auto, "--p99-ms", "0.001")
    (ceiling,) = json.loads(out)["ceilings"]
    assert ceiling["rate"] is None
    rates = [row["rate"] for row in json.loads(out)["rows"] if row["rate"] is not None]
    assert len(rates) == 4, "what is not borne is tried once more"
    assert ceiling["over"] == pytest.approx(min(rates), abs=0.01)


def test_refusals_are_counted_by_their_status_and_are_no_failure_of_the_command(
    bench: Any, serve: Callable[..., Any]
) -> None:
    def post(_: bytes, handler: Any) -> None:
        number = len(handler.script.asked)
        handler.answer(200 if number < 3 else (429, 503)[number % 2], b"[]")

    code, out, _ = bench("--url", serve(post=post).url, "--rate", "100", *QUICK[:-2], "--warmup", "0", "--csv")
    assert code == 0
    (row,) = csv.DictReader(io.StringIO(out))
    assert int(row["refused.429"]) > 0
    assert int(row["refused.503"]) > 0


def test_a_server_that_answers_nothing_under_load_fails_the_command(bench: Any, serve: Callable[..., Any]) -> None:
    def post(_: bytes, handler: Any) -> None:
        handler.answer(200 if len(handler.script.asked) == 1 else 500, b"[]")

    code, out, _ = bench("--url", serve(post=post).url, "--in-flight", "1", *QUICK)
    assert code == 1
    assert "× 500" in out
    assert "INVALID: nothing was answered" in out


def test_a_key_is_sent_from_its_file(bench: Any, serve: Callable[..., Any], tmp_path: Path) -> None:
    server = serve(key="a-key-that-nobody-guesses")
    code, _, err = bench("--url", server.url, *QUICK)
    assert code == 1
    assert "/info answers 401" in err
    assert "--key-file FILE" in err
    keys = tmp_path / "keys"
    keys.write_text("# mine\na-key-that-nobody-guesses\nanother\n")
    code, out, err = bench("--url", server.url, "--key-file", str(keys), "--in-flight", "1", *QUICK)
    assert code == 0, err
    assert "a-key-that-nobody" not in out + err


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            {"info_status": 429, "info": b'{"error": "queue full"}'},
            'answers 429 ({"error": "queue full"}); it is busy or not ready',
        ),
        ({"info_status": 503}, "answers 503"),
        ({"info_status": 404, "info": b""}, "answers 404; is this an orchestrator?"),
        ({"info": b"<html>hello</html>"}, "is not what an orchestrator or text-embeddings-inference says"),
        ({"info": b"[1, 2]"}, "is not what an orchestrator"),
        (
            {"info": b'{"model_id": "m", "task": "question-answering"}'},
            "serves question-answering; load of texts alone is for",
        ),
        ({"info": b'{"model_id": "m", "model_type": {"splade": {}}}'}, "serves ['splade']"),
        (
            {"info": b'{"model_id": "m", "task": "sentence-embedding", "max_input_length": 16}'},
            "has texts of 28 tokens",
        ),
        ({"post": lambda _, handler: handler.answer(503, b"{}")}, "/embed answers 503 ({}); it is busy or not ready"),
        ({"post": lambda _, handler: handler.raw(b"SSH-2.0\r\n")}, "its answer to /embed is no HTTP"),
        ({"post": lambda _, handler: handler.raw(b"")}, "it hung up on /embed without an answer"),
    ],
)
def test_a_server_that_cannot_be_measured_is_refused_with_what_it_said(
    bench: Any, serve: Callable[..., Any], script: dict[str, Any], said: str
) -> None:
    code, out, err = bench("--url", serve(**script).url, *QUICK)
    assert code in (1, 2)
    assert said in " ".join(err.split())
    assert out == ""


def test_a_server_that_is_not_there_is_named(bench: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code, _, err = bench("--url", f"http://127.0.0.1:{port}", *QUICK)
    assert code == 1
    assert f"http://127.0.0.1:{port}: nobody answers: Connection refused; start one with `orchestrator up`" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--url", "https://127.0.0.1:1"], 2, "https is not measured, only http"),
        (["--url", "http://127.0.0.1:99999"], 2, "write it as http://HOST:PORT"),
        (["--url", "http://me:secret@127.0.0.1:1"], 2, "a key goes into --key-file"),
        (
            ["--url", "http://127.0.0.1:1", "--policy", "round-robin"],
            2,
            "--policy is for a server that is started here",
        ),
        (["--key-file", "k"], 2, "--key-file is for a server that wants a key"),
        (["--url", "http://127.0.0.1:1", "--key-file", "/nowhere/k"], 2, "/nowhere/k: No such file or directory"),
        (["--rate", "100000", "--seconds", "86400"], 2, "more than 5,000,000 requests"),
        (["--mix", "/nowhere/mix.json"], 2, "there are mixed, short, long"),
        (["--html", "/"], 2, "--html /: is a directory"),
        (["--out", "/nowhere/r.csv"], 2, "cannot be written"),
        (["--layout", "/nowhere/layout.yaml"], 78, "/nowhere/layout.yaml"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_starts(
    bench: Any, arguments: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CLAIM_SCOPE", str(tmp_path)[-60:])
    found, out, err = bench(*arguments)
    assert (found, out) == (code, "")
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "0"], "more than 0"),
        (["--rate", "fast"], "'fast' is not a number"),
        (["--rate", "10,"], "an item is empty"),
        (["--in-flight", "0"], "0: from 1 to 512"),
        (["--rate", "1", "--in-flight", "1"], "not allowed with argument"),
        (["--policy", "first-come"], "choose from by-seqlen"),
        (["--seconds", "inf"], "more than 0 to 86400"),
    ],
)
def test_words_that_are_no_loads_are_wrong_usage(
    bench: Any, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench(*arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_an_orchestrator_that_serves_here_is_not_disturbed(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CLAIM_SCOPE", str(tmp_path)[-60:])
    claims = Claims(str(tmp_path)[-60:])
    try:
        claims.claim([next(cpu.cpu for cpu in read_machine().cpus if cpu.allowed)])
        code, out, err = bench(*QUICK)
    finally:
        claims.close()
    assert (code, out) == (1, "")
    assert f"held by another orchestrator (pid {os.getpid()}" in err
    assert "put load on it with --url" in err


def test_a_server_that_does_not_start_is_told_in_its_own_words(
    bench: Any, model_cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CLAIM_SCOPE", str(tmp_path)[-60:])
    code, out, err = bench("--instances", "4000", "--cache-dir", str(model_cache), *QUICK)
    assert (code, out) == (1, "")
    assert "up did not start" in err
    assert "cannot place 4000 instances" in err


def test_interrupted_it_prints_what_it_has(serve: Callable[..., Any]) -> None:
    server = serve()
    arguments = [
        "--url",
        server.url,
        "--in-flight",
        "1,2",
        "--mix",
        "short",
        "--seconds",
        "600",
        "--warmup",
        "0",
        "--json",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "bench", "load", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        server.until_asked(50)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["rows"] == []
    assert "interrupted: not all was measured" in document["environment"]["warnings"]


def test_a_server_that_goes_away_between_two_loads_costs_the_second_and_not_the_first(
    bench: Any, serve: Callable[..., Any]
) -> None:
    def post(_: bytes, handler: Any) -> None:
        if len(handler.script.asked) == 5:
            handler.server.socket.close()  # who is connected is answered, whoever comes later is refused
        handler.answer(200, b"[]")

    code, out, _ = bench("--url", serve(post=post).url, "--in-flight", "1,2", *QUICK[:-2], "--warmup", "0", "--json")
    assert code == 1
    document = json.loads(out)
    assert [row["load"] for row in document["rows"]] == ["1 in flight"]
    assert document["rows"][0]["latency"]["count"] > 5
    assert "a server cannot be reached any more: Connection refused" in "\n".join(document["environment"]["warnings"])
