"""`orchestrator plan`: which instance would get which cores, memory and lengths, and why?"""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import get_args

import msgspec

from orchestrator.claims import Claims
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.options import as_declared, claim_scope, count_or_auto
from orchestrator.config.declared import option
from orchestrator.config.load import LayoutErrors, load_layout
from orchestrator.config.schema import Layout, Policy
from orchestrator.plan.explain import table, why_not
from orchestrator.plan.model import PlanError
from orchestrator.plan.numactl import numactl_script
from orchestrator.plan.pinned import to_yaml
from orchestrator.plan.solve import DEFAULT_MAX_SEQLEN, Decision, PlanRequest, decide
from topology.cpuset import format_cpulist
from topology.model import Machine, TopologyError
from topology.sysfs import read_machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--instances",
        type=count_or_auto,
        metavar="N|auto",
        help="How many instances; auto: as many as the machine bears.",
    )
    parser.add_argument("--policy", choices=get_args(Policy), help=option("policy").help)
    parser.add_argument("--max-seqlen", type=as_declared("max_seqlen"), metavar="N", help=option("max_seqlen").help)
    parser.add_argument("--layout", type=Path, metavar="FILE", help="Layout file; options given here go before it.")
    add_sysroot(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="Print one JSON document.")
    form.add_argument("--yaml", action="store_true", help="Print a layout file that pins this plan down.")
    form.add_argument("--numactl", action="store_true", help="Print a shell script of numactl lines that do the same.")
    form.add_argument("--why-not", metavar="CPU|nodeN", help="Say why this CPU or node has no instance.")


def add_sysroot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sysroot", type=Path, default=Path("/"), metavar="DIR", help="Read a captured tree instead of this machine."
    )


def run(args: argparse.Namespace) -> int:
    layout = layout_of(args.layout) if args.layout is not None else None
    machine = machine_of(args.sysroot)
    request = PlanRequest(instances=args.instances, policy=args.policy, max_seqlen=args.max_seqlen, layout=layout)
    try:
        decision = decide(machine, request)
    except PlanError as error:
        raise CommandError(str(error), UNWORKABLE) from error
    if args.sysroot == Path("/"):
        decision = _with_holders(decision)
    print(_printed(args, decision, machine, layout))
    return 0


def _with_holders(decision: Decision) -> Decision:
    """Says whose these cores are just now: `up` would plan around them, this plan shows what an idle machine would bear."""
    with closing(Claims(claim_scope())) as claims:
        taken = claims.taken(cpu for instance in decision.plan.instances for cpu in instance.cpus)
    holders = [
        f"CPUs {format_cpulist(cpu for cpu, its in taken.items() if its == holder)} are held by {holder}; "
        "an orchestrator started now would plan around them"
        for holder in sorted(set(taken.values()))
    ]
    plan = msgspec.structs.replace(decision.plan, warnings=[*decision.plan.warnings, *holders])
    return msgspec.structs.replace(decision, plan=plan)


def _printed(args: argparse.Namespace, decision: Decision, machine: Machine, layout: Layout | None) -> str:
    plan = decision.plan
    if args.json:
        return msgspec.json.encode(plan).decode()
    if args.yaml:
        return to_yaml(plan, layout).rstrip("\n")
    if args.numactl:
        return numactl_script(plan)
    if args.why_not is not None:
        try:
            return why_not(decision, machine, args.why_not)
        except ValueError as error:
            raise CommandError(f"--why-not: {error}", USAGE) from error
    assumed = "" if args.max_seqlen or layout is not None else f" (no model asked: up to {DEFAULT_MAX_SEQLEN} tokens)"
    first, _, rest = table(plan).partition("\n")
    return f"{first}{assumed}\n{rest}"


def layout_of(path: Path) -> Layout:
    """The layout in this file. CommandError with every problem, one a line."""
    try:
        return load_layout(path)
    except LayoutErrors as error:
        raise CommandError(f"the layout cannot be used\n{error}", UNWORKABLE) from error


def machine_of(sysroot: Path) -> Machine:
    """The machine under this root. CommandError if there is none."""
    if not sysroot.exists():
        raise CommandError(f"--sysroot {sysroot}: no such file or directory; name the root of a captured tree", USAGE)
    try:
        return read_machine(sysroot)
    except TopologyError as error:
        raise CommandError(str(error), FAILED) from error
