"""Where are connections taken: at sockets of our own, or at those that a service manager holds and passes on?

Theory of operation. A connection that is made while nobody accepts waits in the listening socket, as long as anybody holds that. The
supervisor holds it while gateways come and go, so none of theirs is refused. Under socket activation the service manager holds it
while orchestrators come and go: it is closed here without a word (never shut down, which would end it for all who hold it), and
what waits in it is answered by the next orchestrator. All gateways accept from the one socket. With SO_REUSEPORT each would have a queue
of its own, and a gateway that dies would take what waits in it along.
Source: sd_listen_fds(3), systemd.socket(5), listen(2), socket(7).
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST_PASSED = 3
"""Descriptors are passed from this one on. Source: SD_LISTEN_FDS_START of sd_listen_fds(3)."""
BACKLOG = 4096
"""Connections that may wait. The kernel cuts it at net.core.somaxconn, which is 4096 since Linux 5.4."""
MOST_PASSED = 64


class ListenError(Exception):
    """It cannot listen: what, where, why, what to do. `unworkable`: nor can it at the next try."""

    def __init__(self, message: str, unworkable: bool = False) -> None:
        super().__init__(message)
        self.unworkable = unworkable


@dataclass(frozen=True)
class Said:
    """The address that somebody has written down, as opposed to the default. None: nobody has."""

    host: str | None = None
    port: int | None = None
    where: str = "the command line"


@dataclass(frozen=True)
class Listening:
    """Sockets that listen. At least one."""

    sockets: tuple[socket.socket, ...]
    kept: bool
    """Whether a service manager holds them as well: they outlive this process, and so does what waits in them."""

    @property
    def fds(self) -> tuple[int, ...]:
        return tuple(one.fileno() for one in self.sockets)

    @property
    def endpoint(self) -> str:
        """Of the first socket: `http://127.0.0.1:8080`, or `unix:/run/orchestrator.http`."""
        return address_in_words(self.sockets[0], "http://")

    def close(self) -> None:
        """Lets go of them. For whoever else holds them nothing changes."""
        for one in self.sockets:
            one.close()


def listen(host: str, port: int) -> Listening:
    """A socket of our own, bound and listening. ListenError if there can be none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ListenError(
            f"cannot listen on {host!r}: {error.strerror}; name an address of this host with --host", True
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot listen on {host}:{port}: {error.strerror}; name another with --port, or see who has it: ss -ltnp 'sport = :{port}'"
        ) from None
    return Listening((listener,), kept=False)


def passed(environment: Mapping[str, str], pid: int, said: Said) -> Listening | None:
    """The sockets that a service manager has passed to this process; None if it has passed none.

    ListenError if one of them is no listening stream socket, or if none of them has the address that somebody has written down.
    """
    if environment.get("LISTEN_PID") != str(pid):
        return None  # they were meant for a process before us
    words = environment.get("LISTEN_FDS", "")
    if not words.isdecimal() or int(words) > MOST_PASSED:
        raise ListenError(f"LISTEN_FDS={words!r}: expected how many sockets are passed, 0 to {MOST_PASSED}", True)
    fds = range(FIRST_PASSED, FIRST_PASSED + int(words))
    if not fds:
        return None
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    for number, fd in enumerate(fds):
        name = names[number] if number < len(names) else ""
        _check(fd, f"descriptor {fd}{f' ({name})' if name else ''}, passed by the service manager,")
    sockets = tuple(socket.socket(fileno=fd) for fd in fds)
    for one in sockets:
        one.set_inheritable(False)  # gateways are given it by name
    if not any(_is_at(one, said) for one in sockets):
        wanted = " and ".join(
            f"{key} {value}" for key, value in (("host", said.host), ("port", said.port)) if value is not None
        )
        passed_on = ", ".join(address_in_words(one, "") for one in sockets)
        raise ListenError(
            f"{said.where} says {wanted}, and the service manager has passed a socket that listens on {passed_on}; "
            "make ListenStream= of the socket unit the same (`orchestrator systemd --install` does), or say no address",
            True,
        )
    return Listening(sockets, kept=True)


def address_in_words(one: socket.socket, scheme: str) -> str:
    """`127.0.0.1:8080` or `[::1]:8080` behind the scheme; a unix socket as `unix:PATH`, an abstract one as `unix:@NAME`."""
    name: Any = one.getsockname()
    if one.family == socket.AF_UNIX:
        path = os.fsdecode(name)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    host, port = name[:2]
    return f"{scheme}[{host}]:{port}" if ":" in host else f"{scheme}{host}:{port}"


def _check(fd: int, what: str) -> None:
    """ListenError unless connections can be accepted at this descriptor."""
    mend = "pass a socket unit with ListenStream= and Accept=no"
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        raise ListenError(f"{what} is not open; {mend}", True) from None
    if not is_socket:
        raise ListenError(f"{what} is no socket; {mend}", True)
    one = socket.socket(fileno=os.dup(fd))
    try:
        if one.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise ListenError(
                f"{what} is a socket of family {int(one.family)}, neither internet nor unix; {mend}", True
            )
        if one.type != socket.SOCK_STREAM:
            raise ListenError(f"{what} is no stream socket (ListenDatagram= is not HTTP); {mend}", True)
        if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ListenError(f"{what} does not listen, it is one connection (Accept=yes); {mend}", True)
    finally:
        one.close()


def _is_at(one: socket.socket, said: Said) -> bool:
    """Whether a socket is at the address that was written down; what was not written down fits any."""
    if said.host is None and not said.port:
        return True
    if one.family == socket.AF_UNIX:
        return False
    host, port = one.getsockname()[:2]
    if said.port and port != said.port:  # port 0 is any
        return False
    if said.host is None:
        return True
    try:
        found = socket.getaddrinfo(said.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return False
    return host in {address[0] for *_, address in found}
