"""What do all proofs stand on? Checks that are counted, the program as a user starts it, and what the kernel says of a process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "orchestrator.cli.main"]
OUT = Path("/mnt/out")
MODEL = "/var/cache/proofs/large"
WIDTH = 32
"""Floats in a row of the model."""
CACHE = "/var/cache/proofs/artefacts"
READY_SECONDS = 600
AFTER_BOOT = Path("/var/lib/proofs")
"""Holds what goes on after a boot: `next` the proof, `failures` what has failed before."""
REBOOT = 75
"""Exit status that asks for a boot."""
failures: list[str] = []


class Reboot(Exception):
    """The proof goes on in another one, after a boot."""


def reboot(then: str) -> None:
    """Ends the proofs here; after a boot the proof `then` goes on. So it has to be the last."""
    raise Reboot(then)


def check(what: str, held: bool, found: object = "") -> None:
    """One claim; a false one is counted and shows what was found instead."""
    print(f"ok   {what}" if held else f"FAIL {what}: found {found}")
    if not held:
        failures.append(what)


def equal(what: str, found: object, expected: object) -> None:
    check(what, found == expected, f"{found}, expected {expected}")


def note(text: str) -> None:
    print(f"     {text}")


def ran(*command: str, inside: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*inside, *command], capture_output=True, text=True, check=False)


def orchestrator(*arguments: str, inside: Sequence[str] = ()) -> Any:
    """The JSON document that a command prints; `inside` is a systemd-run that limits it."""
    done = ran(*PROGRAM, *arguments, "--json", inside=inside)
    if done.returncode:
        raise RuntimeError(f"orchestrator {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def limited(**properties: str) -> list[str]:
    """A command prefix: run as a transient service with these properties, this environment and these pipes."""
    carried = ("PYTHONPATH", "PYTHONPYCACHEPREFIX", "HOME", "LANG")
    return [
        "systemd-run", "--quiet", "--wait", "--pipe", "--collect",
        *(f"--property={name}={value}" for name, value in properties.items()),
        *(f"--setenv={name}={os.environ[name]}" for name in carried), "--",
    ]  # fmt: skip


class Running:
    """`orchestrator up`, ready. Its status, its address."""

    def __init__(self, runtime: Path, printed: list[str], endpoint: str) -> None:
        self.printed, self.endpoint = printed, endpoint
        self._runtime = str(runtime)

    def status(self) -> Any:
        return orchestrator("status", "--runtime-dir", self._runtime)

    def embed(self, text: str) -> tuple[list[float], str]:
        """The vector, and the instance that made it."""
        return embed(self.endpoint, text)

    def down(self) -> int:
        return ran(*PROGRAM, "down", "--runtime-dir", self._runtime).returncode


def embed(endpoint: str, text: str, timeout: float = 120) -> tuple[list[float], str]:
    request = urllib.request.Request(
        f"{endpoint}/embed",
        json.dumps({"inputs": text, "truncate": True}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)[0], answer.headers["x-instance"]


@contextlib.contextmanager
def up(name: str, *arguments: str, inside: Sequence[str] = ()) -> Iterator[Running]:
    """Starts it and waits until it is ready; its log goes to the host. It must end with status 0 when asked to."""
    runtime = Path("/run") / f"proof-{name}"
    command = [*inside, *PROGRAM, "up", "--port", "0", "--runtime-dir", str(runtime), "--cache-dir", CACHE,
               "--model", MODEL, "--precision", "fp32", *arguments]  # fmt: skip
    with (OUT / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        giving_up = threading.Timer(READY_SECONDS, process.send_signal, [signal.SIGKILL])
        giving_up.start()
        printed: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if line.startswith("ready: "):
                break
        giving_up.cancel()
        if not printed or not printed[-1].startswith("ready: "):
            raise RuntimeError(
                f"up ended with {process.wait()}:\n{''.join(printed)}{(OUT / f'{name}.log').read_text()[-3000:]}"
            )
        draining = threading.Thread(target=process.stdout.read, daemon=True)
        draining.start()
        running = Running(runtime, printed, printed[-1].split()[1])
        try:
            yield running
        finally:
            running.down()
            equal(f"{name}: asked to stop, it ends with status 0", process.wait(120), 0)


def cpus_of_threads(pid: int) -> dict[int, set[int]]:
    """Thread → the CPUs that the kernel lets it use."""
    return {
        int(task.name): numbers(re.search(r"Cpus_allowed_list:\s*(\S*)", (task / "status").read_text())[1])  # type: ignore[index]
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


def pages_unbound(pid: int, nodes: Sequence[int]) -> list[str]:
    """The mappings that hold pages and are not bound to these nodes. OpenBLAS gives its buffer a policy of its own: nothing touches it."""
    lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    held = [line for line in lines if re.search(r" N\d+=", line)]
    return [
        line for line in held if not line.split()[1].startswith("bind:") or numbers(line.split()[1][5:]) != set(nodes)
    ]


def bytes_per_node(pid: int) -> tuple[Counter[int], Counter[int]]:
    """Node → bytes, of the process's own memory (heap, stacks, arenas) and of mapped files (the page cache, shared by all)."""
    own: Counter[int] = Counter()
    files: Counter[int] = Counter()
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        page = int((re.search(r"kernelpagesize_kB=(\d+)", line) or [0, 4])[1]) << 10
        for node, pages in re.findall(r" N(\d+)=(\d+)", line):
            (files if " file=" in line else own)[int(node)] += int(pages) * page
    return own, files


def numbers(text: str) -> set[int]:
    """A kernel list such as 0-3,8."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
