"""How does the supervisor tell systemd how it is? Source: sd_notify(3); a datagram to $NOTIFY_SOCKET."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Says nothing where no service manager listens."""

    def __init__(self, address: str | None, watchdog_seconds: float | None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds
        self._pending: dict[str, str] = {}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> Notifier:
        """$WATCHDOG_USEC counts only if $WATCHDOG_PID is absent or this process."""
        microseconds = environment.get("WATCHDOG_USEC", "")
        for_us = environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        watchdog = int(microseconds) / 1e6 if microseconds.isdigit() and for_us else None
        return cls(environment.get("NOTIFY_SOCKET"), watchdog)

    def send(self, **fields: str) -> None:
        """`send(READY="1", STATUS="…")`. Never waits: what a busy manager does not take now goes with the next message.

        A manager that has gone away is not our failure: it is said once, and then nothing more is sent.
        """
        if not self._address:
            return
        self._pending.update(fields)
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        text = "\n".join(f"{name}={value}" for name, value in self._pending.items())
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            try:
                sender.sendto(text.encode(), socket.MSG_DONTWAIT, address)
                self._pending.clear()
            except BlockingIOError:
                return
            except OSError as error:
                print(f"cannot notify the service manager at {self._address}: {error}", flush=True)
                self._address = None


def scrub_environment() -> None:
    """Children must not believe that these are meant for them."""
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
