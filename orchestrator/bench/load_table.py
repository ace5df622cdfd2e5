"""How do the rows of a load test look as a table, and as drawings? Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.bench.charts import Series, lines
from orchestrator.bench.columns import milliseconds
from orchestrator.bench.rows import CLASSES, Latency, LoadRow

NOISY = 0.15
"""Spread of the rounds' throughput from which on a row is marked."""


def load_cells(rows: Sequence[LoadRow]) -> list[list[str]]:
    """Head and lines, for `columns.aligned` and for the page."""
    kinds = _kinds(rows)
    head = ["", "load", "offered/s", "answered/s", "good/s", "p50 ms", "p90", "p99", "max"]
    for kind in kinds:
        head += [f"{kind} p50", "p99"]
    found = [[*head, "batch", "CPU s/1000", "lag p99", "not answered", ""]]
    for row in rows:
        line = [
            row.name,
            row.load,
            "-" if row.offered_per_second is None else f"{row.offered_per_second:.1f}",
            f"{row.per_second:.1f}",
            "-" if row.goodput_per_second is None else f"{row.goodput_per_second:.1f}",
            *(
                milliseconds(each)
                for each in (row.latency.p50_ms, row.latency.p90_ms, row.latency.p99_ms, row.latency.max_ms)
            ),
        ]
        for kind in kinds:
            of_kind = row.classes.get(kind, Latency())
            line += [milliseconds(of_kind.p50_ms), milliseconds(of_kind.p99_ms)]
        line += [
            "-" if row.batch_mean is None else f"{row.batch_mean:.2f}",
            "-" if row.cpu_seconds_per_1000 is None else f"{row.cpu_seconds_per_1000:.2f}",
            milliseconds(row.lag_p99_ms),
            ", ".join(f"{count} × {why}" for why, count in row.refused.items()) or "0",
            " ".join(_marks(row)),
        ]
        found.append(line)
    return found


def details(row: LoadRow) -> list[str]:
    """Where the time goes, and who answered."""
    said = []
    if row.stages:
        parts = (f"{stage} {milliseconds(of.p50_ms)} / {milliseconds(of.p99_ms)}" for stage, of in row.stages.items())
        said.append(f"{row.name}, {row.load}: stages, p50 / p99 ms: {', '.join(parts)}")
    if row.served_by:
        parts = (
            f"{name} {of.count} ({milliseconds(of.p50_ms)} / {milliseconds(of.p99_ms)} ms, batch {of.batch_mean:.2f})"
            for name, of in row.served_by.items()
        )
        said.append(f"{row.name}, {row.load}: answered by {', '.join(parts)}")
    return said


def load_charts(rows: Sequence[LoadRow]) -> list[str]:
    """Latency over what was answered per second, of all requests and of each class; a line per contestant."""
    names = list(dict.fromkeys(row.name for row in rows))
    found = []
    for title, kind in (("all requests", ""), *((f"{kind} requests", kind) for kind in _kinds(rows))):
        series = []
        for name in names:
            for share in ("p50", "p99"):
                points = [
                    (row.per_second, value)
                    for row in rows
                    if row.name == name
                    and (value := getattr(row.latency if not kind else row.classes.get(kind, Latency()), f"{share}_ms"))
                ]
                series.append(Series(f"{share} {name}", points))
        found.append(lines(f"Latency of {title}", "answered per second", "ms", series, log_y=True))
    return [each for each in found if each]


def _kinds(rows: Sequence[LoadRow]) -> list[str]:
    named = {kind for row in rows for kind in row.classes}
    if len(named) < 2:
        return []
    return [*(kind for kind in CLASSES if kind in named), *sorted(named - set(CLASSES))]


def _marks(row: LoadRow) -> list[str]:
    return [
        word for word, holds in (("INVALID", row.invalid is not None), ("noisy", (row.spread or 0.0) > NOISY)) if holds
    ]
