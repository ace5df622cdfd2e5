"""How do the benchmarks give out what they found? As a table, JSON or CSV on standard output, and as files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.bench import outputs
from orchestrator.bench.environment import Environment
from orchestrator.bench.page import page
from orchestrator.bench.sheet import to_csv
from orchestrator.cli.errors import FAILED, USAGE, CommandError

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended (128 + SIGINT), as shells have it."""


@dataclass(frozen=True)
class Result:
    """What one benchmark found, in every form that it can be given out in."""

    kind: str
    title: str
    said: Sequence[str]
    """Lines above the figures."""
    rows: Sequence[msgspec.Struct]
    table: str
    cells: Sequence[Sequence[str]]
    """The same table, for the page."""
    left: int
    """Columns of words at its left."""
    charts: Sequence[str]
    notes: Sequence[str]
    """What could not be measured, or not be trusted."""
    settings: Mapping[str, Any]
    environment: Environment
    more: Mapping[str, Any]
    """Further fields of the JSON document."""


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="One JSON document on standard output: environment and rows.")
    form.add_argument("--csv", action="store_true", help="The rows as CSV on standard output.")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="Write the JSON document there as well, or CSV where the name ends so."
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="Write a page with charts there, one file for itself."
    )
    parser.add_argument("--force", action="store_true", help="Replace files that exist.")


def check_outputs(args: argparse.Namespace, **more: Path | None) -> None:
    """Before anything is measured. CommandError."""
    named = {
        "--out": args.out,
        "--html": args.html,
        **{f"--{name.replace('_', '-')}": path for name, path in more.items()},
    }
    try:
        outputs.check({option: path for option, path in named.items() if path is not None}, force=args.force)
    except outputs.OutputError as error:
        raise CommandError(str(error), USAGE) from None


def give_out(
    args: argparse.Namespace, result: Result, more: Sequence[tuple[str, Path, Callable[[], str]]] = ()
) -> None:
    """Prints first, so that a disk that is full costs the files and not the figures. CommandError names what was not written."""
    document = {
        "benchmark": result.kind,
        "environment": result.environment,
        "settings": result.settings,
        "rows": result.rows,
        **result.more,
    }
    as_json = msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
    deaf: OSError | None = None
    try:
        _print(args, result, as_json)
    except OSError as error:  # the reader has gone, or its disk is full: the files are wanted all the same
        deaf = error
    files, problems = [], []
    for option, path, make in more:
        try:
            files.append((option, path, make()))
        except CommandError as error:
            problems.append(str(error))
    if args.out is not None:
        files.append(("--out", args.out, to_csv(result.rows) if args.out.suffix == ".csv" else as_json))
    if args.html is not None:
        text = page(
            result.title, result.said, result.charts, result.cells, result.notes, result.environment, result.settings, result.left
        )  # fmt: skip
        files.append(("--html", args.html, text))
    problems += outputs.write(files)
    if isinstance(deaf, BrokenPipeError) and not problems:
        raise deaf
    if deaf is not None:
        problems.append(f"standard output: {deaf.strerror}")
    if problems:
        raise CommandError("; ".join(problems), FAILED)


def _print(args: argparse.Namespace, result: Result, as_json: str) -> None:
    if args.json:
        print(as_json, end="")
    elif args.csv:
        print(to_csv(result.rows), end="")
    else:
        print("\n".join([*result.said, "", result.table, *_told(result)]))
    sys.stdout.flush()
    if args.json or args.csv:
        for line in _told(result):
            print(line, file=sys.stderr)


def _told(result: Result) -> list[str]:
    lines = [*result.notes, *(f"warning: {each}" for each in result.environment.warnings)]
    return ["", *lines] if lines else []
