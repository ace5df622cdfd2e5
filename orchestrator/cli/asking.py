"""How does a command ask the running orchestrator for something that takes a while, and how does it tell the outcome?"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

from orchestrator.cli.errors import CommandError
from orchestrator.cli.options import add_runtime_dir, number, runtime_dir
from orchestrator.supervisor.control import ControlError, ask
from orchestrator.supervisor.requests import LONGEST_WAIT_SECONDS, Outcome

GRACE_SECONDS = 5.0
"""The supervisor keeps the time; only one that is stopped or hung is given up by the command itself."""


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=number(0, LONGEST_WAIT_SECONDS, above=True),
        metavar="SECONDS",
        help="How long each part may take (default: as long as the layout's deadlines for drain and start).",
    )
    parser.add_argument("--json", action="store_true", help="One JSON document on standard output.")
    add_runtime_dir(parser)


def ask_and_tell(args: argparse.Namespace, command: str, **arguments: Any) -> int:
    """Asks, waits for the outcome, prints it. CommandError says why it did not come about."""
    if args.timeout is not None:
        arguments["timeout"] = args.timeout
    # Of several parts each has its time, and how many there are only the supervisor knows.
    wait = None if args.timeout is None or arguments.get("all") else args.timeout + GRACE_SECONDS
    try:
        body = ask(
            runtime_dir(args) / "control.sock",
            command,
            timeout=wait,
            on_progress=lambda line: print(line, file=sys.stderr, flush=True),
            arguments=arguments,
        )
        outcomes = msgspec.json.decode(body, type=list[Outcome])
    except ControlError as error:
        raise CommandError(str(error), error.exit_code) from None
    except msgspec.DecodeError as error:
        raise CommandError(f"the running orchestrator is of another version than this command: {error}") from None
    if args.json:
        print(msgspec.json.format(msgspec.json.encode({"parts": outcomes}), indent=2).decode())
    else:
        for outcome in outcomes:
            print(outcome.in_words())
    return 0
