"""Whose cores are whose on this host? One orchestrator does not take what another holds.

Theory of operation. For each CPU that an instance runs on, the supervisor listens on a unix socket in the abstract namespace
whose name is the CPU's number. Only one process can hold a name, and the kernel drops it with the process, however that ends:
nothing is ever stale, and no folder is needed that all users may write to. Who holds a CPU is asked by connecting: SO_PEERCRED
names the process that listens. The namespace is that of the network: containers with networks of their own do not see one
another here; they have cpusets for that. Source: unix(7), "Abstract sockets" and SO_PEERCRED.
"""

from __future__ import annotations

import errno
import selectors
import socket
import struct
from collections.abc import Iterable

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class ClaimError(Exception):
    """Another orchestrator holds one of these CPUs: says which and whose."""


class Claims:
    """The CPUs that this process holds. `scope` keeps worlds apart that share a host, such as tests."""

    def __init__(self, scope: str = "host") -> None:
        self._scope = scope
        self._held: dict[int, socket.socket] = {}
        self._asked = selectors.EpollSelector()

    def taken(self, cpus: Iterable[int]) -> dict[int, str]:
        """Of these CPUs those that another holds, each with its holder in words."""
        found: dict[int, str] = {}
        for cpu in cpus:
            holder = None if cpu in self._held else self._holder(cpu)
            if holder is not None:
                found[cpu] = holder
        return found

    def claim(self, cpus: Iterable[int]) -> None:
        """Takes all of them, or none: ClaimError names the first that another holds."""
        taken: dict[int, socket.socket] = {}
        for cpu in sorted(set(cpus) - self._held.keys()):
            one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                one.bind(self._name(cpu))
                one.listen(64)
            except OSError as error:
                for other in (one, *taken.values()):
                    other.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                raise ClaimError(
                    f"CPU {cpu} is held by {self._holder(cpu) or 'an orchestrator that has just ended'}"
                ) from None
            taken[cpu] = one
        for one in taken.values():
            one.setblocking(False)
            self._asked.register(one, selectors.EVENT_READ)
        self._held.update(taken)

    @property
    def held(self) -> frozenset[int]:
        """The CPUs that this process holds."""
        return frozenset(self._held)

    def keep_only(self, cpus: Iterable[int]) -> None:
        """Lets go of all others."""
        for cpu in self._held.keys() - set(cpus):
            one = self._held.pop(cpu)
            self._asked.unregister(one)
            one.close()

    def attend(self) -> None:
        """Hangs up on those who have asked; to be called now and then, so that they do not fill the queue."""
        for key, _ in self._asked.select(0):
            asker, _ = key.fileobj.accept()  # type: ignore[union-attr]
            asker.close()

    def close(self) -> None:
        self._asked.close()
        for one in self._held.values():
            one.close()
        self._held.clear()

    def _name(self, cpu: int) -> str:
        return f"\0orchestrator/{self._scope}/cpu/{cpu}"

    def _holder(self, cpu: int) -> str | None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.setblocking(False)
            try:
                asking.connect(self._name(cpu))
            except BlockingIOError:
                return "another orchestrator"  # its backlog is full of other askers
            except OSError:
                return None
            pid, uid, _ = _CREDENTIALS.unpack(
                asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            return f"another orchestrator (pid {pid}, user {uid})"
