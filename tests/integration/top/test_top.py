"""Does `orchestrator top` show a running system in a real terminal, and leave that terminal as it was, whichever way it ends?"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 30.0
GIVEN_BACK = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"


class Terminal:
    """A pseudo terminal with a program in its foreground, and what it shows."""

    def __init__(self, arguments: list[str], columns: int = 120, lines: int = 30, **environment: str) -> None:
        self.master, self.slave = pty.openpty()
        self.size(columns, lines)
        self.before = termios.tcgetattr(self.slave)
        self.output = bytearray()
        self.process = subprocess.Popen(
            arguments,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", **environment},
            start_new_session=True,
            preexec_fn=_in_its_own_terminal,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def size(self, columns: int, lines: int) -> None:
        """Which also tells the foreground process (SIGWINCH), as a terminal does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    @property
    def lines(self) -> list[str]:
        """The last whole frame."""
        frames = re.findall(rb"\x1b\[H(.*?)\x1b\[J", bytes(self.output), re.DOTALL)
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frames[-1].decode() if frames else "")
        return text.replace("\r", "").split("\n")

    def until(self, what: str, reached: Callable[[list[str]], Any]) -> list[str]:
        deadline = time.monotonic() + SECONDS
        while not reached(lines := self.lines):
            assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}\n" + "\n".join(lines)
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {bytes(self.output[-2000:])!r}"
            threading.Event().wait(0.02)
        return lines

    def ended(self) -> int:
        """The exit status, once all that it wrote has been read."""
        status = self.process.wait(SECONDS)
        os.close(self.slave)
        self.slave = -1
        self._reader.join(SECONDS)
        return status

    def attributes(self) -> Any:
        return termios.tcgetattr(self.slave)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(SECONDS)
        for descriptor in (self.slave, self.master):
            if descriptor >= 0:
                os.close(descriptor)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody holds the other side any more
            while data := os.read(self.master, 1 << 16):
                self.output += data


def _in_its_own_terminal() -> None:
    for number in (
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGHUP,
    ):  # of a suite in the background of a shell some are ignored
        signal.signal(number, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGQUIT would leave one


def words(runtime: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli.main", "top", "--runtime-dir", str(runtime), *more]


@pytest.fixture
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_(arguments: list[str], *size: int, **environment: str) -> Terminal:
        opened.append(Terminal(arguments, *size, **environment))
        return opened[-1]

    yield open_
    for terminal in opened:
        terminal.close()


Open = Callable[..., Terminal]


def test_it_shows_the_instances_follows_the_size_and_the_keys_and_q_gives_the_terminal_back(
    shared_system: Any, open_terminal: Open
) -> None:
    shared_system.embed("rain")
    terminal = open_terminal(words(shared_system.runtime, "--interval", "0.2"), 130, 30)
    lines = terminal.until("a frame", lambda lines: len(lines) == 30)
    status = shared_system.status()
    assert lines[0].startswith(f"● ready  http://127.0.0.1:{shared_system.port}  up ")
    assert f"pid {status.pid}" in lines[0]
    assert re.search(r"instance +state +CPUs +node +tokens +seq/s last minute", "\n".join(lines))
    rows = [line for line in lines if re.match(r"(short-0|long-0) +ready +\d", line)]
    assert [row.split()[0] for row in rows] == ["short-0", "long-0"]
    assert any(re.match(r"\d\d:\d\d:\d\d long-0 starting→ready", line) for line in lines)
    assert "q quit" in lines[-1]
    assert terminal.attributes() != terminal.before

    terminal.size(60, 14)
    lines = terminal.until("the narrow frame", lambda lines: len(lines) == 14)
    assert max(map(len, lines)) <= 60
    assert any(line.startswith("instance state") and "p99 ms" in line and "CPUs" not in line for line in lines)
    terminal.size(130, 30)
    terminal.type(b"s")
    lines = terminal.until("sorted by name", lambda lines: "by instance" in lines[-1])
    rows = [line.split()[0] for line in lines if re.match(r"(short|long)-0 +ready", line)]
    assert rows == ["long-0", "short-0"]
    terminal.type(b"r")
    terminal.until("the other way round", lambda lines: "by instance reversed" in lines[-1])
    terminal.type(b"?")
    terminal.until("help", lambda lines: any("sort by the next" in line for line in lines))
    terminal.type(b"q")  # any key leaves the help, this one too
    terminal.until("no help", lambda lines: not any("sort by the next" in line for line in lines))
    assert terminal.process.poll() is None
    terminal.type(b"q")
    assert terminal.process.wait(SECONDS) == 0
    assert terminal.attributes() == terminal.before
    assert terminal.ended() == 0
    assert bytes(terminal.output).endswith(GIVEN_BACK)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda terminal: terminal.type(b"\x03"), 130),
        (lambda terminal: terminal.type(b"\x1c"), -signal.SIGQUIT),
        (lambda terminal: terminal.process.send_signal(signal.SIGTERM), -signal.SIGTERM),
        (lambda terminal: terminal.process.send_signal(signal.SIGHUP), -signal.SIGHUP),
    ],
    ids=["Ctrl-C", "Ctrl-backslash", "SIGTERM", "SIGHUP"],
)
def test_a_signal_ends_it_and_gives_the_terminal_back(
    shared_system: Any, open_terminal: Open, end: Callable[[Terminal], Any], status: int
) -> None:
    terminal = open_terminal(words(shared_system.runtime))
    terminal.until("a frame", lambda lines: len(lines) == 30)
    end(terminal)
    assert terminal.process.wait(SECONDS) == status
    assert terminal.attributes() == terminal.before
    terminal.ended()
    assert bytes(terminal.output).endswith(GIVEN_BACK)


