"""Which drawings say what a matrix found? Latency over length per placement, and throughput as a map. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.bench.cells import MatrixRow
from orchestrator.bench.charts import Series, heat, lines


def matrix_charts(rows: Sequence[MatrixRow]) -> list[str]:
    """For each form of the model: latency of one sequence over its length; then one map of tokens/s over everything."""
    forms = list(dict.fromkeys((row.precision, row.engine) for row in rows))
    placements = list(dict.fromkeys((row.instances, row.cores) for row in rows))
    shapes = sorted({(row.batch, row.length) for row in rows})
    smallest = min((row.batch for row in rows), default=1)
    lengths = sorted({row.length for row in rows})
    found = []
    for form in forms:
        own = [row for row in rows if (row.precision, row.engine) == form and row.batch == smallest]
        series = [
            Series(_named(place), [(row.length, row.p50_ms) for row in own if (row.instances, row.cores) == place])
            for place in placements
        ]
        title = f"{form[0]} on {form[1]}: latency, batch {smallest}"
        found.append(lines(title, "tokens", "p50, ms", series, log_x=True, log_y=True, ticks=lengths))
    by_cell = {
        (row.precision, row.engine, row.instances, row.cores, row.batch, row.length): row.tokens_per_second for row in rows
    }  # fmt: skip
    found.append(
        heat(
            "Throughput of all instances",
            [f"{batch} × {length}" for batch, length in shapes],
            [
                (f"{form[0]} {form[1]}, {_named(place)}", [by_cell.get((*form, *place, *shape)) for shape in shapes])
                for form in forms
                for place in placements
            ],
            "tokens/s; columns: batch × tokens",
        )
    )
    return [each for each in found if each]


def _named(place: tuple[int, int]) -> str:
    instances, cores = place
    return f"{instances} × {cores} core{'s' if cores > 1 else ''}"
