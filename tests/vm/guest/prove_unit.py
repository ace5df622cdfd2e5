"""Does the service unit start, tell its state, come back after a kill, and drain when stopped?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from proof import MODEL, WIDTH, check, embed, equal, ran

UNIT = Path("/mnt/project/systemd/orchestrator.service")
LAYOUT = f"""\
version: 1
model: {MODEL}
precision: fp32
max_seqlen: 64
port: 8080
instances:
  - {{name: here, cores: 1, node: 0}}
  - {{name: there, cores: 1, node: 1}}
"""
WAIT_SECONDS = 300


def prove() -> None:
    _install()
    verified = ran("systemd-analyze", "verify", "--man=no", "orchestrator.service")
    equal("systemd-analyze verify is silent", (verified.returncode, verified.stderr), (0, ""))
    started = ran("systemctl", "start", "orchestrator")
    check(
        "systemctl start returns once it is ready",
        started.returncode == 0 and _property("ActiveState") == "active",
        _story(),
    )
    shown = ran("systemctl", "status", "orchestrator").stdout
    check("systemctl status shows the instances", "2 of 2 instances ready" in shown, shown)
    check("a text is answered", len(embed("http://127.0.0.1:8080", "rain")[0]) == WIDTH)
    first = _property("MainPID")
    children = ran("pgrep", "-P", first).stdout.split()
    os.kill(int(first), 9)
    _until(
        "killed, it is started again and becomes ready",
        lambda: _property("NRestarts") == "1" and _property("SubState") == "running",
    )
    check(
        "nothing of the killed one survives", not [pid for pid in children if Path(f"/proc/{pid}").exists()], children
    )
    check("a text is answered again", len(embed("http://127.0.0.1:8080", "rain")[0]) == WIDTH)
    equal("systemctl stop", ran("systemctl", "stop", "orchestrator").returncode, 0)
    equal("it ended by itself, drained", (_property("Result"), _property("ExecMainStatus")), ("success", "0"))
    check("it said that it drained", "draining" in _story(), _story())


def _install() -> None:
    """As a package would: a program on the path, a layout, the unit. DynamicUser cannot read /root, so the paths are the mounts'."""
    program = Path("/usr/local/bin/orchestrator")
    program.write_text(
        '#!/bin/sh\nexport PYTHONPATH=/mnt/project:/mnt/site\nexec python3 -m orchestrator.cli.main "$@"\n'
    )
    program.chmod(0o755)
    layout = Path("/etc/orchestrator/layout.yaml")
    layout.parent.mkdir(exist_ok=True)
    layout.write_text(LAYOUT)
    Path("/etc/systemd/system/orchestrator.service").write_text(UNIT.read_text())
    override = Path("/etc/systemd/system/orchestrator.service.d/emulator.conf")
    override.parent.mkdir(exist_ok=True)
    override.write_text(
        "[Service]\nTimeoutStartSec=900\n"
    )  # an emulated CPU builds and checks the model at a fiftieth of the speed
    ran("systemctl", "daemon-reload")


def _property(name: str) -> str:
    return ran("systemctl", "show", "orchestrator", "--value", f"--property={name}").stdout.strip()


def _story() -> str:
    return ran("journalctl", "--no-pager", "--output=cat", "--unit=orchestrator").stdout[-3000:]


def _until(what: str, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.5)
    check(what, reached(), _story())
