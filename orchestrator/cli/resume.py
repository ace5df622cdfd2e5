"""`orchestrator resume`: a drained instance gets work again."""

from __future__ import annotations

import argparse

from orchestrator.cli.asking import add_common_arguments, ask_and_tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="INSTANCE", help="An instance that was drained.")
    add_common_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return ask_and_tell(args, "resume", name=args.name)
