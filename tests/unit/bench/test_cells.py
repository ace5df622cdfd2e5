"""Do the figures of a cell say what they are named after?"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestrator.bench.cells import NOISY, LostCell, MatrixRow, Place, Placement, Seen, Shape, Subject, lost, row_of
from workers.spec import Artefact

ARTEFACT = Artefact(path="m/graph.onnx", engine="onnxruntime", precision="int8", width=4, vocab_size=10, positions=64)
ONE_NODE = Subject("a-model", {0: ARTEFACT})
TWO_OF_TWO = Placement(2, (Place((0, 1), (0,)), Place((2, 3), (0,))), 1)


def seen(*milliseconds: float, first: float = 0.0, **more: Any) -> Seen:
    given = {"cpu_seconds": 0.0, "waited_seconds": 0.0, "private_bytes": 0, "rss_bytes": 0, **more}
    return Seen(first / 1e3, [each / 1e3 for each in milliseconds], **given)


def test_instances_add_up_and_batches_count_as_sequences() -> None:
    # The first instance makes a batch of four in 10 ms: 400 sequences/s; the second in 20 ms: 200.
    row = row_of(ONE_NODE, TWO_OF_TWO, Shape(4, 16), [[seen(10, 10, 10, 10), seen(20, 20)]])
    assert row.sequences_per_second == pytest.approx(600.0)
    assert row.tokens_per_second == pytest.approx(600.0 * 16)
    assert (row.runs, row.min_ms, row.p50_ms, row.p99_ms) == (6, 10.0, 10.0, 20.0)
    assert (row.instances, row.cores, row.cpus, row.batch, row.length) == (2, 2, [[0, 1], [2, 3]], 4, 16)
    assert (row.model, row.engine, row.precision) == ("a-model", "onnxruntime", "int8")


def test_cpu_time_is_per_thousand_sequences_and_memory_per_instance() -> None:
    rounds = [
        [seen(10, cpu_seconds=0.02, private_bytes=9 << 20), seen(10, cpu_seconds=0.02)],
        [
            seen(10, cpu_seconds=0.02, private_bytes=10 << 20, rss_bytes=40 << 20),
            seen(10, cpu_seconds=0.02, private_bytes=20 << 20, rss_bytes=60 << 20),
        ],
    ]
    row = row_of(ONE_NODE, TWO_OF_TWO, Shape(8, 16), rounds)
    assert row.cpu_seconds_per_1000 == pytest.approx(0.08 / 32 * 1000)
    assert (row.private_mib, row.rss_mib) == (15.0, 50.0), "of the last round"


def test_rounds_that_differ_are_said_to_be_noisy() -> None:
    calm = row_of(ONE_NODE, TWO_OF_TWO, Shape(1, 16), [[seen(10), seen(10)], [seen(10.5), seen(10.5)]])
    wild = row_of(ONE_NODE, TWO_OF_TWO, Shape(1, 16), [[seen(10), seen(10)], [seen(15), seen(15)]])
    assert calm.spread == pytest.approx(0.05)
    assert wild.spread == pytest.approx(0.5)
    assert (calm.noisy, wild.noisy) == (False, True)
    assert calm.spread < NOISY < wild.spread


def test_one_round_has_no_spread_and_threads_that_waited_make_a_row_noisy() -> None:
    # Two instances of two threads ran for 100 ms each; of these 400 ms threads waited 40.
    row = row_of(ONE_NODE, TWO_OF_TWO, Shape(1, 16), [[seen(100, waited_seconds=0.03), seen(100, waited_seconds=0.01)]])
    assert (row.spread, row.waited, row.noisy) == (None, pytest.approx(0.1), True)


def test_where_the_kernel_counts_no_waiting_there_is_none() -> None:
    row = row_of(ONE_NODE, TWO_OF_TWO, Shape(1, 16), [[seen(1, waited_seconds=None), seen(1)]])
    assert (row.waited, row.noisy) == (None, False)


def test_the_first_run_after_another_shape_is_a_figure_of_its_own() -> None:
    row = row_of(
        ONE_NODE, TWO_OF_TWO, Shape(1, 16), [[seen(1, first=5), seen(1, first=7)], [seen(1, first=6), seen(1, first=9)]]
    )
    assert (row.first_ms, row.p50_ms) == (6.5, 1.0)


def test_an_instance_loads_what_lies_on_the_node_of_its_memory() -> None:
    away = msgspec.structs.replace(ARTEFACT, path="node1/graph.onnx")
    subject = Subject("a-model", {0: ARTEFACT, 1: away})
    assert subject.artefact(Place((0,), (1,))) is away
    assert subject.artefact(Place((0,), ())) is ARTEFACT


def test_a_lost_cell_names_itself() -> None:
    cell = lost(ONE_NODE, TWO_OF_TWO, Shape(8, 128), "it died")
    assert str(cell) == "int8 on onnxruntime, 2 × 2 cores, batch 8, 128 tokens: not measured: it died"
    assert str(lost(ONE_NODE, TWO_OF_TWO, None, "no")) == "int8 on onnxruntime, 2 × 2 cores: not measured: no"
    assert set(LostCell.__struct_fields__) - set(MatrixRow.__struct_fields__) == {"error"}
