"""Are costs measured where they have to be, kept where they can be, and never believed where they cannot be true?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from workers import costs
from workers.costs import FORMAT, RUNS, Conditions, Table, UnusableTable
from workers.spec import Artefact, WorkerSpec
from workers.wire import Cost

HERE = Conditions("a CPU", "1.2.3")
POINTS = [Cost(16, 1, 1e-3), Cost(512, 1, 44e-3)]


class Engine:
    """Takes a microsecond per token on a clock of its own."""

    def __init__(self, seconds_per_token: float = 1e-6) -> None:
        self.now = 0.0
        self.shapes: list[tuple[int, int]] = []
        self._per_token = seconds_per_token

    def run(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        assert input_ids.dtype == attention_mask.dtype == np.int32
        assert input_ids.max() < 100
        assert token_type_ids is not None
        self.shapes.append(input_ids.shape)
        self.now += self._per_token * input_ids.size
        return np.zeros((len(input_ids), 4), np.float32)

    def clock(self) -> float:
        return self.now


def spec_of(folder: Path | str, *, threads: int = 1, max_seqlen: int = 128, graph: str = "model.onnx") -> WorkerSpec:
    artefact = Artefact(
        str(Path(folder) / "digest" / graph), "onnxruntime", "int8", width=4, vocab_size=100, positions=512, token_types=True
    )  # fmt: skip
    return WorkerSpec("a", 1, [0], [0], 1, threads, "ipc:///none", max_seqlen, [], artefact, costs=str(folder))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of these engines take too little for a real clock to tell: the machine counts as calm."""
    monkeypatch.setattr(costs, "MOST_UNREST", 1e9)


@pytest.fixture
def kept(tmp_path: Path, said: list[str]) -> Path:
    """The file of a table that was just measured."""
    assert costs.costs_of(Engine(), spec_of(tmp_path), said.append)
    (path,) = tmp_path.glob("*.json")
    return path


def test_a_table_is_measured_once_and_read_at_the_next_start(tmp_path: Path, said: list[str], kept: Path) -> None:
    engine = Engine()
    again = costs.costs_of(engine, spec_of(tmp_path), said.append)
    assert engine.shapes == []
    assert again == msgspec.json.decode(kept.read_bytes(), type=Table).points
    assert said == []


def test_the_file_says_what_it_was_measured_on(kept: Path) -> None:
    table = msgspec.json.decode(kept.read_bytes())
    assert table["conditions"] == {
        "cpu": costs.cpu_name(),
        "engine_version": costs.here("onnxruntime").engine_version,
    }
    assert len(table["points"]) == len(costs.shapes(128))


@pytest.mark.parametrize("other", [{"threads": 2}, {"max_seqlen": 64}, {"graph": "other.onnx"}])
def test_another_artefact_thread_count_or_length_has_a_table_of_its_own(
    tmp_path: Path, said: list[str], kept: Path, other: dict[str, Any]
) -> None:
    engine = Engine()
    costs.costs_of(engine, spec_of(tmp_path, **other), said.append)
    assert engine.shapes
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert kept.exists()


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda table: {**table, "conditions": {**table["conditions"], "cpu": "Elsewhere 9000"}}, "measured on 'Elsewhere 9000'"),
        (lambda table: {**table, "conditions": {**table["conditions"], "engine_version": "0.1"}}, "stale.*0.1"),
        (lambda table: {**table, "format": FORMAT + 1}, "format"),
        (lambda table: {**table, "points": []}, "no points"),
        (lambda table: {**table, "points": [[16, 1, -1.0]]}, "cannot be"),
        (lambda table: {**table, "points": [[16, 0, 1.0]]}, "cannot be"),
        (lambda table: {**table, "points": [[16, 1, 1e9]]}, "cannot be"),
        (lambda table: {**table, "points": [["16", 1, 1.0]]}, "harmed"),
        (lambda table: {**table, "more": 1}, "harmed"),
        (lambda table: [table], "harmed"),
    ],
)  # fmt: skip
def test_a_table_that_is_foreign_stale_or_harmed_is_told_and_measured_anew(
    tmp_path: Path, said: list[str], kept: Path, harm: Any, why: str
) -> None:
    good = kept.read_bytes()
    kept.write_bytes(msgspec.json.encode(harm(msgspec.json.decode(good))))
    with pytest.raises(UnusableTable, match=why):
        costs.read(kept, costs.here("onnxruntime"))
    engine = Engine()
    assert costs.costs_of(engine, spec_of(tmp_path), said.append)
    assert engine.shapes
    (line,) = said
    assert str(kept) in line
    assert "measuring anew" in line
    assert costs.read(kept, costs.here("onnxruntime"))


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"{", b"[" * 100_000], ids=["empty", "no text", "half", "deep"])
def test_a_file_that_is_no_json_is_measured_anew(tmp_path: Path, said: list[str], kept: Path, raw: bytes) -> None:
    kept.write_bytes(raw)
    assert costs.costs_of(Engine(), spec_of(tmp_path), said.append)
    assert "harmed" in said[0]


