"""How do the cells of a matrix look as a table? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.bench.cells import MatrixRow
from orchestrator.bench.columns import aligned, milliseconds


def matrix_cells(rows: Sequence[MatrixRow]) -> list[list[str]]:
    """Head and lines of the matrix, for `aligned` and for the page."""
    lines = [
        ["form", "instances", "batch", "tokens", "p50 ms", "p95", "p99", "min", "first", "sequences/s", "tokens/s",
         "CPU s/1000", "private MiB", "rss MiB", "spread", "waited", ""]
    ]  # fmt: skip
    lines += [
        [
            f"{row.precision} {row.engine}",
            f"{row.instances} × {row.cores}",
            str(row.batch),
            str(row.length),
            *(milliseconds(each) for each in (row.p50_ms, row.p95_ms, row.p99_ms, row.min_ms, row.first_ms)),
            f"{row.sequences_per_second:.1f}",
            f"{row.tokens_per_second:.0f}",
            f"{row.cpu_seconds_per_1000:.2f}",
            f"{row.private_mib:.0f}",
            f"{row.rss_mib:.0f}",
            "-" if row.spread is None else f"{row.spread:.0%}",
            "-" if row.waited is None else f"{row.waited:.0%}",
            "noisy" if row.noisy else "",
        ]
        for row in rows
    ]
    return lines


def matrix_table(rows: Sequence[MatrixRow]) -> str:
    """For people. A row is one cell; `instances` is how many at once × the cores of each."""
    return aligned(matrix_cells(rows), left=2) if rows else "nothing was measured"
