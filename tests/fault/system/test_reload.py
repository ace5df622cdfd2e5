"""Does a change of the plan lose a request, and does one that fails leave everything as it was? The real program, under load."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.claims import Claims
from orchestrator.supervisor.control import ControlError, ask

Start = Callable[..., Any]

TWO = """version: 1
port: 0
instances:
  - {name: short, replicas: 1, max_seqlen: 32, cpus: "0"}
  - {name: long, replicas: 1, max_seqlen: 256, cpus: "1"}
"""
ONE = """version: 1
port: 0
instances:
  - {name: all, replicas: 1, cpus: "0-1"}
"""


def reload(system: Any, layout: str | None = None) -> tuple[int, str, Any]:
    """What the command would exit with, what it would say to standard error, and the document if there is one."""
    said: list[str] = []
    arguments = {} if layout is None else {"layout": layout}
    try:
        body = ask(system.runtime / "control.sock", "reload", timeout=100, on_progress=said.append, arguments=arguments)
    except ControlError as error:
        return error.exit_code, "\n".join([*said, str(error)]), None
    return 0, "\n".join(said), json.loads(body)


def by_command(system: Any, *arguments: str) -> tuple[int, str, str]:
    """The command as an operator gives it: its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "reload", "--runtime-dir", str(system.runtime), *arguments],
        capture_output=True, timeout=100, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.decode(), done.stdout.decode()


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def tiny_model(folder: Path) -> Path:
    """A BERT of 32 dimensions for 44 tokens, which takes no time to build or quantise beside a load."""
    models = Path(__file__).parents[2] / "data" / "models" / "tiny_models.py"
    spec = importlib.util.spec_from_file_location("tiny_models_of_reload", models)
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    written: Path = tiny.write(folder / "tiny", {"config": tiny.BERT, "pooling": ["mean"]})
    return written


def places(system: Any) -> dict[str, list[int]]:
    return {one.name: one.verified.cpus for one in system.status().instances}


def test_instances_come_and_go_and_routing_changes_with_no_request_lost(
    start_system: Start, load_on: Callable[[Any], Any], all_right: Callable[[Any], None], tmp_path: Path
) -> None:
    layout = tmp_path / "layout.yaml"
    system = start_system("--layout", written(layout, TWO))
    load = load_on(system)
    load.start(4)
    load.until_answered(20)
    code, said, printed = by_command(system, "--layout", written(tmp_path / "one.yaml", ONE), "--dry-run", "--json")
    assert code == 0, said
    report = json.loads(printed)
    assert (report["applied"], report["added"], report["removed"]) == (False, ["all-0"], ["short-0", "long-0"])
    assert set(places(system)) == {"short-0", "long-0"}
    code, said, report = reload(system, str(tmp_path / "one.yaml"))
    assert code == 0, said
    assert report["applied"]
    load.until_answered(20)
    assert places(system) == {"all-0": [0, 1]}
    code, said, report = reload(system, str(layout))
    assert code == 0, said
    load.until_answered(20)
    assert places(system) == {"short-0": [0], "long-0": [1]}
    before = system.pids()
    # What only the router has to know ends no process, by SIGHUP as well as by command.
    written(layout, TWO + "policy: shortest-completion\nbatching: {max_batch_tokens: 256}\n")
    system.process.send_signal(signal.SIGHUP)
    system.until("the policy is another one", lambda status: status.policy == "shortest-completion")
    system.until("the reload is over", lambda status: not status.changing)
    load.until_answered(20)
    assert system.pids() == before
    code, said, printed = by_command(system)
    assert (code, printed) == (0, "nothing to change\n"), said
    with contextlib.closing(Claims(str(system.runtime)[-60:])) as another:
        assert set(another.taken([0, 1])) == {0, 1}
    all_right(load.stop())
    assert {one.restarts for one in system.status().instances} == {0}


def test_what_cannot_work_is_refused_and_changes_nothing(
    start_system: Start, load_on: Callable[[Any], Any], all_right: Callable[[Any], None], tmp_path: Path
) -> None:
    system = start_system("--layout", written(tmp_path / "layout.yaml", TWO))
    load = load_on(system)
    load.start(2)
    before = system.pids()
    vanished = TWO + f"model: {tmp_path}/vanished\n"
    for name, text, why in (
        ("cores", TWO.replace('"1"', '"1-9"'), "CPUs 2-9 do not exist"),
        ("word", TWO + "polizy: by-seqlen\n", "did you mean"),
        ("model", vanished, "vanished"),
        ("host", TWO + "host: 127.0.0.2\n", "host: 127.0.0.1 -> 127.0.0.2"),
        ("overlap", TWO.replace('"1"', '"0"'), "short"),
    ):
        code, said, report = reload(system, written(tmp_path / f"{name}.yaml", text))
        assert (code, report) == (78, None), said
        assert why in said
        assert "nothing was changed" in said
    code, said, printed = by_command(system, "--layout", str(tmp_path / "nowhere.yaml"))
    assert (code, "No such file" in said, printed) == (78, True, ""), said
    load.until_answered(20)
    assert system.pids() == before
    all_right(load.stop())


def test_a_new_instance_that_cannot_become_ready_brings_back_what_was_there(
    start_system: Start, load_on: Callable[[Any], Any], all_right: Callable[[Any], None], faults: Any, tmp_path: Path
) -> None:
    system = start_system("--layout", written(tmp_path / "layout.yaml", TWO), environment=faults.environment)
    load = load_on(system)
    load.start()
    load.until_answered(20)
    faults.want("exit-at-start", "all-0")
    code, said, report = reload(system, written(tmp_path / "one.yaml", ONE))
    assert (code, report) == (1, None), said
    assert "the test wants this worker to fail" in said
    assert "what was in force before is in force again" in said
    load.until_answered(20)
    assert places(system) == {"short-0": [0], "long-0": [1]}
    assert system.status().state == "ready"
    all_right(load.stop())


