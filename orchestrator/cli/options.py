"""Which options do several commands share? Their names, types and help; defaults come from the layout schema."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from orchestrator.paths import cache_folder, runtime_folder


def count_or_auto(text: str) -> int | None:
    """`auto` → None, else a whole number from 1 on."""
    if text == "auto":
        return None
    try:
        count = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} instances: at least 1, or auto")
    return count


def add_runtime_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime-dir",
        metavar="DIR",
        help="folder of sockets and lock (default: $ORCHESTRATOR_RUNTIME_DIR, else the user's own under /run)",
    )


def runtime_dir(args: argparse.Namespace) -> Path:
    return runtime_folder(args.runtime_dir, os.environ, os.getuid())


def add_cache_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="folder of built artefacts (default: $ORCHESTRATOR_CACHE_DIR, else the user's cache)",
    )


def cache_dir(args: argparse.Namespace) -> Path:
    return cache_folder(args.cache_dir, os.environ)


def claim_scope() -> str:
    """Orchestrators share out the cores of a host among themselves; $ORCHESTRATOR_CLAIM_SCOPE keeps worlds apart, such as tests."""
    return os.environ.get("ORCHESTRATOR_CLAIM_SCOPE", "host")
