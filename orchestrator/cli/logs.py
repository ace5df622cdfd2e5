"""`orchestrator logs`: what was said, by whom and when, whether the orchestrator runs or not?"""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import get_args

from orchestrator.cli.errors import CommandError
from orchestrator.cli.options import add_runtime_dir, log_dir, runtime_dir, whole
from orchestrator.config.suggest import did_you_mean
from orchestrator.logs.read import Reader, every_line, known, merge
from orchestrator.logs.record import Record, encode, for_people
from orchestrator.logs.trace import trace
from orchestrator.paths import pointed_logs
from workers.said import Level

LINES = 100
POLL_MS = 250
_LEVELS = get_args(Level)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "instances",
        nargs="*",
        metavar="INSTANCE",
        help="whose lines: short-0, router, gateway-0, supervisor (default: all, by time)",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is added, until Ctrl-C")
    parser.add_argument(
        "-n",
        "--lines",
        type=_count,
        default=LINES,
        metavar="N|all",
        help=f"how many of the last lines (default: {LINES})",
    )
    parser.add_argument("--level", choices=_LEVELS, default=_LEVELS[0], help="no lines below this level")
    parser.add_argument(
        "--request",
        metavar="ID",
        help="only what was said of one request: its x-request-id, or the router's name for it",
    )
    parser.add_argument("--json", action="store_true", help="one JSON array; with --follow one object a line")
    parser.add_argument(
        "--log-dir",
        metavar="DIR",
        help="folder of the log files (default: where the orchestrator of --runtime-dir writes)",
    )
    add_runtime_dir(parser)


def _count(text: str) -> int | None:
    return None if text == "all" else whole(0, 1_000_000_000)(text)


def run(args: argparse.Namespace) -> int:
    if args.follow and args.request is not None:
        raise CommandError("--follow and --request: one looks ahead, the other back; leave one of them out", 2)
    folder = _folder(args)
    try:
        names = _chosen(folder, args.instances)
        with ExitStack() as held:
            readers = {name: held.enter_context(closing(Reader(folder, name))) for name in names}
            _print(args, folder, readers)
    except PermissionError as error:
        raise CommandError(
            f"{error.filename or folder}: permission denied; run this as the orchestrator's user"
        ) from None
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CommandError(f"{error.filename or folder}: {error.strerror or error}") from None
    return 0


def _print(args: argparse.Namespace, folder: Path, readers: dict[str, Reader]) -> None:
    width = max(map(len, readers), default=0) + 3
    form: Callable[[Record], str] = (
        (lambda record: encode(record).decode()) if args.json else (lambda record: for_people(record, width))
    )
    shown = _past(args, folder, readers)
    printed = 0
    if args.json and not args.follow:
        printed = _print_array(shown)
    else:
        for record in shown:
            printed += 1
            sys.stdout.write(form(record))
        sys.stdout.flush()
    if args.request is not None and not printed:
        raise CommandError(
            f"no line in {folder} names the request {args.request}; requests that are answered at once leave none "
            "unless the layout says logs: {access: all}"
        )
    if args.follow:
        _follow(folder, readers, everybody=not args.instances, show=_filtered(args.level, form))


def _folder(args: argparse.Namespace) -> Path:
    if args.log_dir is not None:
        return Path(args.log_dir).absolute()
    return pointed_logs(runtime_dir(args)) or log_dir(args)


def _chosen(folder: Path, asked: list[str]) -> list[str]:
    try:
        names = known(folder)
    except (FileNotFoundError, NotADirectoryError):
        names = []
    if not names:
        raise CommandError(
            f"no log files in {folder}; `orchestrator up` writes them, and --runtime-dir or --log-dir says where another one does"
        )
    for name in asked:
        if name not in names:
            meant = f"{meant}; " if (meant := did_you_mean(name, names)) else ""
            raise CommandError(f"no log of {name!r} in {folder}; {meant}there are {', '.join(names)}")
    return list(dict.fromkeys(asked)) or names


def _past(args: argparse.Namespace, folder: Path, readers: dict[str, Reader]) -> Iterable[Record]:
    """What there is so far; once it has been gone through, every reader stands at its end."""
    count = args.lines
    if args.request is not None:
        found = trace(args.request, lambda: merge(every_line(folder, name) for name in readers))
        return [record for record in found if _weighs(record, args.level)]
    if count is not None and args.level == _LEVELS[0]:
        records = list(merge([reader.back(count) for reader in readers.values()]))
        return records[-count:] if count else []
    every = merge(reader.forward() for reader in readers.values())
    weighty = (record for record in every if _weighs(record, args.level))
    return weighty if count is None else deque(weighty, count)


def _weighs(record: Record, level: str) -> bool:
    return _LEVELS.index(record.level) >= _LEVELS.index(level)


def _filtered(level: str, form: Callable[[Record], str]) -> Callable[[Iterable[Record]], None]:
    def show(records: Iterable[Record]) -> None:
        text = "".join(form(record) for record in records if _weighs(record, level))
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()

    return show


def _print_array(records: Iterable[Record]) -> int:
    """Prints them one a line; returns how many."""
    count = 0
    for record in records:
        sys.stdout.write(("[" if count == 0 else ",\n ") + encode(record).decode().rstrip("\n"))
        count += 1
    sys.stdout.write("]\n" if count else "[]\n")
    sys.stdout.flush()
    return count


def _follow(
    folder: Path, readers: dict[str, Reader], *, everybody: bool, show: Callable[[Iterable[Record]], None]
) -> None:
    """Until Ctrl-C, or until nobody reads what is printed: `poll` tells that even while nothing is to be printed."""
    reader_gone = select.poll()
    reader_gone.register(sys.stdout.fileno(), 0)
    while True:
        if reader_gone.poll(POLL_MS):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if everybody:
            for name in known(folder):
                readers.setdefault(name, Reader(folder, name))
        show(merge([reader.more() for reader in readers.values()]))