def test_an_instance_that_fails_for_good_is_left_out_and_comes_back_when_asked_for(
    start_system: Start, load_on: Callable[[Any], Any], all_right: Callable[[Any], None], faults: Any, tmp_path: Path
) -> None:
    text = "version: 1\nport: 0\nsupervision: {quarantine_s: 0, flap_failures: 2}\n"
    system = start_system(
        "--layout", written(tmp_path / "layout.yaml", text), "--instances", "2", environment=faults.environment
    )
    load = load_on(system)
    load.start()
    load.until_answered(20)
    faults.want("exit-at-start", "short-0")
    os.kill(system.pids()["short-0"], signal.SIGKILL)
    status = system.until(
        "it is left out", lambda status: any("left out of the plan" in warning for warning in status.warnings)
    )
    (failed,) = [one for one in status.instances if one.name == "short-0"]
    assert failed.state == "failed"
    assert "failed 2 times" in failed.last_error
    assert status.state == "degraded"
    load.until_answered(20)
    (faults.folder / "exit-at-start").unlink()
    back = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "restart", "short-0", "--runtime-dir", str(system.runtime)],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert back.returncode == 0, back.stderr.decode()
    load.until_answered(20)
    status = system.until("all is well", lambda status: status.state == "ready" and len(status.instances) == 2)
    assert not [warning for warning in status.warnings if "short-0" in warning]
    all_right(load.stop())


def test_another_precision_takes_over_and_each_answer_is_of_one_or_the_other(
    start_system: Start, load_on: Callable[[Any], Any], all_right: Callable[[Any], None], tmp_path: Path
) -> None:
    layout = tmp_path / "layout.yaml"
    text = TWO.replace("256", "44") + f"model: {tiny_model(tmp_path)}\nlimits: {{truncate: true}}\n"
    system = start_system("--layout", written(layout, text))
    load = load_on(system)
    load.least_cosine = 0.95
    load.start(4)
    load.until_answered(10)
    written(layout, text + "precision: int8\n")
    code, said, report = reload(system)
    assert code == 0, said
    assert list(report["restarted"]) == ["short-0", "long-0"]
    load.until_answered(20)
    assert {one.precision for one in system.status().instances} == {"int8"}
    all_right(load.stop())


def test_another_model_takes_over_and_no_request_sees_both(start_system: Start, tmp_path: Path) -> None:
    layout = tmp_path / "layout.yaml"
    system = start_system("--layout", written(layout, TWO))
    tiny = tiny_model(tmp_path)
    texts = ["one text", "another, somewhat longer, text", "and a third", "rain"]
    seen: list[Any] = []
    over = threading.Event()

    def post() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=60)
        try:
            while not over.is_set():
                connection.request(
                    "POST", "/embed", json.dumps({"inputs": texts}), {"content-type": "application/json"}
                )
                answer = connection.getresponse()
                rows = json.loads(answer.read())
                seen.append([len(row) for row in rows] if answer.status == 200 else rows)
        except (OSError, http.client.HTTPException) as error:
            seen.append(repr(error))
        connection.close()

    clients = [threading.Thread(target=post, daemon=True) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        written(layout, TWO.replace("256", "44") + f"model: {tiny}\n")
        code, said, report = reload(system)
        assert code == 0, said
        assert "384 dimensions" in report["model"]
        assert "32 dimensions" in report["model"]
        there = len(seen)
        system.until("the new one has answered", lambda status: len(seen) > there + 8)
        written(layout, TWO)
        code, said, report = reload(system)
        assert code == 0, said
        there = len(seen)
        system.until("the old one has answered", lambda status: len(seen) > there + 8)
    finally:
        over.set()
        for client in clients:
            client.join(60)
    assert [one for one in seen if one not in ([384] * 4, [32] * 4)] == []
    assert [32] * 4 in seen
    assert seen[-1] == [384] * 4
    assert sorted(path.name for path in system.runtime.glob("*.sock")) == [
        "back-2.sock", "control.sock", "front-2.sock", "front.sock", "local-2.sock",
    ]  # fmt: skip
    assert (system.runtime / "front.sock").resolve().name == "front-2.sock"
    assert len(system.embed("served by the first model again")) == 384
    assert system.stop() == 0
    assert list(system.runtime.glob("*.sock")) == []


def test_a_second_change_is_refused_and_so_is_one_during_a_drain(start_system: Start, tmp_path: Path) -> None:
    system = start_system("--layout", written(tmp_path / "layout.yaml", TWO))
    control = system.runtime / "control.sock"
    one = written(tmp_path / "one.yaml", ONE)
    first = threading.Thread(target=reload, args=(system, one), daemon=True)
    first.start()
    system.until("it has begun", lambda status: "reload" in status.changing)
    with pytest.raises(ControlError, match=r"has asked for `reload` .* ago, and that is not done"):
        ask(control, "reload")
    first.join(60)
    assert set(places(system)) == {"all-0"}
    os.kill(system.pids()["all-0"], signal.SIGSTOP)  # what it holds is not answered: a drain takes its time
    waiting = threading.Thread(target=post_in_vain, args=(system,), daemon=True)
    waiting.start()
    system.until("it is in flight", lambda status: status.router.in_flight > 0)
    system.process.send_signal(signal.SIGTERM)
    system.until("it drains", lambda status: status.state == "draining")
    with pytest.raises(ControlError, match="the orchestrator is stopping"):
        ask(control, "reload")
    system.process.send_signal(signal.SIGTERM)
    waiting.join(60)


def post_in_vain(system: Any) -> None:
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        system.post("/embed", {"inputs": "never answered"})
