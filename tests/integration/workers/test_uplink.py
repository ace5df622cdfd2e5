"""Does a worker make itself known to the router before it says that it is ready, and whenever the router is a new one?"""

from __future__ import annotations

import socket
from pathlib import Path

from workers.lane import Lane, as_worker
from workers.uplink import uplink

HELLO = b"hello"


def listening(path: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    end.bind(str(path))
    end.listen()
    return end


def heard(listener: socket.socket) -> list[bytes]:
    """What the next connection has said so far."""
    listener.settimeout(10)
    end, _ = listener.accept()
    with end:
        return [frame for frame, _ in Lane(end).receive()]


def test_the_router_has_the_hello_before_anything_else_is_done(tmp_path: Path) -> None:
    with listening(tmp_path / "local.sock") as router:
        up = uplink(f"unix://{tmp_path}/local.sock", b"short-0#3", HELLO)
        assert heard(router) == [as_worker(b"short-0#3"), HELLO]
        up.close()


def test_a_router_that_is_not_there_yet_is_told_as_soon_as_it_is(tmp_path: Path) -> None:
    up = uplink(f"unix://{tmp_path}/local.sock", b"short-0#3", HELLO)
    ours, theirs = socket.socketpair()
    with ours, theirs, listening(tmp_path / "local.sock") as router:
        assert up.wait(ours.fileno(), 0.0) == (False, [])
        assert heard(router) == [as_worker(b"short-0#3"), HELLO]
    up.close()