SHELL = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, child.pid)
_, status = os.waitpid(child.pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), status
os.tcsetpgrp(0, os.getpgrp())
print("the shell's turn", flush=True)
assert input() == "fg"
os.tcsetpgrp(0, child.pid)
os.killpg(child.pid, signal.SIGCONT)
sys.exit(child.wait())
"""
"""As much of a shell as stops a job and takes it into the foreground again."""


def test_stopped_by_ctrl_z_the_shell_has_its_terminal_and_on_return_the_frame_is_drawn_anew(
    shared_system: Any, open_terminal: Open
) -> None:
    terminal = open_terminal([sys.executable, "-c", SHELL, *words(shared_system.runtime)])
    terminal.until("a frame", lambda lines: len(lines) == 30)
    terminal.type(b"\x1a")
    terminal.until("it is stopped", lambda _: b"the shell's turn" in terminal.output)
    assert terminal.attributes() == terminal.before
    assert GIVEN_BACK in bytes(terminal.output)
    del terminal.output[:]
    terminal.type(b"fg\n")
    terminal.until("a frame again", lambda lines: len(lines) == 30)
    terminal.type(b"q")
    assert terminal.process.wait(SECONDS) == 0
    assert terminal.attributes() == terminal.before


@pytest.mark.parametrize("name", ["frame", "look"], ids=["while it draws", "in the thread that asks"])
def test_an_error_inside_it_is_shown_on_the_terminal_as_it_was(
    shared_system: Any, open_terminal: Open, name: str
) -> None:
    program = (
        "import sys\nfrom orchestrator.cli import main, top\ncalls = []\n"
        "def fails(*given):\n    calls.append(given)\n    if len(calls) > 2: raise ZeroDivisionError('on purpose')\n"
        f"    return works(*given)\nworks, top.{name} = top.{name}, fails\nsys.exit(main.main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", program, "top", "--runtime-dir", str(shared_system.runtime), "--interval", "0.1"]
    terminal = open_terminal(arguments)
    assert terminal.process.wait(SECONDS) == 1
    assert terminal.attributes() == terminal.before
    terminal.ended()
    assert b"ZeroDivisionError: on purpose" in bytes(terminal.output).partition(GIVEN_BACK)[2]


def test_after_a_stop_from_outside_it_is_drawn_anew(shared_system: Any, open_terminal: Open) -> None:
    terminal = open_terminal(words(shared_system.runtime, "--interval", "60"))
    terminal.until("a frame", lambda lines: len(lines) == 30)
    terminal.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOWAIT)
    del terminal.output[:]
    terminal.process.send_signal(signal.SIGCONT)
    terminal.until("a frame again", lambda lines: len(lines) == 30)
    terminal.type(b"q")
    assert terminal.process.wait(SECONDS) == 0
    assert terminal.attributes() == terminal.before


def test_a_terminal_that_goes_away_ends_it(shared_system: Any, open_terminal: Open) -> None:
    terminal = open_terminal(words(shared_system.runtime, "--interval", "0.1"))
    terminal.until("a frame", lambda lines: len(lines) == 30)
    os.close(terminal.slave)
    terminal.slave = -1
    master, terminal.master = terminal.master, -1
    os.close(master)
    terminal.process.wait(SECONDS)


def test_an_orchestrator_that_dies_is_told_in_the_frame_and_so_is_that_it_is_back(
    start_system: Callable[..., Any], open_terminal: Open
) -> None:
    first = start_system("--instances", "1")
    terminal = open_terminal(words(first.runtime, "--interval", "0.1"), NO_COLOR="1")
    pid = first.process.pid
    terminal.until("the first", lambda lines: f"pid {pid}" in lines[0])
    assert re.findall(rb"\x1b\[3[0-9]m", bytes(terminal.output)) == []
    first.process.kill()
    first.process.wait(SECONDS)
    lines = terminal.until("it is told", lambda lines: "✖ no answer for" in lines[2])
    assert "no orchestrator runs here" in lines[2]
    assert any(line.startswith("all-0") for line in lines), "what was last known stays"
    terminal.until("it is counted", lambda lines: re.search("no answer for 0m(0[1-9]|[1-5])", lines[2]))
    second = start_system("--instances", "1")
    assert second.runtime == first.runtime
    terminal.until("the second", lambda lines: f"pid {second.process.pid}" in lines[0] and "no answer" not in lines[2])
    terminal.type(b"q")
    assert terminal.process.wait(SECONDS) == 0


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "top", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def test_once_prints_a_frame_without_escape_sequences_into_a_pipe(shared_system: Any) -> None:
    done = run("--once", "--runtime-dir", str(shared_system.runtime), COLUMNS="140", PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("● ready  http://")
    assert [line.split()[0] for line in done.stdout.splitlines() if re.match(r"\w+-0 +ready", line)] == [
        "short-0",
        "long-0",
    ]
    poor = run("--once", "--runtime-dir", str(shared_system.runtime), PYTHONIOENCODING="ascii")
    assert poor.returncode == 0
    assert poor.stdout.isascii()
    assert poor.stdout.startswith("* ready")


def test_without_a_terminal_or_with_one_that_cannot_place_text_it_names_the_way_out(
    shared_system: Any, open_terminal: Open
) -> None:
    done = run("--runtime-dir", str(shared_system.runtime))
    assert done.returncode == 2
    assert "--once" in done.stderr
    assert "status --json" in done.stderr
    terminal = open_terminal(words(shared_system.runtime), TERM="dumb")
    assert terminal.ended() == 2
    assert b"TERM is unset or dumb" in terminal.output
    assert b"\x1b" not in terminal.output


def test_without_an_orchestrator_it_says_so_and_leaves_the_terminal_alone(tmp_path: Path, open_terminal: Open) -> None:
    done = run("--once", "--runtime-dir", str(tmp_path))
    assert done.returncode == 1
    assert "no orchestrator runs here" in done.stderr
    terminal = open_terminal(words(tmp_path))
    assert terminal.ended() == 1
    assert b"no orchestrator runs here" in terminal.output
    assert b"\x1b" not in terminal.output


@pytest.mark.parametrize("wrong", [("--interval", "0"), ("--interval", "nan"), ("--sort", "speed"), ("--json",)])
def test_wrong_arguments_end_it_with_2(wrong: tuple[str, ...]) -> None:
    assert run(*wrong).returncode == 2
