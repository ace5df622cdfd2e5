"""Does the installed service start, serve in its sandbox, and outlive what befalls it? systemd is real, and so are the faults."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from proof import MODEL, WIDTH, check, embed, equal, note, numbers, orchestrator, ran

ENDPOINT = "http://127.0.0.1:8080"
LAYOUT = f"""\
version: 1
model: {MODEL}
precision: fp32
max_seqlen: 64
port: 8080
housekeeping: {{cpus: "0"}}
instances:
  - {{name: here, cores: 1, node: 0}}
  - {{name: there, cores: 1, node: 1}}
"""
WAIT_SECONDS = 300


def prove() -> None:
    install()
    verified = ran("systemd-analyze", "verify", "--man=no", "orchestrator.service")
    equal("systemd-analyze verify is silent", (verified.returncode, verified.stderr), (0, ""))
    exposed = ran("systemd-analyze", "security", "--threshold=25", "orchestrator.service")
    check("its exposure is at most 2.5", exposed.returncode == 0, exposed.stdout[-300:])
    note(exposed.stdout.strip().splitlines()[-1])
    started = ran("systemctl", "enable", "--now", "orchestrator.socket", "orchestrator.service")
    check(
        "enable --now returns once it is ready", started.returncode == 0 and shown("ActiveState") == "active", story()
    )
    said = ran("systemctl", "status", "orchestrator").stdout
    check("systemctl status shows the instances", "2 of 2 instances ready" in said, said)
    check("a text is answered", answers())
    _binds_in_its_sandbox()
    _reloads()
    _is_hung()
    _is_killed()
    _restarts_under_load()
    _stops()
    _gives_up()
    _of_a_template()


def install() -> None:
    """As an administrator would: a program on the path, a layout, `orchestrator systemd --install`.

    DynamicUser cannot read /root, so the paths are the mounts'.
    """
    program = Path("/usr/local/bin/orchestrator")
    program.write_text(
        '#!/bin/sh\nexport PYTHONPATH=/mnt/project:/mnt/site\nexec python3 -m orchestrator.cli.main "$@"\n'
    )
    program.chmod(0o755)
    layout = Path("/etc/orchestrator/layout.yaml")
    layout.parent.mkdir(exist_ok=True)
    layout.write_text(LAYOUT)
    installed = ran(str(program), "systemd", "--install")
    check("orchestrator systemd --install", installed.returncode == 0, installed.stdout + installed.stderr)
    wanted = "systemctl enable --now orchestrator.socket orchestrator.service"
    check("it says what to do next", wanted in installed.stdout, installed.stdout)
    for unit in ("orchestrator.service", "orchestrator@.service"):
        # An emulator that compiles every file of Python anew in each process spends a minute with it.
        override = Path(f"/etc/systemd/system/{unit}.d/emulator.conf")
        override.parent.mkdir(exist_ok=True)
        override.write_text(
            "[Service]\nEnvironment=PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=/var/cache/orchestrator/pycache\n"
            if unit == "orchestrator.service"
            else "[Service]\nEnvironment=PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=/var/cache/orchestrator-blue/pycache\n"
        )
    ran("systemctl", "daemon-reload")


def _binds_in_its_sandbox() -> None:
    status = orchestrator("status", "--runtime-dir", "/run/orchestrator")
    for instance in status["instances"]:
        verified = instance["verified"]
        equal(f"{instance['name']} is bound inside the sandbox, and read back",
              (verified["policy"], verified["matches_plan"], verified["membind"], verified["notes"]),
              ("bind", True, instance["membind"], []))  # fmt: skip
    equal("status has no warnings", status["warnings"], [])
    allowed = ran("systemctl", "show", "orchestrator", "--value", "--property=AllowedCPUs").stdout.strip()
    planned = {cpu for each in status["instances"] for cpu in each["cpus"]} | set(status["housekeeping_cpus"])
    cgroup = Path("/sys/fs/cgroup") / shown("ControlGroup").lstrip("/")
    check("it runs in orchestrator.slice", "orchestrator.slice" in str(cgroup), cgroup)
    effective = numbers((cgroup / "cpuset.cpus.effective").read_text())
    check("its cpuset holds the plan and is not the whole machine", planned <= effective and len(effective) < (os.cpu_count() or 0),
          (planned, effective, allowed))  # fmt: skip
    pid = shown("MainPID")
    process = Path(f"/proc/{pid}/status").read_text()
    equal("it has no capability", re.findall(r"Cap(?:Eff|Prm|Bnd):\s*(\w+)", process), ["0" * 16] * 3)
    check("it is not root", not re.search(r"Uid:\s*0\b", process), process)


def _reloads() -> None:
    """An instance of another name takes the cores of `there`, while the other one serves; then a layout that cannot work."""
    layout = Path("/etc/orchestrator/layout.yaml")
    with load() as seen:
        layout.write_text(LAYOUT.replace("name: there", "name: beyond"))
        reloaded = ran("systemctl", "reload", "orchestrator")
        check("systemctl reload under load", reloaded.returncode == 0, story())
        names = [each["name"] for each in orchestrator("status", "--runtime-dir", "/run/orchestrator")["instances"]]
        equal("the new instance has taken the place of the old one", names, ["here-0", "beyond-0"])
        layout.write_text(LAYOUT.replace("cores", "coers"))
        refused = ran("systemctl", "reload", "orchestrator")
        check("a layout that cannot work fails the reload", refused.returncode != 0, story())
        check("and the journal names the line", "layout.yaml:8:" in story(), story())
        equal("the service runs on", shown("ActiveState"), "active")
        layout.write_text(LAYOUT)
    equal("reloads: every request was answered", set(seen), {200})
    note(f"{seen[200]} requests")


def _is_hung() -> None:
    before = int(shown("NRestarts"))
    os.kill(int(shown("MainPID")), signal.SIGSTOP)
    until("hung, the watchdog ends it and it becomes ready again", lambda: came_back(before))
    said = story()
    check(
        "the journal names the watchdog, and where it hung",
        "Watchdog timeout" in said and "Fatal Python error: Aborted" in said,
        said,
    )
    check("a text is answered after the watchdog", answers())


def _is_killed() -> None:
    before = int(shown("NRestarts"))
    main = shown("MainPID")
    children = ran("pgrep", "-P", main).stdout.split()
    os.kill(int(main), signal.SIGKILL)
    until("nothing of the killed one survives", lambda: not [pid for pid in children if Path(f"/proc/{pid}").exists()])
    check("it had parts", len(children) >= 4, children)
    check("a text that comes while nobody runs waits and is answered", answers())
    until("killed, it is started again", lambda: came_back(before))


def _restarts_under_load() -> None:
    with load() as seen:
        restarted = ran("systemctl", "restart", "orchestrator")
        equal("systemctl restart under load", (restarted.returncode, shown("ActiveState")), (0, "active"))
    equal("restart: no connection was refused, every request answered", set(seen), {200})
    note(f"{seen[200]} requests")


def _stops() -> None:
    equal("systemctl stop", ran("systemctl", "stop", "orchestrator.socket", "orchestrator.service").returncode, 0)
    equal("it ended by itself, drained", (shown("Result"), shown("ExecMainStatus")), ("success", "0"))
    check("it said that it drained", "draining" in story(), story())
    kept = Path("/var/cache/private/orchestrator")
    check("its cache stays, and belongs to its user", kept.is_dir() and kept.stat().st_uid != 0, kept)


def _gives_up() -> None:
    """A connection that waits starts a service that cannot work, again and again; that has an end."""
    Path("/etc/orchestrator/layout.yaml").write_text(LAYOUT.replace("cores", "coers"))
    limit = Path("/etc/systemd/system/orchestrator.service.d/limit.conf")
    limit.write_text("[Unit]\nStartLimitBurst=3\n")
    ran("systemctl", "daemon-reload")
    ran("systemctl", "reset-failed", "orchestrator.service", "orchestrator.socket")
    ran("systemctl", "start", "orchestrator.socket")
    with socket.create_connection(("127.0.0.1", 8080)):
        until(
            "a layout that cannot work: at last the socket is closed",
            lambda: shown("ActiveState", "orchestrator.socket") == "failed",
        )
    check("the journal names the line", "layout.yaml:8:" in story() and "cores" in story(), story())
    equal("it ended with 78", shown("ExecMainStatus"), "78")
    Path("/etc/orchestrator/layout.yaml").write_text(LAYOUT)
    limit.unlink()
    ran("systemctl", "daemon-reload")
    ran("systemctl", "reset-failed", "orchestrator.service", "orchestrator.socket")
    again = ran("systemctl", "start", "orchestrator.socket")
    equal(
        "mended and reset, the socket listens again",
        (again.returncode, shown("ActiveState", "orchestrator.socket")),
        (0, "active"),
    )
    ran("systemctl", "stop", "orchestrator.socket")


def _of_a_template() -> None:
    Path("/etc/orchestrator/blue.yaml").write_text(LAYOUT.replace("8080", "8081"))
    installed = ran("/usr/local/bin/orchestrator", "systemd", "--install", "--name", "blue")
    check("orchestrator systemd --install --name blue", installed.returncode == 0, installed.stderr)
    ran("systemctl", "daemon-reload")
    started = ran("systemctl", "start", "orchestrator@blue.socket", "orchestrator@blue.service")
    check("orchestrator@blue starts", started.returncode == 0, story("orchestrator@blue"))
    check("and answers at its own port", answers("http://127.0.0.1:8081"))
    check(
        "with folders of its own",
        Path("/run/orchestrator-blue/control.sock").exists() and Path("/var/cache/orchestrator-blue").exists(),
    )
    equal("orchestrator@blue stops",
          ran("systemctl", "stop", "orchestrator@blue.socket", "orchestrator@blue.service").returncode, 0)  # fmt: skip


def answers(endpoint: str = ENDPOINT) -> bool:
    return len(embed(endpoint, "rain", timeout=WAIT_SECONDS)[0]) == WIDTH


@contextlib.contextmanager
def load() -> Iterator[Counter[int | str]]:
    """Clients that ask without pause, each request on a connection of its own. What they saw, once it has ended."""
    seen: Counter[int | str] = Counter()
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            try:
                seen[200 if answers() else "wrong"] += 1
            except OSError as error:
                seen[f"{type(error).__name__}: {error}"] += 1

    clients = [threading.Thread(target=client, daemon=True) for _ in range(3)]
    for one in clients:
        one.start()
    try:
        yield seen
    finally:
        stop.set()
        for one in clients:
            one.join(WAIT_SECONDS)


def shown(name: str, unit: str = "orchestrator") -> str:
    return ran("systemctl", "show", unit, "--value", f"--property={name}").stdout.strip()


def came_back(restarts: int) -> bool:
    return int(shown("NRestarts")) == restarts + 1 and shown("SubState") == "running"


def story(unit: str = "orchestrator") -> str:
    return ran("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout[-6000:]


def until(what: str, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.5)
    check(what, reached(), story())
