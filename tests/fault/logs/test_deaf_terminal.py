"""What stops when nobody reads standard error? The lines there, and nothing else."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 60.0


def test_a_terminal_that_is_held_stops_no_request_no_beat_and_no_end(tmp_path: Path, model_cache: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli.main", "up", "--port", "0", "--instances", "1", "--access-log", "all",
         "--runtime-dir", str(tmp_path / "run"), "--cache-dir", str(model_cache)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=writer,
        env={**os.environ, "ORCHESTRATOR_CLAIM_SCOPE": str(tmp_path)[-60:]},
    )  # fmt: skip
    os.close(writer)
    try:
        assert process.stdout is not None
        ready = next(line for line in process.stdout if line.startswith(b"ready: "))
        connection = http.client.HTTPConnection("127.0.0.1", int(ready.rsplit(b":", 1)[1]), timeout=SECONDS)
        for number in range(200):
            connection.request("POST", "/embed", json.dumps({"inputs": f"nobody reads {number}"}).encode())
            assert connection.getresponse().read().startswith(b"[[")
        connection.close()
        log = (tmp_path / "run" / "log" / "gateway-0.log").read_text()
        assert log.count("POST /embed 200") >= 150, "the files have what the terminal does not take"
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait(SECONDS)
        if process.stdout is not None:
            process.stdout.close()
        os.close(reader)
