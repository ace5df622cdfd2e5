"""`orchestrator topology`: what machine is this, and what of it may this process use?"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from pathlib import Path

from orchestrator.cli.errors import FAILED, USAGE, CommandError
from topology.capture import write_capture
from topology.model import Machine, TopologyError
from topology.render import describe
from topology.sysfs import read_machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sysroot",
        type=Path,
        metavar="DIR",
        help="read a captured tree, a --capture archive or a file of lscpu output, not this machine",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument(
        "--capture",
        type=Path,
        metavar="FILE.tar.gz",
        help="pack the files that were read, for a bug report: no serial numbers, host names or process names",
    )


def run(args: argparse.Namespace) -> int:
    sysroot = args.sysroot or Path("/")
    if not sysroot.exists():
        raise CommandError(f"--sysroot {sysroot}: no such file or directory; name the root of a captured tree", USAGE)
    try:
        if args.capture is not None:
            write_capture(sysroot, args.capture)
            print(f"wrote {args.capture}; `orchestrator topology --sysroot {args.capture}` reads it", file=sys.stderr)
            return 0
        machine = read_machine(sysroot)
    except TopologyError as error:
        raise CommandError(str(error), FAILED) from error
    if args.json:
        print(json.dumps(document(machine)))
    else:
        print(describe(machine, shutil.get_terminal_size().columns))
    return 0


def document(machine: Machine) -> dict[str, object]:
    """The JSON form: the fields of `Machine` under their names (json writes the node ids of `distances` as strings)."""
    return dataclasses.asdict(machine)
