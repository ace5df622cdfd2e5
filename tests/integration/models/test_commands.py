"""Do `orchestrator optimize` and `orchestrator models` say what is there, and refuse what cannot be, in words?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.cli.main import main
from orchestrator.models import inventory, prepare


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model(tiny: ModuleType, cache: Path) -> Path:
    return Path(tiny.write(cache.parent / "tiny-commands", tiny.CASES["bert-mean-normalised"]))


@pytest.fixture(scope="module")
def calibration(cache: Path) -> Path:
    path = cache.parent / "texts.txt"
    path.write_text("\n".join(f"text number {number} of wolves\n" for number in range(12)), encoding="utf-8")
    return path


@pytest.fixture
def run(cache: Path, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """A command → (exit code, standard output, standard error)."""

    def of(*words: object) -> tuple[int, str, str]:
        code = main([*map(str, words), "--cache-dir", str(cache)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return of


def test_the_table_has_every_variant_with_its_figures_and_what_it_serves(run, model, calibration, tmp_path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "made"
    code, table, progress = run("optimize", model, "--precision", "int8", "--calibration", calibration, "--out", out)
    assert code == 0, progress
    assert "int8 on onnxruntime" in table
    assert "1-32" in table
    assert "fp32 on onnxruntime" in table
    assert "no: not asked for" in table
    assert "making and comparing" in progress
    assert "@step" not in progress
    assert "\r" not in progress
    assert sorted(path.name for path in out.iterdir()) == ["int8-onnxruntime", "study.json"]
    assert (out / "int8-onnxruntime" / "model.onnx").is_file()
    assert list(tmp_path.iterdir()) == [out]
    again, _, why = run("optimize", model, "--out", out)
    assert (again, "it exists" in why) == (2, True)


def test_json_is_one_document_with_the_choice_of_each_range(run, model, calibration) -> None:  # type: ignore[no-untyped-def]
    code, document, _ = run("optimize", model, "--precision", "int8", "--calibration", calibration, "--json")
    assert code == 0
    found = json.loads(document)
    assert [(one["min"], one["max"]) for one in found["choices"]] == [(1, 32), (33, 44)]
    assert {one["precision"] for one in found["choices"]} == {"int8"}
    assert Path(found["choices"][0]["artefact"]).is_dir()
    assert found["study"]["variants"][1]["accuracy"]["mean_cosine"] > 0.99


def test_without_a_name_it_is_the_default_model_and_no_terminal_sees_no_bar(run) -> None:  # type: ignore[no-untyped-def]
    code, document, progress = run("optimize", "--precision", "fp32", "--json")
    assert code == 0, progress
    assert json.loads(document)["study"]["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert "\x1b" not in progress
    assert "@step" not in progress


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"\xff\xfe", "not UTF-8 at byte 0"), (b"one\n\ntwo\n", "2 texts; give at least 8")],
)
def test_calibration_texts_that_are_none_are_refused(run, model, tmp_path, content, words) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "texts"
    if content is not None:
        path.write_bytes(content)
    code, _, why = run("optimize", model, "--calibration", path)
    assert code == 2
    assert words in why


def test_a_model_that_is_none_is_said_to_be_unworkable(run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    code, _, why = run("optimize", tmp_path / "empty")
    assert code == 78
    assert "config.json" in why


def test_list_and_show_name_each_artefact_by_a_unique_beginning(run, model, cache) -> None:  # type: ignore[no-untyped-def]
    folder = Path(prepare(str(model), cache=cache).status.artefact)
    code, table, _ = run("models", "list")
    assert code == 0
    assert folder.name in table
    code, manifest, _ = run("models", "show", folder.name)
    assert (code, json.loads(manifest)["precision"]) == (0, "fp32")
    code, _, why = run("models", "show", "tiny")
    assert code == (2 if len(list(cache.glob("tiny*"))) > 1 else 0)
    code, _, why = run("models", "show", "nothing-like-it")
    assert (code, "begins with it" in why) == (2, True)
    assert run("models", "show")[0] == 2


def test_prune_removes_what_is_stale_and_nothing_else(run, model, cache) -> None:  # type: ignore[no-untyped-def]
    folder = Path(prepare(str(model), cache=cache).status.artefact)
    older = cache / "tiny-000000000000-fp32-onnxruntime"
    shutil.copytree(folder, older)
    manifest = json.loads((older / "manifest.json").read_text())
    (older / "manifest.json").write_text(json.dumps(manifest | {"builder": 0}))
    orphan = cache / "tiny-000000000000-int8-onnxruntime"
    shutil.copytree(folder, orphan)
    (orphan / "manifest.json").write_text(json.dumps(manifest | {"parent": older.name}))
    (cache / ".tiny.making").mkdir()
    before = {entry.name for entry in inventory.entries(cache)}
    _, said, _ = run("models", "prune", "--dry-run")
    assert {entry.name for entry in inventory.entries(cache)} == before
    assert "would remove 3" in said
    assert run("models", "prune")[0] == 0
    assert before - {entry.name for entry in inventory.entries(cache)} == {older.name, orphan.name, ".tiny.making"}
    _, document, _ = run("models", "prune", "--all", "--json")
    assert {one["name"] for one in json.loads(document)} == before - {older.name, orphan.name, ".tiny.making"}
    assert inventory.entries(cache) == []
