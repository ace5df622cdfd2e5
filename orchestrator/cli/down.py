"""`orchestrator down`: stop the running orchestrator, answering what it accepted."""

from __future__ import annotations

import argparse
import fcntl
import os
import time
from pathlib import Path

from orchestrator.cli.errors import CommandError
from orchestrator.cli.options import add_runtime_dir, number, runtime_dir
from orchestrator.supervisor.control import ControlError, ask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--now", action="store_true", help="Stop at once; what is unanswered is lost.")
    parser.add_argument(
        "--timeout", type=number(0, 86_400), default=60.0, metavar="SECONDS", help="How long to wait for its end."
    )
    add_runtime_dir(parser)


def run(args: argparse.Namespace) -> int:
    folder = runtime_dir(args)
    try:
        ask(folder / "control.sock", "down", now=args.now)
    except ControlError as error:
        raise CommandError(str(error)) from None
    _wait_for_the_end(folder / "lock", args.timeout)
    return 0


def _wait_for_the_end(lock: Path, seconds: float) -> None:
    """The supervisor holds the lock for as long as it lives."""
    deadline = time.monotonic() + seconds
    fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CommandError(
                        f"still draining after {seconds:g} s; `orchestrator down --now` stops it at once"
                    ) from None
                time.sleep(0.02)
            else:
                return
    finally:
        os.close(fd)
