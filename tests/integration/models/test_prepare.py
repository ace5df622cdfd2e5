"""Does a model become an artefact once, whatever happens on the way?"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from orchestrator.models import ModelError, Prepared, prepare
from orchestrator.models import verify as verifying
from orchestrator.models.synthetic import tokenizer_document
from orchestrator.models.weights import Checkpoint

PROGRAM = """
import json, sys
from pathlib import Path
from orchestrator.models import ModelError, prepare
try:
    prepared = prepare(sys.argv[1], cache=Path(sys.argv[2]))
except ModelError as error:
    print(json.dumps({"error": str(error), "unworkable": error.unworkable}))
else:
    print(json.dumps({"built": prepared.built, "artefact": prepared.status.artefact, "seconds": prepared.seconds,
                      "modules": sorted(sys.modules)}))
"""


def start(model: Path, cache: Path, *, before: str = "") -> subprocess.Popen[bytes]:
    """`prepare` in a process of its own; `before` is run first."""
    return subprocess.Popen(
        [sys.executable, "-c", before + PROGRAM, str(model), str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache / "hub")},
    )


def outcome(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    document: dict[str, Any] = json.loads(out)
    return document


@pytest.fixture
def model(tiny: ModuleType, tmp_path: Path) -> Path:
    return Path(tiny.write(tmp_path / "tiny", tiny.CASES["bert-mean-normalised"]))


def folders(cache: Path) -> list[Path]:
    """The artefacts in a cache."""
    return sorted(path for path in cache.iterdir() if path.is_dir() and not path.name.startswith("."))


def test_what_is_handed_out_describes_the_artefact(model: Path, tmp_path: Path) -> None:
    prepared = prepare(str(model), cache=tmp_path / "cache")
    assert prepared.built
    folder = Path(prepared.status.artefact)
    assert folder.parent == tmp_path / "cache"
    assert folder.name.startswith("tiny-")
    assert folder.name.endswith("-fp32-onnxruntime")
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json",
    ]  # fmt: skip
    artefact, status = prepared.artefact, prepared.status
    assert artefact.path == str(folder / "model.onnx")
    assert (artefact.width, artefact.vocab_size, artefact.positions, artefact.per_token) == (32, 6000, 48, False)
    assert (status.task, status.architecture, status.max_seqlen, status.dimensions) == (
        "sentence-embedding", "bert", 44, 32,
    )  # fmt: skip
    assert prepared.special_tokens == 2
    assert Tokenizer.from_file(prepared.tokenizer).truncation is None


def test_the_manifest_says_where_it_came_from_and_how_it_was_proven(model: Path, tmp_path: Path) -> None:
    folder = Path(prepare(str(model), cache=tmp_path / "cache").status.artefact)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {file["name"] for file in manifest["sources"]} == {
        "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "tokenizer.json",
        "tokenizer_config.json", "1_Pooling/config.json",
    }  # fmt: skip
    assert manifest["steps"] == ["mean", "normalise"]
    assert set(manifest["tools"]) >= {"onnx", "onnxruntime", "numpy"}
    assert 0 < manifest["verification"]["largest_difference"] < 1e-5
    assert 0.99999 < manifest["verification"]["smallest_cosine"] <= 1.000001


def test_a_second_start_takes_it_from_the_cache_and_imports_no_heavy_package(model: Path, tmp_path: Path) -> None:
    first = outcome(start(model, tmp_path / "cache"))
    second = outcome(start(model, tmp_path / "cache"))
    assert (first["built"], second["built"]) == (True, False)
    assert first["artefact"] == second["artefact"]
    heavy = {"onnx", "onnxruntime", "numpy", "transformers", "torch", "tokenizers", "safetensors", "huggingface_hub"}
    assert "onnx" in first["modules"]
    assert not heavy & set(second["modules"])


def test_two_processes_at_once_build_it_once(model: Path, tmp_path: Path) -> None:
    both = [start(model, tmp_path / "cache") for _ in range(2)]
    outcomes = [outcome(process) for process in both]
    assert sorted(one["built"] for one in outcomes) == [False, True]
    assert len(folders(tmp_path / "cache")) == 1


def test_a_maker_that_is_killed_half_way_leaves_nothing_that_is_taken_for_an_artefact(
    model: Path, tmp_path: Path
) -> None:
    """It kills itself when the graph is written and the manifest is not."""
    before = (
        "import os, signal\n"
        "from orchestrator.models import verify\n"
        "verify.verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = start(model, tmp_path / "cache", before=before)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert folders(tmp_path / "cache") == []
    assert len(list((tmp_path / "cache").glob(".*.making/model.onnx"))) == 1
    assert prepare(str(model), cache=tmp_path / "cache").built
    assert list((tmp_path / "cache").glob(".*.making")) == []


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json", "manifest.json"])
@pytest.mark.parametrize("harm", ["truncated", "overwritten", "removed"])
def test_a_harmed_artefact_is_built_again_and_then_whole(
    model: Path, tmp_path: Path, session: Any, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    good = prepare(str(model), cache=tmp_path / "cache")
    path = Path(good.status.artefact) / name
    data = path.read_bytes()
    if harm == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif harm == "overwritten":
        path.write_bytes(bytes(len(data)))
    else:
        path.unlink()
    again = prepare(str(model), cache=tmp_path / "cache")
    assert again.built
    assert "making it anew" in caplog.text
    assert again.artefact == good.artefact
    assert session(again)([np.array([2, 90, 3], np.int32)])[0].shape == (32,)
    assert not prepare(str(model), cache=tmp_path / "cache").built


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_a_change_of_any_source_is_another_artefact(tiny: ModuleType, model: Path, tmp_path: Path, name: str) -> None:
    first = prepare(str(model), cache=tmp_path / "cache")
    if name == "model.safetensors":
        tensors = load_file(model / name)
        tensors["embeddings.LayerNorm.bias"] += np.float32(0.1)
        save_file(tensors, model / name)
    else:
        news = {"decoder": None} if name == "tokenizer.json" else {"_comment": "another"}
        tiny.write_json(model / name, json.loads((model / name).read_text()) | news)
    second = prepare(str(model), cache=tmp_path / "cache")
    assert second.built
    assert second.status.digest != first.status.digest
    assert len(folders(tmp_path / "cache")) == 2


def test_the_claim_of_a_model_card_makes_another_artefact_and_its_prose_does_not(
    tiny: ModuleType, tmp_path: Path
) -> None:
    directory = tiny.write(tmp_path / "tiny", tiny.CASES["bert"])
    found = []
    for card in (None, "# Prose\n", "---\npipeline_tag: sentence-similarity\n---\n# Prose\n"):
        if card is not None:
            (directory / "README.md").write_text(card)
        prepared = prepare(str(directory), cache=tmp_path / "cache")
        found.append((prepared.status.task, prepared.built))
    assert found == [("feature-extraction", True), ("feature-extraction", False), ("sentence-embedding", True)]
    (directory / "README.md").write_text(card + "more prose\n")
    assert not prepare(str(directory), cache=tmp_path / "cache").built
    asked = prepare(str(directory), task="feature-extraction", cache=tmp_path / "cache")
    assert asked.status.task == "feature-extraction"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "this is no model directory: there is no config.json"),
        ("model.safetensors", "no weights: there is no model.safetensors"),
        ("tokenizer.json", "no tokenizer: there is neither tokenizer.json nor one of vocab.txt"),
        ("1_Pooling/config.json", "1_Pooling/config.json: cannot read the pooling: there is no such file"),
        ("2_Dense/config.json", "2_Dense/config.json: cannot read a dense layer: there is no such file"),
        ("2_Dense/model.safetensors", "2_Dense: no weights: there is no model.safetensors"),
    ],
)
def test_a_missing_file_is_named_and_nothing_is_left_in_the_cache(
    tiny: ModuleType, tmp_path: Path, name: str, words: str
) -> None:
    model = tiny.write(tmp_path / "tiny", tiny.CASES["bert-concatenated"])
    (model / name).unlink()
    with pytest.raises(ModelError) as raised:
        prepare(str(model), cache=tmp_path / "cache")
    assert words in str(raised.value)
    assert raised.value.unworkable
    assert not (tmp_path / "cache").exists() or folders(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("linear.weight", None, "linear.weight [16, 64] is missing"),
        ("linear.weight", np.zeros((64, 16), np.float32), "linear.weight has shape [64, 16]"),
        ("linear.bias", np.full(16, np.nan, np.float32), "linear.bias holds 16 values that are NaN"),
    ],
)
def test_the_weights_of_a_dense_layer_are_checked_like_those_of_the_encoder(
    tiny: ModuleType, tmp_path: Path, name: str, value: np.ndarray | None, words: str
) -> None:
    model = tiny.write(tmp_path / "tiny", tiny.CASES["bert-concatenated"])
    path = model / "2_Dense" / "model.safetensors"
    tensors = {key: tensor for key, tensor in load_file(path).items() if key != name}
    save_file(tensors if value is None else tensors | {name: value}, path)
    with pytest.raises(ModelError) as raised:
        prepare(str(model), cache=tmp_path / "cache")
    assert f"{path}: cannot use these weights: tensor {words}" in str(raised.value)
    assert folders(tmp_path / "cache") == []


def test_a_readme_is_no_source(model: Path, tmp_path: Path) -> None:
    prepare(str(model), cache=tmp_path / "cache")
    (model / "README.md").write_text("news")
    assert not prepare(str(model), cache=tmp_path / "cache").built


def test_a_model_that_changes_while_it_is_read_is_refused(
    tiny: ModuleType, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = verifying.verify

    def change(*arguments: Any) -> verifying.Verification:
        tiny.write_json(model / "config.json", tiny.BERT | {"hidden_act": "relu"})
        return real(*arguments)

    monkeypatch.setattr(verifying, "verify", change)
    with pytest.raises(ModelError, match="changed while it was read") as raised:
        prepare(str(model), cache=tmp_path / "cache")
    assert not raised.value.unworkable
    assert folders(tmp_path / "cache") == []


def test_a_graph_that_computes_something_else_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check reads other weights than the graph was made from: one bias differs by a tenth."""
    read = Checkpoint.read
    calls: dict[str, int] = {}

    def drifting(self: Checkpoint, name: str) -> np.ndarray:
        calls[name] = calls.get(name, 0) + 1
        drift = 0.1 if name == "encoder.layer.1.output.LayerNorm.bias" and calls[name] > 1 else 0.0
        tensor = read(self, name).copy()
        tensor[:3] += np.float32(drift)
        return tensor

    monkeypatch.setattr(Checkpoint, "read", drifting)
    with pytest.raises(ModelError, match="does not compute what the weights say"):
        prepare(str(model), cache=tmp_path / "cache")
    assert folders(tmp_path / "cache") == []


