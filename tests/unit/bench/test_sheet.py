"""Can a spreadsheet read the rows?"""

from __future__ import annotations

import csv
import io
import re

import msgspec

from orchestrator.bench.cells import MatrixRow
from orchestrator.bench.matrix_charts import matrix_charts
from orchestrator.bench.matrix_table import matrix_cells, matrix_table
from orchestrator.bench.rows import InstanceRow, Latency, LoadRow
from orchestrator.bench.sheet import to_csv

ROW = MatrixRow(
    model="m, with a comma", engine="onnxruntime", precision="fp32", instances=2, cores=2, cpus=[[0, 1], [4, 6]], batch=1, length=16,
    runs=9, p50_ms=1.5, p95_ms=2.0, p99_ms=3.0, min_ms=1.25, first_ms=4.0, sequences_per_second=1000.0, tokens_per_second=16000.0,
    cpu_seconds_per_1000=1.0, private_mib=10.0, rss_mib=20.0, spread=None, waited=0.25,
)  # fmt: skip


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_one_line_per_row_under_the_names_of_the_json() -> None:
    (row,) = read(to_csv([ROW]))
    assert list(row) == list(msgspec.to_builtins(ROW))
    assert (row["model"], row["cpus"], row["spread"], row["p50_ms"]) == ("m, with a comma", "0-1;4,6", "", "1.5")


def test_parts_of_a_part_have_columns_of_their_own() -> None:
    load = LoadRow(
        name="by-seqlen", seconds=1.0, per_second=5.0, goodput_per_second=4.0, goodput_ms=100.0, latency=Latency(5, 1.0, 2.0, 3.0),
        classes={"short": Latency(5, 1.0)}, refused={"429": 2}, instances=[InstanceRow("short-0", 1, 0.5, 5, 1.0, 0.0)],
    )  # fmt: skip
    (row,) = read(to_csv([load]))
    assert (row["latency.p99_ms"], row["classes.short.p50_ms"], row["refused.429"]) == ("3.0", "1.0", "2")
    assert row["instances.short-0.utilisation"] == "0.5"


def test_rows_with_different_parts_share_one_head() -> None:
    second = msgspec.structs.replace(ROW, spread=0.5)
    assert [row["spread"] for row in read(to_csv([ROW, second]))] == ["", "0.5"]
    assert to_csv([]) == ""


def test_the_table_marks_noisy_rows_and_its_columns_stay_in_line() -> None:
    calm = msgspec.structs.replace(ROW, waited=0.01, spread=0.02)
    lines = matrix_table([ROW, calm]).splitlines()
    assert [line.endswith("noisy") for line in lines] == [False, True, False]
    assert lines[1].split()[:6] == ["fp32", "onnxruntime", "2", "×", "2", "1"]
    assert len({len(line) for line in matrix_cells([ROW, calm])}) == 1
    assert matrix_table([]) == "nothing was measured"


def test_each_form_is_drawn_and_one_map_shows_all() -> None:
    other = msgspec.structs.replace(ROW, precision="int8", length=32)
    charts = matrix_charts([ROW, other])
    assert len(charts) == 3
    assert len(re.findall(r"<td", charts[2])) == 4, "two forms with one placement, two shapes"
    assert matrix_charts([]) == []
