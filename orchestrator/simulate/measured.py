"""Which cost table do the cells of a measured matrix make? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.bench.cells import MatrixRow
from orchestrator.simulate.costs import VERSION, CostError, CostFile, Point, TrueCosts


def cost_file(rows: Sequence[MatrixRow], engine_version: str, cpu: str, source: str) -> CostFile:
    """Of the fastest run of each cell: what else ran on the machine only ever adds. CostError if the cells say too little.

    Of cells that differ by the number of instances alone the one with the fewest counts: the law between numbers of threads
    (`costs.TrueCosts`) is one of instances that have the machine to themselves.
    """
    forms = {(row.model, row.engine, row.precision) for row in rows}
    if len(forms) != 1:
        said = ", ".join(f"{precision} on {engine}" for _, engine, precision in sorted(forms)) or "none"
        raise CostError(f"a cost table is of one form of a model, measured were: {said}")
    ((model, engine, precision),) = forms
    best: dict[tuple[int, int, int], MatrixRow] = {}
    for row in sorted(rows, key=lambda each: each.instances):
        best.setdefault((row.cores, row.batch, row.length), row)
    file = CostFile(
        version=VERSION,
        model=model,
        engine=engine,
        engine_version=engine_version,
        precision=precision,
        cpu=cpu,
        source=source,
        points=[
            Point(cores, batch, length, round(row.min_ms / 1e3, 7))
            for (cores, batch, length), row in sorted(best.items())
        ],
    )
    TrueCosts(file, "these cells")
    return file
