"""How do messages name CPUs, nodes and counts? Pure."""

from __future__ import annotations

from collections.abc import Iterable

from topology.cpuset import format_cpulist


def cpus_in_words(numbers: Iterable[int]) -> str:
    """`CPU 3`, `CPUs 0-3,8`."""
    known = set(numbers)
    return f"{'CPU' if len(known) == 1 else 'CPUs'} {format_cpulist(known)}"


def nodes_in_words(numbers: Iterable[int]) -> str:
    """`node 0`, `nodes 0-1`."""
    known = set(numbers)
    return f"{'node' if len(known) == 1 else 'nodes'} {format_cpulist(known)}"


def counted(number: int, noun: str) -> str:
    """`1 core`, `3 cores`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
