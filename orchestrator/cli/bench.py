"""`orchestrator bench matrix|load`: how fast is this machine with this model, without a server and with one?"""

from __future__ import annotations

import argparse

from orchestrator.cli import bench_load, bench_matrix

_KINDS = {"matrix": bench_matrix, "load": bench_load}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="matrix|load", required=True)
    for name, module in _KINDS.items():
        sub = kinds.add_parser(name, help=module.PURPOSE, description=f"{module.PURPOSE}.", allow_abbrev=False)
        module.add_arguments(sub)


def run(args: argparse.Namespace) -> int:
    return int(_KINDS[args.kind].run(args))
