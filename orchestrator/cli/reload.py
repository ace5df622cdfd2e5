"""`orchestrator reload`: another layout, model or count of instances takes the place of what runs, with no request lost."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from orchestrator.cli.errors import CommandError
from orchestrator.cli.options import add_runtime_dir, number, runtime_dir
from orchestrator.difference import ReloadReport
from orchestrator.supervisor.control import ControlError, ask

LONGEST_SECONDS = 86_400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layout",
        type=Path,
        metavar="FILE",
        help="Layout file (default: the one that is in force, read again); the options given to `up` still go before it.",
    )
    parser.add_argument("--dry-run", action="store_true", help="Show what would change, and change nothing.")
    parser.add_argument(
        "--timeout",
        type=number(0, LONGEST_SECONDS, above=True),
        metavar="SECONDS",
        help="How long it may take; after that what was in force is put back (default: as long as the layout's deadlines take).",
    )
    parser.add_argument("--json", action="store_true", help="One JSON document on standard output.")
    add_runtime_dir(parser)


def run(args: argparse.Namespace) -> int:
    arguments = {"dry_run": args.dry_run}
    if args.layout is not None:
        arguments["layout"] = str(args.layout.absolute())
    if args.timeout is not None:
        arguments["timeout"] = args.timeout
    try:
        body = ask(
            runtime_dir(args) / "control.sock",
            "reload",
            timeout=None,
            on_progress=lambda line: print(line, file=sys.stderr, flush=True),
            arguments=arguments,
        )
        report = msgspec.json.decode(body, type=ReloadReport)
    except ControlError as error:
        raise CommandError(str(error), error.exit_code) from None
    except msgspec.DecodeError as error:
        raise CommandError(f"the running orchestrator is of another version than this command: {error}") from None
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        print("\n".join(in_words(report)))
    return 0


def in_words(report: ReloadReport) -> list[str]:
    """What changes, one line each; then whether it has."""
    if report.is_empty:
        return ["nothing to change"]
    lines = [f"model        {report.model}"] if report.model else []
    lines += [f"add          {name}" for name in report.added]
    lines += [f"remove       {name}" for name in report.removed]
    lines += [f"restart      {name}: {'; '.join(why)}" for name, why in report.restarted.items()]
    lines += [f"other lengths for {name}, same process" for name in report.rerouted]
    lines += [f"unchanged    {', '.join(report.unchanged)}"] if report.unchanged else []
    lines += [f"routing      {change}" for change in report.routing]
    lines += [f"gateways     {change}" for change in report.gateways]
    lines += [f"housekeeping {report.housekeeping}"] if report.housekeeping else []
    lines += [f"settings     {change}" for change in report.settings]
    lines += [f"warning      {warning}" for warning in report.warnings]
    lines += [f"step {number}: {step}" for number, step in enumerate(report.steps, 1)]
    return [*lines, "nothing was changed (--dry-run)" if report.dry_run else f"done in {report.seconds:.1f} s"]
