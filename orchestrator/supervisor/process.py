"""What does the supervisor hold of one running child? Its process, its channel, the end of its output."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from orchestrator.logs.intake import Intake
from orchestrator.logs.journal import Speaker
from orchestrator.supervisor import spawn
from orchestrator.supervisor.core import Kind
from workers import channel
from workers.said import line_of
from workers.spec import FromChild, ToChild

_LIMITS = {resource.RLIMIT_NOFILE: "nofile", resource.RLIMIT_CORE: "core_mb", resource.RLIMIT_AS: "address_space_mb"}
"""As the layout names them."""
_decoder = msgspec.json.Decoder(FromChild)

PIPE_BYTES = 256 << 10
"""What a child may say while the supervisor does something else."""
TELL_DROPPED_SECONDS = 1.0
LAST_READS = 32
"""Of what a child leaves in its pipe; a grandchild that still writes there must not keep us."""
MOST_UNSENT = 16 << 20
"""A child that reads nothing for so long is dead to us: it is left to its beats."""


class Process:
    """One incarnation. `on_message`, `on_output` and `on_exit` are called from the event loop."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        incarnation: int,
        *,
        on_message: Callable[[FromChild], None],
        on_output: Callable[[Speaker, bytes], None],
        on_exit: Callable[[str], None],
    ) -> None:
        self.name = name
        self.kind = kind
        self.speaker = Speaker(name, kind, incarnation, None)
        """How the log names it."""
        self._intake = Intake()
        self._telling: asyncio.TimerHandle | None = None
        self._on_message = on_message
        self._on_output = on_output
        self._on_exit = on_exit
        self._popen: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._lines = channel.Lines()
        self._unsent = bytearray()
        self._pidfd = -1
        self._output = -1

    def spawn(
        self,
        *,
        threads: int,
        pass_fds: Sequence[int],
        start: ToChild,
        environment: Mapping[str, str],
        limits: Mapping[int, int],
    ) -> int:
        """Starts the process and sends its specification; returns its pid. OSError if it cannot be started."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            output, their_output = os.pipe2(os.O_CLOEXEC)
        except OSError:
            ours.close()
            theirs.close()
            raise
        try:
            self._popen = subprocess.Popen(
                spawn.command(self.kind, self.name, theirs.fileno(), sys.executable),
                stdin=subprocess.DEVNULL,
                stdout=their_output,
                stderr=their_output,
                pass_fds=(theirs.fileno(), *pass_fds),
                env=spawn.environment(self.kind, threads, os.environ, environment),
                # A group of its own: Ctrl-C in the terminal reaches the supervisor alone, and SIGKILL reaches all of a child.
                process_group=0,
            )
        except OSError:
            ours.close()
            os.close(output)
            raise
        finally:
            theirs.close()
            os.close(their_output)
        self._channel = ours
        ours.setblocking(False)
        loop.add_reader(ours, self._readable)
        self._output = output
        self.speaker = msgspec.structs.replace(self.speaker, pid=self._popen.pid)
        os.set_blocking(output, False)
        try:
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # the user's share of pipe memory is used up (pipe(7)); 64 KiB do
        loop.add_reader(output, self._output_readable)
        try:
            self._pidfd = os.pidfd_open(self._popen.pid)
            loop.add_reader(self._pidfd, self.reap)
        except OSError:  # before Linux 5.3: the tick reaps
            self._pidfd = -1
        for which, value in limits.items():
            self._limit(self._popen.pid, which, value)
        self.send(start)
        return self._popen.pid

    def _limit(self, pid: int, which: int, value: int) -> None:
        """From outside and before the specification is sent, on which the child waits: so no code of ours runs between fork and exec."""
        try:
            hard = resource.prlimit(pid, which)[1]
            if hard != resource.RLIM_INFINITY and value > hard:
                self._note(f"resource limit {_LIMITS[which]} is {hard}, as high as this user may set it, not {value}")
                value = hard
            resource.prlimit(pid, which, (value, hard))
        except ProcessLookupError:
            return  # it has just ended; reap says how
        except OSError as error:
            self._note(f"resource limit {_LIMITS[which]} could not be set: {error.strerror}")

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen is not None and self._popen.returncode is None else None

    @property
    def tail(self) -> Sequence[str]:
        """The last lines of its output."""
        return self._intake.tail

    def send(self, message: ToChild) -> None:
        """Queues one message; what the child does not read yet waits here."""
        if self._channel is None or len(self._unsent) > MOST_UNSENT:
            return
        idle = not self._unsent
        self._unsent += channel.encode(message)
        if idle:
            self._writable()

    def kill(self) -> None:
        """SIGKILL to its process group."""
        if self.pid is not None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return  # it has just ended; reap says how

    def reap(self) -> None:
        """Notices the end of the process, if it has ended."""
        if self._popen is None:
            return
        status = self._popen.poll()
        if status is None:
            return
        self._readable()  # its last words, such as why it failed, may still lie in the channel
        self._last_output()
        self._close()
        self._popen = None
        self._on_exit(signal.Signals(-status).name if status < 0 else f"exit {status}")

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._channel is not None:
            loop.remove_reader(self._channel)
            loop.remove_writer(self._channel)
            self._channel.close()
            self._channel = None
        for fd in (self._output, self._pidfd):
            if fd >= 0:
                loop.remove_reader(fd)
                os.close(fd)
        self._output = self._pidfd = -1

    def _writable(self) -> None:
        if self._channel is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                sent = self._channel.send(self._unsent)
                del self._unsent[:sent]
            loop.remove_writer(self._channel)
        except BlockingIOError:
            loop.add_writer(self._channel, self._writable)
        except OSError:  # it is dying; reap says how
            self._unsent.clear()
            loop.remove_writer(self._channel)

    def _readable(self) -> None:
        while self._channel is not None:
            try:
                data = self._channel.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                asyncio.get_running_loop().remove_reader(self._channel)
                return
            try:
                lines = self._lines.feed(data)
            except channel.ChannelError as error:
                self._note(f"dropped: {error}")
                self._lines = channel.Lines()
                continue
            for line in lines:
                try:
                    message = _decoder.decode(line)
                except msgspec.DecodeError as error:
                    self._note(f"dropped a malformed message: {error}: {line[:80]!r}")
                    continue
                self._on_message(message)

    def _output_readable(self) -> None:
        """One read; then others have their turn, and a child that floods waits a little in its own write."""
        if self._output < 0:
            return
        try:
            data = os.read(self._output, PIPE_BYTES)
        except BlockingIOError:
            return
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        if not data:
            loop.remove_reader(self._output)
        self._take(self._intake.feed(data, now) if data else self._intake.finish(now))
        pause = self._intake.pause(now)
        if pause > 0.0:
            loop.remove_reader(self._output)
            loop.call_later(pause, self._read_again, self._output)

    def _read_again(self, output: int) -> None:
        if self._output == output:
            asyncio.get_running_loop().add_reader(output, self._output_readable)

    def _last_output(self) -> None:
        now = time.monotonic()
        for _ in range(LAST_READS):
            try:
                data = os.read(self._output, PIPE_BYTES) if self._output >= 0 else b""
            except BlockingIOError:
                break
            if not data:
                break
            self._take(self._intake.feed(data, now))
        self._take(self._intake.finish(now))
        if self._telling is not None:
            self._telling.cancel()
            self._tell_dropped()

    def _take(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            self._on_output(self.speaker, line)
        if self._intake.dropped and self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_DROPPED_SECONDS, self._tell_dropped)

    def _tell_dropped(self) -> None:
        self._telling = None
        count = self._intake.take_dropped()
        if count:
            self._note(f"{count} lines of its output were dropped: it says more than a log can be worth", count)

    def _note(self, text: str, dropped: int = 1) -> None:
        """Ours, about what it said."""
        self._on_output(self.speaker, line_of(text, level="warning", event="dropped", dropped=dropped))
