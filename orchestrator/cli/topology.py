"""`orchestrator topology`: what machine is this, and what of it may this process use?"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from orchestrator.cli.errors import FAILED, USAGE, CommandError
from topology.model import Machine, TopologyError
from topology.sysfs import read_machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sysroot", type=Path, metavar="DIR", help="read a captured tree, not this machine")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    machine = load(args.sysroot)
    if args.json:
        print(json.dumps(document(machine)))
    else:
        print(machine)
    return 0


def load(sysroot: Path | None) -> Machine:
    """The machine of `--sysroot`, the live one without. CommandError says what is wrong with it."""
    if sysroot is not None and not sysroot.exists():
        raise CommandError(f"--sysroot {sysroot}: no such file or directory", USAGE)
    try:
        return read_machine(sysroot or Path("/"))
    except TopologyError as error:
        raise CommandError(str(error), FAILED) from error


def document(machine: Machine) -> dict[str, object]:
    """The JSON form of the machine."""
    return dataclasses.asdict(machine)
