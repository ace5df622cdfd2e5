"""Does OpenVINO give the same answers from the same file, with the precision, threads and CPUs that it was told?"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from orchestrator.models import Prepared, prepare
from orchestrator.models.preparation import cpu_features
from workers.engines import onnxruntime as plain
from workers.engines.base import LoadError
from workers.spec import Artefact, WorkerSpec

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra openvino is not installed"
)
BF16 = {"avx512_bf16", "amx_bf16"} & set(cpu_features())

IDS = np.random.default_rng(5).integers(5, 5000, (3, 24), dtype=np.int32)
MASK = np.array([[1] * 24, [1] * 7 + [0] * 17, [1] * 15 + [0] * 9], np.int32)

PROGRAM = """
import json, os, sys
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
import msgspec, numpy as np
from pathlib import Path
from workers.engines.openvino import load
from workers.spec import WorkerSpec
engine = load(msgspec.json.decode(sys.argv[1], type=WorkerSpec))
engine.run(np.ones((4, 32), np.int32), np.ones((4, 32), np.int32), None)
tasks = [Path(f"/proc/self/task/{task}/status").read_text() for task in os.listdir("/proc/self/task")]
print(json.dumps([task.partition("Cpus_allowed_list:")[2].split()[0] for task in tasks]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(None, cache=tmp_path_factory.mktemp("cache"))


def spec(artefact: Artefact, **more: object) -> WorkerSpec:
    return WorkerSpec(
        name="test", incarnation=1, cpus=[0], membind=[], nodes_on_machine=1, threads=1, endpoint="", max_seqlen=48,
        warmup=[], artefact=msgspec.structs.replace(artefact, **more),
    )  # fmt: skip


def test_fp32_answers_equal_those_of_onnxruntime_with_and_without_padding(model: Prepared) -> None:
    from workers.engines.openvino import load

    engine = load(spec(model.artefact, engine="openvino"))
    exact = plain.load(spec(model.artefact))
    for mask in (MASK, np.ones_like(MASK)):
        np.testing.assert_allclose(engine.run(IDS, mask, None), exact.run(IDS, mask, None), atol=1e-5)


def test_a_batch_that_cannot_be_written_to_or_lies_in_steps_is_answered_like_any_other(model: Prepared) -> None:
    """A batch of equal lengths is a view of the message that it came in."""
    from workers.engines.openvino import load

    engine = load(spec(model.artefact, engine="openvino"))
    expected = engine.run(IDS, MASK, None)
    message = np.frombuffer(IDS.tobytes(), np.int32).reshape(IDS.shape)
    steps = np.repeat(MASK, 2, axis=1)[:, ::2]
    assert not message.flags.writeable
    assert not steps.flags.c_contiguous
    np.testing.assert_array_equal(engine.run(message, steps, None), expected)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 24, 33])
def test_texts_that_are_filled_up_to_full_steps_have_the_answers_that_they_have_alone(
    model: Prepared, tmp_path: Path, length: int
) -> None:
    """A row per text and a row per token, at lengths on both sides of a step."""
    from workers.engines.openvino import load

    ids = np.random.default_rng(length).integers(5, 5000, (2, length), dtype=np.int32)
    mask = np.ones_like(ids)
    mask[1, (length + 1) // 2 :] = 0
    for artefact in (model.artefact, prepare(None, task="feature-extraction", cache=tmp_path).artefact):
        rows = load(spec(artefact, engine="openvino")).run(ids, mask, None)
        exact = plain.load(spec(artefact)).run(ids, mask, None)
        assert rows.shape == exact.shape
        assert rows.flags.c_contiguous
        kept = mask.astype(bool) if artefact.per_token else np.array([True, True])
        np.testing.assert_allclose(rows[kept], exact[kept], atol=1e-5)


def test_a_text_is_never_filled_beyond_the_positions_of_the_model() -> None:
    from workers.engines.openvino import missing_tokens

    assert [missing_tokens(length, 50) for length in (1, 16, 17, 47, 48, 49, 50)] == [15, 0, 15, 1, 0, 1, 0]


def test_an_answer_is_not_overwritten_by_the_next_batch(model: Prepared) -> None:
    from workers.engines.openvino import load

    engine = load(spec(model.artefact, engine="openvino"))
    first = engine.run(IDS, MASK, None)
    kept = first.copy()
    engine.run(IDS[::-1].copy(), MASK[::-1].copy(), None)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.skipif(not BF16, reason="this CPU has no bf16 products")
def test_bf16_is_what_runs_when_it_is_asked_for_and_only_then(model: Prepared) -> None:
    from workers.engines.openvino import load

    exact, coarse = (
        load(spec(model.artefact, engine="openvino", precision=name)).run(IDS, MASK, None) for name in ("fp32", "bf16")
    )
    cosine = (exact * coarse).sum(axis=1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(coarse, axis=1)
    assert cosine.min() > 0.9995
    assert not np.array_equal(exact, coarse)


def test_every_thread_stays_on_the_cpus_of_the_process(model: Prepared) -> None:
    of = msgspec.json.encode(spec(model.artefact, engine="openvino"))
    done = subprocess.run([sys.executable, "-c", PROGRAM, of], capture_output=True, timeout=60, check=True)
    allowed = json.loads(done.stdout)
    assert set(allowed) == {str(max(os.sched_getaffinity(0)))}


def test_what_it_cannot_do_is_refused_in_words(
    model: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.engines.openvino import load

    with pytest.raises(LoadError, match="openvino runs fp32, bf16, not int8"):
        load(spec(model.artefact, engine="openvino", precision="int8"))
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(LoadError, match=r"broken\.onnx"):
        load(spec(model.artefact, engine="openvino", path=str(tmp_path / "broken.onnx")))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(LoadError, match="is not installed"):
        load(spec(model.artefact, engine="openvino"))
