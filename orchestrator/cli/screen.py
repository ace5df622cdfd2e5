"""How does a command take the whole terminal and give it back as it was, whichever way it ends?

Plain ANSI (ECMA-48) and termios: what every terminal of the last decades understands, with no description file that a container may lack.
SIGINT, SIGTERM, SIGHUP and SIGQUIT are raised as `Signalled` in the main thread, so that they also end a write to a terminal that does
not take it. While the terminal is taken and given back they are held off.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType

from orchestrator.top.text import Line, in_ascii, painted

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
UNKNOWN = (80, 24)
"""Some terminals, such as a serial line, do not know their size."""
# The alternate screen, so that what stood there comes back; no cursor; no wrapping, so that a line that is too long cannot push others.
_TAKE = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_GIVE_BACK = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"


class Signalled(BaseException):
    """A signal that ends the program."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Gone(Exception):
    """The terminal is no more."""


class Screen:
    """A context. `keyboard` and `display` are descriptors of one terminal."""

    def __init__(self, keyboard: int, display: int, *, colour: bool, ascii_only: bool) -> None:
        self._keyboard = keyboard
        self._display = display
        self._colour = colour
        self._ascii = ascii_only
        self._before: list[int | list[bytes | int]] | None = None
        """The terminal's attributes; None while it is not ours."""
        self._handlers: dict[int, object] = {}
        self._shown = b""
        self._stop_asked = False
        self._continued = False
        self._wakeup_before = -1
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Screen:
        atexit.register(self.give_back)
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1) means it
                self._handle(number, _raise)
        self._handle(signal.SIGTSTP, self._stop_later)
        self._handle(signal.SIGCONT, self._continue_later)
        self._handle(signal.SIGWINCH, _nothing)  # it is enough that it wakes `wait`
        self._wakeup_before = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self.take()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.give_back()
        atexit.unregister(self.give_back)
        signal.set_wakeup_fd(self._wakeup_before)
        for number, before in self._handlers.items():
            signal.signal(number, before)  # type: ignore[arg-type]
        pipe, self._woken, self._waker = (self._woken, self._waker), -1, -1
        for descriptor in pipe:
            os.close(descriptor)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        try:
            columns, lines = os.get_terminal_size(self._display)
        except OSError:
            raise Gone from None
        if columns <= 0 or lines <= 0:
            return UNKNOWN
        return columns, lines

    def take(self) -> None:
        """Keys come at once and are not echoed; the other screen is ours."""
        with _held_off():
            try:
                self._before = self._before or termios.tcgetattr(self._keyboard)
                tty.setcbreak(self._keyboard, termios.TCSADRAIN)
            except termios.error:
                raise Gone from None
        self._shown = b""
        self._write(_TAKE)

    def give_back(self) -> None:
        """As it was before `take`; does nothing where it is not ours."""
        with _held_off():
            before, self._before = self._before, None
            if before is None:
                return
            with contextlib.suppress(OSError):  # a terminal that is gone needs nothing back
                os.write(self._display, _GIVE_BACK)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, before)

    def draw(self, lines: Sequence[Line]) -> None:
        """All lines, in one write; nothing if they are what is there already."""
        texts = [painted(line, colour=self._colour) for line in lines]
        whole = "\r\n".join(f"\x1b[2K{in_ascii(text) if self._ascii else text}" for text in texts)
        data = f"\x1b[H{whole}\x1b[J".encode("utf-8", "replace")
        if data != self._shown:
            self._write(data)
            self._shown = data

    def wake(self) -> None:
        """Ends a `wait`; may be called from any thread."""
        with contextlib.suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: nobody waits any more
            os.write(self._waker, b"\0")

    def wait(self, seconds: float | None) -> bytes:
        """What was typed; empty once the time is over, the size has changed, or somebody calls `wake`. Signalled, Gone."""
        ready, _, _ = select.select([self._keyboard, self._woken], [], [], seconds)
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
        if self._stop_asked:
            self._stop_asked = False
            self._stop()
        if self._continued:  # after a stop that we were not asked about (SIGSTOP) others have written there
            self._continued = False
            self.take()
        if self._keyboard not in ready:
            return b""
        try:
            typed = os.read(self._keyboard, 1024)
        except OSError:
            typed = b""
        if not typed:
            raise Gone
        return typed

    def _stop(self) -> None:
        """Ctrl-Z: the shell gets its terminal as it was; on return it is ours again, and drawn anew."""
        self.give_back()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop_later)
        self.take()

    def _stop_later(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a handler
        self._stop_asked = True

    def _continue_later(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a handler
        self._continued = True

    def _handle(self, number: int, handler: signal._HANDLER) -> None:
        self._handlers[number] = signal.signal(number, handler)

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._display, data) :]
            except BlockingIOError:  # somebody else who has this terminal has set it so
                select.select([], [self._display], [])
            except OSError:
                raise Gone from None


def _raise(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a handler
    raise Signalled(number)


def _nothing(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the shape of a handler
    return


@contextlib.contextmanager
def _held_off() -> Iterator[None]:
    """No signal ends us here; those that come meanwhile do afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
