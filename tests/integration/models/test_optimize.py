"""Are the variants of a model made once, measured, gated, and is a failure never in the way of serving fp32?"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from orchestrator.models import ModelError, Prepared, optimize, prepare
from orchestrator.models.accuracy import spearman
from orchestrator.models.choose import Wish
from orchestrator.models.manifest import decode

ONLY_INT8 = Wish(precision="int8")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(tiny: ModuleType, cache: Path) -> Prepared:
    return prepare(str(tiny.write(cache.parent / "tiny", tiny.CASES["bert-mean-normalised"])), cache=cache)


@pytest.fixture(scope="module")
def tuned(model: Prepared, cache: Path) -> optimize.Tuned:
    return optimize.tune(model, cache, Wish(), None, lambda _: None)


def silent(_: str) -> None:
    pass


def test_every_variant_is_an_artefact_with_its_accuracy_in_its_manifest(tuned: optimize.Tuned, cache: Path) -> None:
    exact, *others = tuned.study.variants
    assert (exact.precision, exact.engine, exact.accuracy) == ("fp32", "onnxruntime", None)
    assert "int8" in {variant.precision for variant in others}
    for variant in others:
        assert variant.problem is None
        assert variant.accuracy is not None
        assert 0.99 < variant.accuracy.min_cosine <= 1.0
        assert variant.accuracy.rank_correlation is not None
        assert [timing.tokens for timing in variant.timings] == [16]  # the model has 48 positions
        assert all(timing.milliseconds > 0 for timing in variant.timings)
        manifest = decode((cache / variant.graph).with_name("manifest.json").read_bytes())
        assert (manifest.precision, manifest.engine) == (variant.precision, variant.engine)
        assert manifest.accuracy == variant.accuracy
        assert manifest.parent == exact.graph.partition("/")[0]
    int8 = next(variant for variant in others if variant.precision == "int8")
    assert int8.bytes < 0.95 * exact.bytes


def test_a_second_start_reads_the_study_and_starts_no_process(
    tuned: optimize.Tuned, model: Prepared, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    assert optimize.tune(model, cache, Wish(), None, silent).study == tuned.study


def test_reading_a_study_imports_no_heavy_package(tuned: optimize.Tuned, model: Prepared, cache: Path) -> None:
    program = (
        "import sys, json, msgspec\nfrom pathlib import Path\nfrom orchestrator.models import Prepared, optimize\n"
        "from orchestrator.models.choose import Wish\n"
        "optimize.tune(msgspec.json.decode(sys.argv[1], type=Prepared), Path(sys.argv[2]), Wish(), None, print)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    from msgspec.json import encode

    done = subprocess.run([sys.executable, "-c", program, encode(model), str(cache)], capture_output=True, check=True)
    assert not {"numpy", "onnx", "onnxruntime", "openvino", "tokenizers"} & set(json.loads(done.stdout))


def test_a_variant_that_was_harmed_is_made_again(
    tuned: optimize.Tuned, model: Prepared, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    int8 = next(variant for variant in tuned.study.variants if variant.precision == "int8")
    shutil.rmtree((cache / int8.graph).parent)
    again = optimize.tune(model, cache, Wish(), None, silent)
    assert (cache / int8.graph).is_file()
    assert [variant.graph for variant in again.study.variants] == [variant.graph for variant in tuned.study.variants]
    assert [variant.accuracy for variant in again.study.variants] == [
        variant.accuracy for variant in tuned.study.variants
    ]


def test_other_calibration_texts_make_another_int8(tuned: optimize.Tuned, model: Prepared, cache: Path) -> None:
    own = optimize.tune(model, cache, ONLY_INT8, ["wolves and foxes", "forty two of them", "naïve"], silent)
    mine, theirs = (
        next(variant for variant in one.study.variants if variant.precision == "int8") for one in (own, tuned)
    )
    assert mine.graph != theirs.graph
    assert own.study.calibration != tuned.study.calibration


def test_fp32_by_name_needs_no_study(model: Prepared, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    found = optimize.tune(model, cache, Wish(precision="fp32"), None, silent)
    assert [variant.name for variant in found.study.variants] == ["fp32 on onnxruntime"]
    assert found.choose(1, 32).variant.artefact(model.artefact, str(cache)) == model.artefact


def test_a_study_that_fails_leaves_fp32_to_auto_and_is_an_error_to_who_asked_by_name(
    model: Prepared, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    said: list[str] = []
    texts = ["no study knows these texts"]
    found = optimize.tune(model, cache, Wish(), texts, said.append)
    assert found.choose(1, 32).variant.name == "fp32 on onnxruntime"
    assert "the study of other variants failed: exit code 1" in found.notes[0]
    with pytest.raises(ModelError, match="the study of this model's variants failed: exit code 1"):
        optimize.tune(model, cache, ONLY_INT8, texts, said.append)


def test_what_this_machine_cannot_do_is_refused_with_the_way_out(
    model: Prepared, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"int8 runs on onnxruntime, bf16 on openvino"):
        optimize.tune(model, cache, Wish("int8", "openvino"), None, silent)
    monkeypatch.setattr(optimize, "cpu_features", lambda: ["avx2"])
    with pytest.raises(ModelError, match="this CPU has no bf16 products"):
        optimize.tune(model, cache, Wish("bf16"), None, silent)
    monkeypatch.setattr(optimize, "installed", lambda: {"onnxruntime": "1"})
    with pytest.raises(ModelError, match=r"pip install 'orchestrator\[openvino\]'"):
        optimize.tune(model, cache, Wish(engine="openvino"), None, silent)


def test_ranks_agree_whatever_the_scale() -> None:
    values = np.array([0.1, 0.5, 0.2, 0.9])
    assert spearman(values, np.exp(9 * values)) == 1.0
    assert spearman(values, -values) == -1.0
    assert spearman(values[:2], values[:2]) is None
