"""`orchestrator top`: what is happening, live in a terminal?

The running system is asked in a thread of its own: a supervisor that does not answer must not keep a key waiting.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from orchestrator.cli.errors import CommandError
from orchestrator.cli.options import add_runtime_dir, number, runtime_dir
from orchestrator.cli.screen import Gone, Screen, Signalled
from orchestrator.history import History
from orchestrator.status import Status
from orchestrator.supervisor.control import ControlError, ask
from orchestrator.supervisor.requests import USAGE
from orchestrator.top.columns import SORTS
from orchestrator.top.frame import Heard, frame
from orchestrator.top.sparkline import SECONDS
from orchestrator.top.text import in_ascii, plain
from orchestrator.top.view import View, keys_in, pressed

INTERVAL_SECONDS = 2.0
ANSWER_SECONDS = 5.0
REDRAW_SECONDS = 1.0
"""While nobody answers, for how long is counted by the second."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    columns = ", ".join(SORTS[1:]).replace("%", "%%")  # argparse formats it
    parser.add_argument(
        "--interval",
        type=number(0.1, 3600),
        default=INTERVAL_SECONDS,
        metavar="SECONDS",
        help=f"how often it is asked anew (default: {INTERVAL_SECONDS:g})",
    )
    parser.add_argument("--sort", choices=SORTS[1:], default="", metavar="COLUMN", help=f"one of: {columns}")
    parser.add_argument("--reverse", action="store_true", help="the other way round")
    parser.add_argument("--once", action="store_true", help="print one frame, of all instances, and end; for pipes")
    add_runtime_dir(parser)


def run(args: argparse.Namespace) -> int:
    socket = runtime_dir(args) / "control.sock"
    view = View(sort=args.sort, reverse=args.reverse)
    if not args.once:
        _require_terminal()
    try:
        first = look(socket)
    except LookError as error:
        raise CommandError(str(error)) from None
    if args.once:
        for line in frame(first, view, shutil.get_terminal_size((120, 24)).columns, None).lines:
            print(plain(line) if _takes_unicode() else in_ascii(plain(line)))
        return 0
    ascii_only = not _takes_unicode()
    try:
        with Screen(
            sys.stdin.fileno(), sys.stdout.fileno(), colour="NO_COLOR" not in os.environ, ascii_only=ascii_only
        ) as screen:
            watcher = Watcher(lambda: look(socket), args.interval, screen.wake, first)
            watcher.start()
            try:
                _show(screen, watcher, view)
            finally:
                watcher.end()
    except Signalled as ended:
        _end_by(ended.number)
    except Gone:
        raise CommandError("the terminal is gone") from None
    return 0


class LookError(Exception):
    """Nothing was heard: says why."""


def look(socket: Path) -> Heard:
    """Asks once. LookError."""
    try:
        body = ask(socket, "status", timeout=ANSWER_SECONDS)
        return Heard(msgspec.json.decode(body, type=Status), _last_minute(socket))
    except ControlError as error:
        raise LookError(str(error)) from None
    except msgspec.DecodeError as error:
        raise LookError(f"the running orchestrator is of another version than this command: {error}") from None


def _last_minute(socket: Path) -> History | None:
    try:
        body = ask(socket, "history", timeout=ANSWER_SECONDS, step=2, seconds=SECONDS)
    except ControlError as error:
        if error.exit_code == USAGE:  # an orchestrator that was started before this version was installed
            return None
        raise
    return msgspec.json.decode(body, type=History)


class Watcher(threading.Thread):
    """Looks again and again until `end`; `wake` is called after each time, from its own thread."""

    def __init__(self, look: Callable[[], Heard], interval: float, wake: Callable[[], None], first: Heard) -> None:
        super().__init__(name="watcher", daemon=True)
        self._look = look
        self._interval = interval
        self._wake = wake
        self._over = threading.Event()
        self._heard = first
        self._heard_at = time.monotonic()
        self._trouble = ""
        self._fault: Exception | None = None

    @property
    def heard(self) -> Heard:
        """What was heard last, and how long ago if nothing comes any more. Raises what ended the thread, if something has."""
        if self._fault is not None:
            raise self._fault
        trouble = self._trouble
        if not trouble:
            return self._heard
        return dataclasses.replace(self._heard, silent_seconds=time.monotonic() - self._heard_at, trouble=trouble)

    def end(self) -> None:
        self._over.set()

    def run(self) -> None:
        while self._fault is None and not self._over.wait(self._interval):
            try:
                heard = self._look()
            except LookError as error:
                self._trouble = str(error)
            except Exception as error:  # noqa: BLE001 - a bug of ours: the main thread shows it, on the terminal as it was
                self._fault = error
            else:
                self._heard, self._heard_at, self._trouble = heard, time.monotonic(), ""
            if not self._over.is_set():
                self._wake()


def _show(screen: Screen, watcher: Watcher, view: View) -> None:
    """Until the reader has seen enough."""
    rest = b""
    while True:
        heard = watcher.heard
        columns, lines = screen.size
        drawn = frame(heard, view, columns, lines)
        screen.draw(drawn.lines)
        keys, rest = keys_in(rest + screen.wait(REDRAW_SECONDS if heard.trouble else None))
        for key in keys:
            if key == "q" and not view.help:
                return
            view = pressed(view, key, sorts=SORTS, rows=drawn.rows, page=drawn.page)


def _require_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError(
            "standard input and output are no terminal; print one frame with --once, or use `orchestrator status --json` in scripts",
            2,
        )
    if os.environ.get("TERM", "dumb") == "dumb":
        raise CommandError(
            "this terminal cannot place text (TERM is unset or dumb); print one frame with --once, or set TERM", 2
        )


def _takes_unicode() -> bool:
    try:
        "●▁█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _end_by(number: int) -> NoReturn:
    """As the signal would have ended it, so that whoever waits for this process sees why."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise AssertionError("unreachable: the default action of SIGTERM and SIGHUP ends the process")
