"""Is no more measured than is needed, nothing twice, and nothing used that is stale or harmed?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.bench.cells import Shape
from orchestrator.models.choose import Wish
from orchestrator.models.optimize import Tuned
from orchestrator.models.variants import Study, Timing, Variant
from orchestrator.simulate.costs import Crowd, Point
from orchestrator.tune.measure import Keep, cells_for, contenders, least_seconds, lengths_for, missing, usual_seconds


def variant(precision: Any, *milliseconds: float, engine: Any = "onnxruntime") -> Variant:
    timings = [Timing(tokens, each) for tokens, each in zip((16, 128, 384), milliseconds, strict=False)]
    return Variant(precision, engine, f"{precision}/model.onnx", 1, timings)


FP32, INT8, BF16 = (
    variant("fp32", 3, 22, 72),
    variant("int8", 1, 6, 30),
    variant("bf16", 1.4, 5.7, 21, engine="openvino"),
)


def test_a_form_that_another_beats_everywhere_is_not_measured() -> None:
    assert contenders([FP32, INT8, BF16]) == [INT8, BF16]
    assert contenders([FP32]) == [FP32]
    near = variant("int8", 2.9, 21, 70)
    assert contenders([FP32, near]) == [FP32, near]


def test_lengths_span_the_mix_and_end_with_the_longest_that_is_served() -> None:
    assert lengths_for([10, 20, 28], 256) == [8, 16, 28, 256]
    assert lengths_for([10, 480], 512) == [8, 16, 32, 64, 128, 256, 384, 480, 512]
    assert lengths_for([200, 256], 256) == [128, 256]
    assert lengths_for([3], 8) == [3, 8]
    assert len(lengths_for([20], 20)) >= 2, "one length does not tell what a token costs"


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    def make(machine: Any, version: str = "1.0") -> Keep:
        study = Study(1, "a model", [], {"onnxruntime": version, "openvino": "2.0"}, "", [INT8, BF16], 0.0)
        return Keep(tmp_path, Tuned(None, study, Wish(), tmp_path), machine)  # type: ignore[arg-type] # the model itself is not looked at

    return make


def test_one_core_is_measured_in_full_more_cores_in_part_and_all_at_once(build: Any) -> None:
    cells = cells_for(build(cores_per_node=6), [INT8], [16, 128, 512])
    assert [(each.placement.cores, each.placement.instances) for each in cells] == [
        (1, 1),
        (2, 1),
        (4, 1),
        (6, 1),
        (1, 6),
    ]
    assert set(cells[0].shapes) == {
        Shape(1, 16), Shape(1, 128), Shape(1, 512), Shape(2, 16), Shape(2, 128), Shape(2, 512), Shape(8, 16), Shape(8, 128),
    }  # fmt: skip
    assert all(len(each.shapes) <= 4 for each in cells[1:])
    assert least_seconds(cells) < usual_seconds(cells)


def test_what_is_known_is_not_measured_again(kept: Any, build: Any) -> None:
    machine = build(cores_per_node=2)
    keep = kept(machine)
    cells = cells_for(machine, [INT8], [16, 128])
    assert missing(cells, None) == cells
    points = [
        Point(each.placement.cores, shape.batch, shape.length, 1e-3)
        for each in cells
        if each.alone
        for shape in each.shapes
    ]
    file = keep.described(INT8, points, [Crowd(16, 1.1)])
    (left,) = missing(cells, file)
    assert not left.alone
    assert left.shapes == (Shape(1, 128),)
    assert missing(cells, keep.described(INT8, points, [Crowd(16, 1.1), Crowd(128, 1.2)])) == []
    longer = cells_for(machine, [INT8], [16, 128, 400])
    alone = [each for each in missing(longer, file) if each.alone]
    assert {shape.length for each in alone for shape in each.shapes} == {400}


def test_what_is_kept_is_read_again_and_only_under_the_same_conditions(kept: Any, build: Any) -> None:
    machine = build(cores_per_node=8)
    said: list[str] = []
    keep = kept(machine)
    file = keep.described(INT8, [Point(1, 1, 16, 1e-3), Point(1, 1, 64, 3e-3)], [Crowd(16, 1.5)])
    keep.write(INT8, file, said.append)
    assert kept(machine).read(INT8, said.append) == file
    assert said == []
    assert keep.read(BF16, said.append) is None
    for other in (
        kept(machine, version="1.1"),
        kept(replace(machine, model_name="another CPU")),
        kept(replace(machine, isa=("avx2",))),
        kept(build(cores_per_node=8, disallowed=[7])),
    ):
        assert other.read(INT8, said.append) is None


@pytest.mark.parametrize("harm", [b"", b"{", b"\xff\xfe", b'{"version": 1}', b'{"version": 99}'])
def test_a_harmed_file_is_said_and_measured_anew(kept: Any, build: Any, harm: bytes) -> None:
    said: list[str] = []
    keep = kept(build())
    path = keep.path(INT8)
    path.parent.mkdir()
    path.write_bytes(harm)
    assert keep.read(INT8, said.append) is None
    assert "measured anew" in said[0]


def test_a_file_of_another_engine_under_this_name_is_not_believed(kept: Any, build: Any) -> None:
    said: list[str] = []
    keep = kept(build())
    file = msgspec.structs.replace(keep.described(INT8, [Point(1, 1, 16, 1e-3)] * 2, []), engine_version="0.9")
    keep.write(INT8, file, said.append)
    assert keep.read(INT8, said.append) is None
    assert "measuring anew" in said[0]


def test_a_cache_that_cannot_be_written_costs_the_keeping_and_no_more(kept: Any, build: Any, tmp_path: Path) -> None:
    (tmp_path / "tune").write_text("a file where the folder should be")
    said: list[str] = []
    keep = kept(build())
    keep.write(INT8, keep.described(INT8, [Point(1, 1, 16, 1e-3)] * 2, []), said.append)
    assert "measured again next time" in said[0]