def test_a_folder_that_cannot_be_written_costs_a_measurement_and_a_line(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    engine = Engine()
    spec = msgspec.structs.replace(spec_of(tmp_path), costs=str(tmp_path / "file" / "costs"))
    assert costs.costs_of(engine, spec, said.append)
    assert engine.shapes
    assert "measured at each start" in said[-1]


def test_nothing_is_measured_for_the_fake_engine_or_without_a_folder(tmp_path: Path, said: list[str]) -> None:
    engine = Engine()
    whole = spec_of(tmp_path)
    assert costs.costs_of(engine, msgspec.structs.replace(whole, artefact=None), said.append) == []
    assert costs.costs_of(engine, msgspec.structs.replace(whole, costs=""), said.append) == []
    assert (engine.shapes, said) == ([], [])


def test_each_shape_is_the_fastest_of_its_runs_after_one_that_does_not_count() -> None:
    engine = Engine()
    spec = spec_of("/nowhere")
    assert spec.artefact is not None
    points, unrest = costs.measure(engine, spec, spec.artefact, engine.clock)
    assert unrest == pytest.approx(1.0)
    assert [(point.n, point.length) for point in points] == costs.shapes(128)
    assert engine.shapes == [shape for shape in costs.shapes(128) for _ in range(1 + RUNS)]
    for point in points:
        assert point.seconds == pytest.approx(1e-6 * point.n * point.length)


def test_what_disturbs_one_run_in_three_changes_no_point_and_the_table_is_known_to_be_unreliable() -> None:
    engine = Engine()
    plain, runs = engine.run, 0

    def disturbed(*inputs: Any) -> Any:
        nonlocal runs
        runs += 1
        if runs % (1 + RUNS) == 0:
            engine.now += 3.0 * 1e-6 * inputs[0].size
        return plain(*inputs)

    engine.run = disturbed  # type: ignore[method-assign]
    spec = spec_of("/nowhere")
    assert spec.artefact is not None
    points, unrest = costs.measure(engine, spec, spec.artefact, engine.clock)
    assert unrest == pytest.approx(4.0)
    for point in points:
        assert point.seconds == pytest.approx(1e-6 * point.n * point.length)


def test_a_table_measured_on_busy_cpus_is_used_and_not_kept(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "measure", lambda *_: (POINTS, 2.5))
    monkeypatch.setattr(costs, "MOST_UNREST", 1.5)
    assert costs.costs_of(Engine(), spec_of(tmp_path), said.append) == POINTS
    assert list(tmp_path.iterdir()) == []
    assert "2.5 times as long" in said[0]
    assert "measured again at the next start" in said[0]


def test_a_slow_engine_is_measured_with_short_input_only_and_at_least_once() -> None:
    spec = spec_of("/nowhere", max_seqlen=512)
    assert spec.artefact is not None
    slow = Engine(10e-3)
    points, _ = costs.measure(slow, spec, spec.artefact, slow.clock)
    assert 1 <= len(points) < len(costs.shapes(512))
    assert slow.now < 2 * costs.MOST_SECONDS
    slower = Engine(10.0)
    assert len(costs.measure(slower, spec, spec.artefact, slower.clock)[0]) == 1


@pytest.mark.parametrize("longest", [1, 8, 100, 512, 4096])
def test_the_longest_sequence_is_measured_and_nothing_longer(longest: int) -> None:
    shapes = costs.shapes(longest)
    assert (1, longest) in shapes
    assert max(length for _, length in shapes) == longest
    assert len(shapes) == len(set(shapes))


def test_a_cpu_without_a_model_name_is_named_by_what_identifies_it(tmp_path: Path) -> None:
    arm = tmp_path / "cpuinfo"
    arm.write_text(
        "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd40\nCPU revision\t: 1\n"
    )
    assert costs.cpu_name(arm).endswith("0x41 8 0xd40 1")
    assert costs.cpu_name(tmp_path / "none")
    arm.write_text("model name\t: Some CPU @ 3 GHz\nmodel name\t: another\n")
    assert costs.cpu_name(arm) == "Some CPU @ 3 GHz"


def test_points_survive_the_way_to_the_file_and_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.json"
    costs.write(path, Table(FORMAT, HERE, POINTS))
    assert costs.read(path, HERE) == POINTS
    assert [found.name for found in path.parent.iterdir()] == [path.name]