def test_a_cache_that_can_only_be_read_still_serves(model: Path, tmp_path: Path) -> None:
    """The file system refuses every write and creation: each open for writing ends in EROFS."""
    prepare(str(model), cache=tmp_path / "cache")
    before = (
        "import errno, pathlib\n"
        "def refuse(self, *_):\n    raise OSError(errno.EROFS, 'Read-only file system', str(self))\n"
        "pathlib.Path.write_bytes = pathlib.Path.mkdir = refuse\n"
    )
    assert outcome(start(model, tmp_path / "cache", before=before))["built"] is False


def test_a_disk_that_is_full_is_said_and_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for the full disk: writing more than 100 kB into a file fails with EFBIG."""
    before = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    answer = outcome(start(model, tmp_path / "cache", before=before))
    assert "cannot write the artefact" in answer["error"]
    assert "MB are free" in answer["error"]
    assert answer["unworkable"] is False
    assert folders(tmp_path / "cache") == []
    assert list((tmp_path / "cache").glob(".*.making")) == []


def test_a_cache_below_a_file_is_refused_with_its_path(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelError, match=f"{tmp_path / 'file' / 'cache'}: cannot write to the cache") as raised:
        prepare(str(model), cache=tmp_path / "file" / "cache")
    assert raised.value.unworkable


def test_a_hub_id_that_is_nowhere_says_where_was_looked(tmp_path: Path) -> None:
    answer = outcome(start(Path("nobody/no-such-model"), tmp_path / "cache"))
    assert "cannot get the model 'nobody/no-such-model'" in answer["error"]
    assert str(tmp_path / "cache" / "hub") in answer["error"]
    assert answer["unworkable"] is False


@pytest.mark.parametrize(("asked", "given"), [(None, 44), (48, 48), (3, 3)])
def test_the_longest_text_is_the_models_own_or_the_one_asked_for(
    model: Path, tmp_path: Path, asked: int | None, given: int
) -> None:
    assert prepare(str(model), max_seqlen=asked, cache=tmp_path / "cache").status.max_seqlen == given


@pytest.mark.parametrize(("asked", "words"), [(49, "choose at most 48"), (2, "choose at least 3"), (0, "at least 3")])
def test_a_longest_text_that_cannot_be_is_refused_with_what_can(
    model: Path, tmp_path: Path, asked: int, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        prepare(str(model), max_seqlen=asked, cache=tmp_path / "cache")


@pytest.mark.parametrize("options", [{"precision": "int4"}, {"precision": "int8"}, {"engine": "abacus"}])
def test_a_precision_or_engine_that_is_not_built_is_refused_with_those_that_are(
    model: Path, tmp_path: Path, options: dict[str, str]
) -> None:
    with pytest.raises(ModelError, match=r"is not available: this version builds (auto, fp32|onnxruntime)"):
        prepare(str(model), cache=tmp_path / "cache", **options)


def test_a_vocabulary_without_tokenizer_json_is_converted(model: Path, tmp_path: Path) -> None:
    expected = Tokenizer.from_file(str(model / "tokenizer.json")).encode("Wolves! 42 of them, naïve?").ids
    vocabulary = tokenizer_document()["model"]["vocab"]
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    (model / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    prepared = prepare(str(model), cache=tmp_path / "cache")
    assert Tokenizer.from_file(prepared.tokenizer).encode("Wolves! 42 of them, naïve?").ids == expected
    assert prepared.special_tokens == 2


@pytest.mark.parametrize("named", [None, "<nothing>"])
def test_a_tokenizer_without_a_padding_token_is_refused_until_one_is_named(
    model: Path, tmp_path: Path, tiny: ModuleType, named: str | None
) -> None:
    document = json.loads((model / "tokenizer.json").read_text())
    document["model"]["vocab"]["[FILL]"] = document["model"]["vocab"].pop("[PAD]")
    document["added_tokens"][0]["content"] = "[FILL]"
    tiny.write_json(model / "tokenizer.json", document)
    tiny.write_json(model / "tokenizer_config.json", {"pad_token": named} if named else {})
    with pytest.raises(ModelError, match="this tokenizer has no padding token"):
        prepare(str(model), cache=tmp_path / "cache")
    tiny.write_json(model / "tokenizer_config.json", {"pad_token": "[FILL]"})
    assert prepare(str(model), cache=tmp_path / "cache").built


def test_a_synthetic_model_gives_a_normalised_row_or_a_row_per_token(tmp_path: Path, session: Any) -> None:
    sentence = prepare("synthetic:minilm-l6", cache=tmp_path / "cache")
    ids = [np.array([2, 80, 90, 3], np.int32), np.array([2, 70, 3], np.int32)]
    assert [np.linalg.norm(row) for row in session(sentence)(ids)] == pytest.approx([1.0, 1.0])
    tokens = prepare("synthetic:minilm-l6", task="feature-extraction", cache=tmp_path / "cache")
    assert tokens.artefact.per_token
    assert [row.shape for row in session(tokens)(ids)] == [(4, 384), (3, 384)]


def test_ids_beyond_the_vocabulary_are_an_error_of_the_engine_and_not_a_wrong_answer(
    minilm: Prepared, session: Any
) -> None:
    from workers.engines.base import EngineError

    with pytest.raises(EngineError):
        session(minilm)([np.array([101, 30522, 102], np.int32)])


def test_everything_handed_out_can_cross_a_process_border(minilm: Prepared) -> None:
    assert msgspec.json.decode(msgspec.json.encode(minilm), type=Prepared) == minilm
