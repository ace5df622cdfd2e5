"""Which options do several commands share? Their names, types and help; defaults come from the layout schema."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.config.declared import bounds_of
from orchestrator.paths import cache_folder, log_folder, runtime_folder


def whole(low: int, high: float) -> Callable[[str], int]:
    """A whole number within these bounds, both inclusive."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number}: from {low} to {high:.15g}")
        return number

    return parse


def number(low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """A number within these bounds, both inclusive; with `above` it is larger than `low`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not (low < value if above else low <= value) or not value <= high:  # neither holds of NaN
            raise argparse.ArgumentTypeError(f"{text}: {'more than' if above else 'from'} {low:g} to {high:g}")
        return value

    return parse


def listed(one: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A list with commas between; each item as `one` reads it, the same one once."""

    def parse(text: str) -> list[Any]:
        items = [item.strip() for item in text.split(",")]
        if not all(items):
            raise argparse.ArgumentTypeError(f"{text!r}: an item is empty; write for example 1,2,4")
        return list(dict.fromkeys(one(item) for item in items))

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """One of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {', '.join(words)}")
        return text

    return parse


def word_or(word: str, otherwise: Callable[[str], Any]) -> Callable[[str], Any]:
    """This word as it is, and everything else as `otherwise` reads it."""

    def parse(text: str) -> Any:
        return word if text == word else otherwise(text)

    return parse


def as_declared(name: str) -> Callable[[str], Any]:
    """The parser of a number that the layout declares, with the bounds that stand there; KeyError if there is none."""
    kind = bounds_of(name)
    if kind.kind is int:
        return whole(int(kind.ge or 0), math.inf if kind.le is None else kind.le)
    low = kind.gt if kind.gt is not None else kind.ge
    return number(low or 0.0, math.inf if kind.le is None else kind.le, above=kind.gt is not None)


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


def log_dir(args: argparse.Namespace) -> Path:
    """Where log files lie if nothing but the environment says it."""
    return log_folder(None, os.environ, os.getuid(), runtime_dir(args))


def claim_scope() -> str:
    """Orchestrators share out the cores of a host among themselves; $ORCHESTRATOR_CLAIM_SCOPE keeps worlds apart, such as tests."""
    return os.environ.get("ORCHESTRATOR_CLAIM_SCOPE", "host")
