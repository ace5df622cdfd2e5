"""Which sockets of a service manager are taken, and what is said of those that cannot be?"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.listening import ListenError, listen

SCRIPT = """\
import json, os, sys
from orchestrator.listening import ListenError, Said, passed
said = json.loads(sys.argv[1])
os.environ["LISTEN_PID"] = sys.argv[2] or os.environ["LISTEN_PID"]
try:
    found = passed(os.environ, os.getpid(), Said(**said))
except ListenError as error:
    print(f"unworkable={error.unworkable} {error}")
else:
    print(None if found is None else f"{found.endpoint} kept={found.kept} {found.fds} {[os.get_inheritable(fd) for fd in found.fds]}")
"""

ACTIVATE = Path(__file__).parents[2] / "support" / "activate.py"


def passing(*fds: int, said: str = "{}", pid: str = "", count: str | None = None, names: str = "") -> str:
    """What a process says to which these descriptors are passed from 3 on, as a service manager does."""
    words = {} if count is None else {"LISTEN_FDS": count}
    done = subprocess.run(
        [sys.executable, str(ACTIVATE), ",".join(map(str, fds)), sys.executable, "-c", SCRIPT, said, pid],
        pass_fds=fds,
        env={**os.environ, **words, "LISTEN_FDNAMES": names},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def held() -> Iterator[Callable[[socket.socket], int]]:
    sockets: list[socket.socket] = []

    def hold(one: socket.socket) -> int:
        sockets.append(one)
        return one.fileno()

    yield hold
    for one in sockets:
        one.close()


@pytest.fixture
def tcp(held: Callable[[socket.socket], int]) -> tuple[int, int]:
    """A descriptor of a listening socket, and its port."""
    one = socket.create_server(("127.0.0.1", 0))
    return held(one), one.getsockname()[1]


def test_a_listening_socket_is_taken_and_not_inherited(tcp: tuple[int, int]) -> None:
    assert passing(tcp[0]) == f"http://127.0.0.1:{tcp[1]} kept=True (3,) [False]"


def test_several_sockets_are_taken_of_each_family(
    tcp: tuple[int, int], held: Callable[[socket.socket], int], tmp_path: Path
) -> None:
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "http"))
    local.listen()
    assert passing(tcp[0], held(local)) == f"http://127.0.0.1:{tcp[1]} kept=True (3, 4) [False, False]"
    assert passing(held(local)) == f"unix:{tmp_path / 'http'} kept=True (3,) [False]"


def test_what_was_meant_for_another_process_is_left_alone(tcp: tuple[int, int]) -> None:
    assert passing(tcp[0], pid="1") == "None"
    assert passing(tcp[0], count="0") == "None"


@pytest.mark.parametrize("said", ['{"port": PORT}', '{"host": "127.0.0.1"}', '{"host": "localhost", "port": 0}'])
def test_an_address_that_was_written_down_and_is_the_same_is_no_contradiction(tcp: tuple[int, int], said: str) -> None:
    assert passing(tcp[0], said=said.replace("PORT", str(tcp[1]))).startswith("http://127.0.0.1")


@pytest.mark.parametrize(
    ("said", "words"), [('{"port": 1}', "says port 1"), ('{"host": "127.0.0.2"}', "says host 127.0.0.2")]
)
def test_a_contradiction_names_both_addresses_and_what_to_do(tcp: tuple[int, int], said: str, words: str) -> None:
    answer = passing(tcp[0], said=said)
    assert answer.startswith("unworkable=True the command line " + words)
    assert f"listens on 127.0.0.1:{tcp[1]}" in answer
    assert "ListenStream=" in answer


def test_descriptors_that_no_connection_can_be_accepted_at(
    held: Callable[[socket.socket], int], tcp: tuple[int, int], tmp_path: Path
) -> None:
    idle = socket.socket()
    assert "descriptor 3 (http), passed by the service manager, does not listen" in passing(held(idle), names="http")
    assert "is no stream socket" in passing(held(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
    file = os.open(tmp_path, os.O_RDONLY)
    try:
        assert "is no socket" in passing(file)
    finally:
        os.close(file)
    assert "descriptor 4, passed by the service manager, is not open" in passing(tcp[0], count="2")
    for nonsense in ("many", "-1", "100000"):
        assert f"LISTEN_FDS='{nonsense}'" in passing(tcp[0], count=nonsense)


def test_an_address_that_this_host_has_not_is_refused() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:8080") as refused:
        listen("192.0.2.1", 8080)
    assert not refused.value.unworkable  # it may come: an interface that is still being set up
