"""Which command was asked for, and what exit code does its error deserve?

Each command is a module `orchestrator.cli.NAME` with `add_arguments(parser)` and `run(args) -> int`. Only the module of the
command at hand is imported, so that `topology` does not pay for what `up` needs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from orchestrator import __version__
from orchestrator.cli.errors import CommandError

COMMANDS: dict[str, str] = {
    "up": "start everything and serve until Ctrl-C",
    "down": "stop the running orchestrator, answering what it accepted",
    "status": "what is running: states, cores, queue, throughput, latency",
    "top": "the live view in a terminal: a row per instance with its last minute, events, warnings",
    "logs": "what was said, by whom and when, whether it runs or not",
    "restart": "a new process for one part, or for each instance in turn, with no request lost",
    "drain": "take an instance out of service; its process stays",
    "resume": "put a drained instance back into service",
    "reload": "another layout, model or count of instances, with no request lost",
    "topology": "the machine: packages, NUMA nodes, cache domains, cores, SMT siblings",
    "plan": "the layout, without starting anything, and the reasons for it",
    "simulate": "the router that ships on a virtual clock: another machine, another load, each policy",
    "tune": "measure this machine with this model and write the best layout",
    "check": "validate a layout file against the schema and the machine",
    "doctor": "what of this host costs speed or prevents serving, and the command that mends it",
    "bench": "how fast this machine is with this model: the matrix of cells without a server, and served load",
    "optimize": "make and measure every form of a model that this CPU can run",
    "systemd": "systemd units for this host: print or install them",
    "models": "the cache of artefacts: list, show, prune",
}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="orchestrator", description="Serve transformer models on CPU servers.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"orchestrator {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    for name, purpose in COMMANDS.items():
        sub = commands.add_parser(
            name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".", allow_abbrev=False
        )
        if name == chosen:
            importlib.import_module(f"orchestrator.cli.{name}").add_arguments(sub)
    args = parser.parse_args(words)
    try:
        return int(importlib.import_module(f"orchestrator.cli.{args.command}").run(args))
    except CommandError as error:
        print(f"orchestrator {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `orchestrator topology | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
