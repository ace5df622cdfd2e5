"""Which sequence lengths does each entry of a layout prefer? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.schema import InstanceGroup


def group_ranges(groups: Sequence[InstanceGroup]) -> list[tuple[int, int | None]]:
    """Per entry the shortest and the longest sequence in tokens, both inclusive; None means up to the model's limit.

    An entry that gives no `min_seqlen` follows on: it begins one above the next smaller `max_seqlen` of another entry.
    """
    tops = sorted({group.max_seqlen for group in groups if group.max_seqlen is not None})
    ranges: list[tuple[int, int | None]] = []
    for group in groups:
        below = [top for top in tops if group.max_seqlen is None or top < group.max_seqlen]
        follows_on = below[-1] + 1 if below else 1
        ranges.append((follows_on if group.min_seqlen is None else group.min_seqlen, group.max_seqlen))
    return ranges


def first_gap(ranges: Sequence[tuple[int, int | None]]) -> tuple[int, int] | None:
    """The first lengths that no range holds although a later one begins above them, or None."""
    covered = 0
    for low, high in sorted(ranges, key=lambda each: each[0]):
        if low > covered + 1:
            return covered + 1, low - 1
        if high is None:
            return None
        covered = max(covered, high)
    return None
