"""Is the page of a benchmark whole in a real browser, wide and narrow, light and dark?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from playwright.sync_api import Page

from orchestrator.bench.cells import MatrixRow
from orchestrator.bench.environment import Environment
from orchestrator.bench.matrix_charts import matrix_charts
from orchestrator.bench.matrix_table import matrix_cells
from orchestrator.bench.page import page as page_of

ROW = MatrixRow(
    model="m", engine="onnxruntime", precision="fp32", instances=1, cores=1, cpus=[[0]], batch=1, length=16, runs=9, p50_ms=1.5,
    p95_ms=2.0, p99_ms=3.0, min_ms=1.25, first_ms=4.0, sequences_per_second=1000.0, tokens_per_second=16000.0,
    cpu_seconds_per_1000=1.0, private_mib=10.0, rss_mib=20.0, spread=0.3, waited=0.0,
)  # fmt: skip
ENVIRONMENT = Environment(
    when="2026-01-02T03:04:05+00:00", seconds=1.5, cpu="a CPU", isa=["avx2"] * 30, cores=2, smt=1, numa=[], quota_cpus=None, kernel="6.1",
    governor="performance", turbo="on", transparent_huge_pages="madvise", numa_balancing="off", python="3.11", versions={}, commit=None,
    load_average_before=0.1, load_average_after=1.9, others_cpus=0.0, others=[], warnings=["something else ran"],
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_benchmark_fits_and_has_its_charts(
    open_page: Callable[..., Page], tmp_path: Path, scheme: Literal["light", "dark"]
) -> None:
    rows = [
        msgspec.structs.replace(ROW, precision=precision, cores=cores, length=length, p50_ms=length / 9.0 / cores)
        for precision in ("fp32", "int8")
        for cores in (1, 2)
        for length in (16, 128, 512)
    ]
    file = tmp_path / "matrix.html"
    file.write_text(page_of("m", ["said"], matrix_charts(rows), matrix_cells(rows), [], ENVIRONMENT, {"seed": 1}, 2))
    page: Any = open_page(color_scheme=scheme, viewport={"width": 360, "height": 700})
    page.goto(file.as_uri())
    assert page.locator("svg").count() == 2
    assert page.locator(".heat td").count() == 4 * 3
    assert page.locator("tr.noisy").count() == len(rows)
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"it scrolls sideways at {width}"
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert ink != paper
