"""`orchestrator restart`: a new process for one part, or for every instance in turn, with no request lost."""

from __future__ import annotations

import argparse

from orchestrator.cli.asking import add_common_arguments, ask_and_tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("name", nargs="?", metavar="INSTANCE", help="An instance, router, or a gateway such as gateway-0.")
    who.add_argument(
        "--all", action="store_true", help="Every instance, one after another; the next only when the last is ready."
    )
    add_common_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return ask_and_tell(args, "restart", **({"all": True} if args.all else {"name": args.name}))
