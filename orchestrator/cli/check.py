"""`orchestrator check`: can this layout file work on this machine, and if not, why not?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from orchestrator.cli.errors import UNWORKABLE
from orchestrator.cli.plan import add_sysroot, machine_of
from orchestrator.config.check import check_layout
from orchestrator.config.load import LayoutErrors, load_layout
from orchestrator.config.problem import Problem
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.preload import libraries
from topology.model import Machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layout", type=Path, metavar="LAYOUT", help="Layout file to check.")
    add_sysroot(parser)
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")


def run(args: argparse.Namespace) -> int:
    machine = machine_of(args.sysroot)
    problems, planned = checked(args.layout, machine, live=args.sysroot.resolve() == Path("/"))
    if args.json:
        warnings = planned.warnings if planned is not None else []
        document = {"layout": str(args.layout), "ok": not problems, "problems": list(problems), "warnings": warnings}
        print(msgspec.json.encode(document).decode())
    elif problems:
        print("\n".join(map(str, problems)))
    elif planned is not None:
        count = len(planned.instances)
        print(f"{args.layout}: OK, {count} {'instance' if count == 1 else 'instances'}, policy {planned.policy}")
        print("".join(f"warning: {warning}\n" for warning in planned.warnings), end="")
    return UNWORKABLE if problems else 0


def checked(path: Path, machine: Machine, live: bool) -> tuple[Sequence[Problem], Plan | None]:
    """Every problem of the file on this machine; the plan if there is none. `live`: it is the machine that this runs on."""
    try:
        layout = load_layout(path)
    except LayoutErrors as error:
        return error.problems, None
    problems = check_layout(layout, machine)
    if live:
        problems += libraries(layout, os.environ).problems
    if problems:
        return problems, None
    try:
        return [], plan(machine, PlanRequest(layout=layout))
    except PlanError as error:
        place = layout.places.of("instances")
        line, column = (place.line, place.column) if place is not None else (None, None)
        return [Problem(str(path), line, column, "instances" if layout.instances else "", str(error))], None
