"""Does the whole system do what a user was promised?"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from topology.cpuset import parse_cpulist


def command(system: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", *words, "--runtime-dir", str(system.runtime)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_up_prints_the_machine_the_plan_what_was_bound_and_where_to_send(shared_system: Any) -> None:
    printed = "".join(shared_system.printed)
    assert "NUMA node" in printed
    assert "policy by-seqlen, 2 instances" in printed
    assert "bound, as the kernel says:" in printed
    assert "as planned" in printed
    assert f"ready: http://127.0.0.1:{shared_system.port}" in printed


def at_rest(system: Any) -> None:
    """What earlier tests have left is computed: with no load a request goes to the instance of its bucket."""
    system.until("at rest", lambda status: status.router.queued + status.router.in_flight == 0)


def test_embed_gives_384_numbers_and_the_headers_of_the_contract(shared_system: Any) -> None:
    at_rest(shared_system)
    status, headers, body = shared_system.post(
        "/embed", {"inputs": "I like you. I love you"}, **{"x-request-id": "mine-1"}
    )
    assert status == 200
    assert [len(row) for row in body] == [384]
    assert sum(value * value for value in body[0]) == pytest.approx(1.0, abs=1e-4)
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-bucket"] == "1-32"
    assert int(headers["x-batch-size"]) >= 1
    assert float(headers["x-compute-time"]) > 0
    assert [part.split(";")[0] for part in headers["server-timing"].split(", ")] == [
        "tokenize",
        "queue",
        "inference",
        "post",
    ]


def test_ten_words_and_a_hundred_and_fifty_go_to_different_instances(shared_system: Any) -> None:
    at_rest(shared_system)
    short = shared_system.post("/embed", {"inputs": " ".join(["word"] * 10)})[1]["x-instance"]
    long = shared_system.post("/embed", {"inputs": " ".join(["word"] * 150)})[1]["x-instance"]
    assert (short, long) == ("short-0", "long-0")


def test_predict_answers_as_hugging_face_does(shared_system: Any) -> None:
    flat = shared_system.post("/predict", {"inputs": "rain"})[2]
    nested = shared_system.post("/", {"inputs": ["rain", "snow"]})[2]
    assert len(flat) == 384
    assert [len(row) for row in nested] == [384, 384]
    assert flat == pytest.approx(nested[0], abs=1e-5)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_the_openai_client_works_unchanged(shared_system: Any, encoding: Any) -> None:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{shared_system.port}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="all-MiniLM-L6-v2", input=["rain", "snow"], encoding_format=encoding)
        default = client.embeddings.create(model="all-MiniLM-L6-v2", input="rain")
    assert [len(each.embedding) for each in answer.data] == [384, 384] or encoding == "base64"
    assert len(default.data[0].embedding) == 384
    assert answer.usage.prompt_tokens == 6


def test_the_client_library_reaches_the_router_directly(shared_system: Any) -> None:
    from orchestrator.client import Client

    with Client(f"ipc://{shared_system.runtime}/front.sock") as client:
        rows = client.embed(["rain", "I like you. I love you"])
    assert rows.shape == (2, 384)
    assert rows[0].tolist() == pytest.approx(shared_system.embed("rain"), abs=1e-5)


def test_a_batch_is_split_over_instances_and_answered_in_order(shared_system: Any) -> None:
    texts = ["rain", " ".join(["word"] * 150), "snow"]
    status, headers, body = shared_system.post("/embed", {"inputs": texts})
    assert status == 200
    for text, row in zip(texts, body, strict=True):
        assert row == pytest.approx(shared_system.embed(text), abs=1e-5)
    assert set(headers["x-instance"].replace(" ", "").split(",")) == {"short-0", "long-0"}


def test_status_shows_what_the_kernel_says_of_cores_and_memory(shared_system: Any) -> None:
    done = command(shared_system, "status", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["state"] == "ready"
    assert len(document["instances"]) == 2
    for instance in document["instances"]:
        text = Path(f"/proc/{instance['pid']}/status").read_text()
        line = next(line for line in text.splitlines() if line.startswith("Cpus_allowed_list:"))
        assert set(instance["verified"]["cpus"]) == set(parse_cpulist(line.split(":")[1].strip()))
        assert instance["verified"]["cpus"] == instance["cpus"]
        assert instance["verified"]["membind"] == instance["membind"]
        assert instance["verified"]["matches_plan"], instance["verified"]


def test_status_for_people_names_every_part(shared_system: Any) -> None:
    printed = command(shared_system, "status").stdout
    for word in ("ready", "short-0", "long-0", "gateway-0", "router ready", "by-seqlen"):
        assert word in printed


def test_metrics_health_and_info_answer(shared_system: Any) -> None:
    shared_system.embed("rain")
    code, metrics = shared_system.get("/metrics")
    assert code == 200
    assert b"short-0" in metrics
    assert shared_system.get("/health")[0] == 200
    code, info = shared_system.get("/info")
    assert code == 200
    assert json.loads(info)["max_input_length"] == 256


def test_the_state_over_http_is_the_state_of_status(shared_system: Any) -> None:
    code, body = shared_system.get("/api/state")
    assert code == 200
    assert [each["name"] for each in json.loads(body)["instances"]] == ["short-0", "long-0"]


def test_status_without_an_orchestrator_says_what_to_do(tmp_path: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "status", "--runtime-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "no orchestrator runs here" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_part_may_open_as_many_files_as_the_hard_limit_allows(start_system: Callable[..., Any]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[0]), before[1]))
    try:
        system = start_system("--instances", "1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for pid in (system.process.pid, *system.pids().values()):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (min(before[1], 65_536), before[1])
