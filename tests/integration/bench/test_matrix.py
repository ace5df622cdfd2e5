"""Are cells measured in processes of their own, and what happens when one of these dies, hangs or cannot load?"""

from __future__ import annotations

import os
import runpy
import signal
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from orchestrator.bench.cells import LostCell, MatrixRow, Placement, Shape, Subject
from orchestrator.bench.matrix import Matrix, measure_matrix, nodes_of, subjects_of
from orchestrator.bench.placements import placements
from orchestrator.models import Prepared, prepare
from orchestrator.models.choose import Wish
from orchestrator.models.optimize import tune
from orchestrator.models.progress import Step
from topology.sysfs import read_machine

tiny: Any = runpy.run_path(str(Path(__file__).parents[2] / "data" / "models" / "tiny_models.py"))
SHAPES = [Shape(1, 8), Shape(2, 16)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Prepared:
    model = tiny["write"](tmp_path_factory.mktemp("models") / "tiny", tiny["CASES"]["bert-cls"])
    return prepare(str(model), cache=cache)


@pytest.fixture
def subject(prepared: Prepared) -> Subject:
    return Subject(prepared.status.id, {0: prepared.artefact})


@pytest.fixture(scope="module")
def one() -> list[Placement]:
    return placements(read_machine(), (1,), (1,))


def measuring() -> list[psutil.Process]:
    return [
        child for child in psutil.Process().children(recursive=True) if "orchestrator.bench.cell_process" in child.cmdline()
    ]  # fmt: skip


def test_every_cell_becomes_a_row_and_no_process_is_left(prepared: Prepared, cache: Path) -> None:
    places = placements(read_machine(), (1,), (1, "fill"))
    tuned = tune(prepared, cache, Wish("fp32", "onnxruntime"), None, lambda _: None)
    subjects = subjects_of(tuned, tuned.study.variants, nodes_of(places))
    steps: list[Step] = []
    found = measure_matrix(subjects, places, SHAPES, seconds=0.1, rounds=2, show=steps.append)
    assert found.lost == []
    assert [(row.instances, row.batch, row.length) for row in found.rows] == [
        (place.instances, shape.batch, shape.length) for place in places for shape in SHAPES
    ]
    for row in found.rows:
        assert row.runs >= 2 * row.instances
        assert 0.0 < row.min_ms <= row.p50_ms <= row.p95_ms <= row.p99_ms
        assert row.tokens_per_second == pytest.approx(row.sequences_per_second * row.length, rel=1e-2)
        assert 0.0 < row.private_mib <= row.rss_mib
        assert row.cpu_seconds_per_1000 > 0.0
        assert row.spread is not None
        assert (row.engine, row.precision) == ("onnxruntime", "fp32")
        assert len(row.cpus) == row.instances
    assert steps[-1].done == steps[-1].total == len(places) * len(SHAPES) * 2
    assert measuring() == []


def test_a_process_that_is_killed_loses_its_cell_and_the_others_are_measured(
    subject: Subject, one: list[Placement]
) -> None:
    killed: list[int] = []

    def kill_once(step: Step) -> None:
        if step.done == 1:  # the first shape of the first round is done; the second is next
            (child,) = measuring()
            child.send_signal(signal.SIGKILL)
            killed.append(child.pid)

    found = measure_matrix([subject], one, SHAPES, seconds=0.1, rounds=2, show=kill_once)
    assert [(row.batch, row.length) for row in found.rows] == [(1, 8)]
    (cell,) = found.lost
    assert (cell.batch, cell.length) == (2, 16)
    assert "SIGKILL" in cell.error
    assert str(killed[0]) in cell.error
    assert measuring() == []


def test_a_process_that_hangs_loses_its_cell_after_the_deadline(subject: Subject, one: list[Placement]) -> None:
    def stop_once(step: Step) -> None:
        if step.done == 1:
            measuring()[0].send_signal(signal.SIGSTOP)

    found = measure_matrix([subject], one, SHAPES, seconds=0.1, rounds=2, deadline_seconds=3.0, show=stop_once)
    assert [(row.batch, row.length) for row in found.rows] == [(1, 8)]
    (cell,) = found.lost
    assert "said nothing for 3 s" in cell.error
    assert measuring() == []


def test_a_placement_whose_processes_die_again_and_again_is_given_up(subject: Subject, one: list[Placement]) -> None:
    shapes = [Shape(1, length) for length in range(8, 16)]

    def kill_each(step: Step) -> None:
        for child in measuring():
            child.send_signal(signal.SIGKILL)

    found = measure_matrix([subject], one, shapes, seconds=0.05, rounds=1, show=kill_each)
    assert [cell.error.startswith("given up") for cell in found.lost] == [False, False, False, True, True]
    assert [row.length for row in found.rows] == [8, 10, 12], "what was measured before stays"


def test_what_cannot_be_loaded_or_bound_is_said_once_and_the_next_form_is_measured(
    subject: Subject, one: list[Placement]
) -> None:
    artefact = subject.artefacts[0]
    gone = Subject("gone", {0: msgspec.structs.replace(artefact, path="/nowhere/graph.onnx")})
    nowhere = msgspec.structs.replace(one[0], places=(msgspec.structs.replace(one[0].places[0], cpus=(4095,)),))
    found = measure_matrix([gone, subject], [nowhere, *one], [SHAPES[0]], seconds=0.05, rounds=1)
    assert [(cell.model, cell.batch) for cell in found.lost] == [("gone", None), ("gone", None), (subject.model, None)]
    assert "cannot run on CPUs [4095]" in found.lost[0].error
    assert "/nowhere/graph.onnx" in found.lost[1].error
    assert [row.model for row in found.rows] == [subject.model]


def test_a_shape_that_the_model_cannot_take_is_lost_in_the_engine_s_words(
    subject: Subject, one: list[Placement]
) -> None:
    found = measure_matrix([subject], one, [Shape(1, 8), Shape(1, 4096)], seconds=0.05, rounds=1)
    assert [(cell.batch, cell.length) for cell in found.lost] == [(1, 4096)]
    assert [row.length for row in found.rows] == [8]


def test_an_interrupted_sweep_hands_over_what_it_has(subject: Subject, one: list[Placement]) -> None:
    taken = Matrix()

    def interrupt(step: Step) -> None:
        if step.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        measure_matrix([subject], one, SHAPES, seconds=0.1, rounds=2, show=interrupt, take=taken.take)
    assert [(row.batch, row.length) for row in taken.rows] == [(1, 8)]
    assert isinstance(taken.rows[0], MatrixRow)
    assert not any(isinstance(each, LostCell) for each in taken.rows)
    assert measuring() == []
