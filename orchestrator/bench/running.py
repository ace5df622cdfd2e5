"""How does a benchmark start the real program and look into it? As a user does: `orchestrator up`, `status`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil

from orchestrator.status import Status
from orchestrator.supervisor.control import ask

DRAIN_SECONDS = 60.0


class DidNotStart(Exception):
    """`orchestrator up` ended before it was ready; carries what it said."""


@dataclass(frozen=True)
class Running:
    """An orchestrator under test."""

    pid: int
    runtime: Path
    endpoint: str

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.endpoint)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def status(self) -> Status:
        return msgspec.json.decode(ask(self.runtime / "control.sock", "status"), type=Status)


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes and all their children."""
    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            times = one.cpu_times()
            total += times.user + times.system
    return total


@contextmanager
def running(arguments: Sequence[str], cache: Path | None = None) -> Iterator[Running]:
    """`orchestrator up --port 0 …` until it is ready; drained and stopped at the end, and killed with this process.
    DidNotStart with its last words.

    It keeps no tokens of texts: a benchmark asks the same ones again and again, and each shall cost what one that was never seen costs.
    Of words it does; the benchmarks' are all known soon, of those in manuals 1 to 2 % are not, for 7 µs more per short text.
    """
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-") as folder:
        runtime = Path(folder)
        layout = runtime / "bench.yaml"
        layout.write_text("version: 1\ncaches:\n  tokens_mb: 0\n")
        command = [
            sys.executable,
            "-m",
            "orchestrator.bench.tethered",
            str(os.getpid()),
            "up",
            "--port",
            "0",
            "--runtime-dir",
            folder,
            "--layout",
            str(layout),
            *arguments,
        ]
        if cache is not None:
            command += ["--cache-dir", str(cache)]
        log = runtime / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "ORCHESTRATOR_CLAIM_SCOPE": runtime.name},
            )
        assert process.stdout is not None
        try:
            endpoint = None
            for line in process.stdout:
                if line.startswith(b"ready: "):
                    endpoint = line.split()[1].decode()
                    break
            if endpoint is None:
                process.wait()
                raise DidNotStart(log.read_text()[-2000:])
            yield Running(process.pid, runtime, endpoint)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(DRAIN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
