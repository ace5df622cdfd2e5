"""Are tensors found whatever the checkpoint calls them, and are bad ones refused by name?"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from orchestrator.models.directory import source_files, weight_files
from orchestrator.models.errors import ModelError
from orchestrator.models.settings import read_encoder
from orchestrator.models.weights import Checkpoint, check, take

WORDS = "embeddings.word_embeddings.weight"
QUERY = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def model(tiny: ModuleType, tmp_path: Path) -> Path:
    return Path(tiny.write(tmp_path, tiny.CASES["bert"]))


def checkpoint(model: Path) -> Checkpoint:
    return Checkpoint(weight_files(model))


def checked(tiny: ModuleType, model: Path) -> None:
    encoder = read_encoder(tiny.BERT, "config.json")
    check(checkpoint(model), encoder.tensors(), encoder.layer_prefix, len(encoder.layers))


def rewrite(model: Path, **changes: np.ndarray | None) -> None:
    tensors = load_file(model / "model.safetensors")
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, model / "model.safetensors")


@pytest.mark.parametrize("prefix", ["", "bert.", "0.auto_model."])
def test_the_prefix_of_a_task_model_is_found(tiny: ModuleType, tmp_path: Path, prefix: str) -> None:
    plain = checkpoint(tiny.write(tmp_path / "plain", tiny.CASES["bert"]))
    prefixed = checkpoint(tiny.write(tmp_path / "prefixed", tiny.CASES["bert"], prefix=prefix))
    assert set(plain.names()) == set(prefixed.names())
    assert np.array_equal(plain.read(QUERY), prefixed.read(QUERY))


def test_two_encoders_in_one_checkpoint_are_refused(model: Path) -> None:
    rewrite(model, **{"other." + WORDS: np.zeros((2, 2), np.float32)})
    with pytest.raises(ModelError, match=r"2 encoders, with the prefixes \['', 'other\.'\]"):
        checkpoint(model)


def test_gamma_and_beta_of_old_checkpoints_are_weight_and_bias(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    gamma, beta = tensors.pop("embeddings.LayerNorm.weight"), tensors.pop("embeddings.LayerNorm.bias")
    save_file(
        tensors | {"embeddings.LayerNorm.gamma": gamma, "embeddings.LayerNorm.beta": beta}, model / "model.safetensors"
    )
    assert np.array_equal(checkpoint(model).read("embeddings.LayerNorm.weight"), gamma)
    assert np.array_equal(checkpoint(model).read("embeddings.LayerNorm.bias"), beta)


@pytest.mark.parametrize("kind", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_floats_of_any_size_are_handed_out_as_fp32(model: Path, kind: type) -> None:
    values = load_file(model / "model.safetensors")[QUERY].astype(kind)
    rewrite(model, **{QUERY: values})
    read = checkpoint(model).read(QUERY)
    assert read.dtype == np.float32
    assert np.array_equal(read, values.astype(np.float32))


def test_integers_are_no_weights(model: Path) -> None:
    rewrite(model, **{QUERY: np.ones((32, 32), np.int8)})
    with pytest.raises(ModelError, match=f"{QUERY} is of type I8"):
        take(checkpoint(model), QUERY, (32, 32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused_with_tensor_and_count(model: Path, bad: float) -> None:
    values = load_file(model / "model.safetensors")[QUERY]
    values[3, 4] = values[5, 6] = bad
    rewrite(model, **{QUERY: values})
    with pytest.raises(ModelError, match=rf"model\.safetensors.*{QUERY} holds 2 values that are NaN or infinite"):
        take(checkpoint(model), QUERY, (32, 32))


def test_all_missing_and_misshapen_tensors_are_named_at_once(tiny: ModuleType, model: Path) -> None:
    rewrite(model, **{QUERY: None, WORDS: np.zeros((6000, 31), np.float32)})
    with pytest.raises(ModelError) as raised:
        checked(tiny, model)
    assert f"tensor {QUERY} [32, 32] is missing" in str(raised.value)
    assert f"tensor {WORDS} has shape [6000, 31], config.json asks for [6000, 32]" in str(raised.value)
    assert str(model / "model.safetensors") in str(raised.value)


def test_a_configuration_with_fewer_layers_than_the_weights_is_a_lie(tiny: ModuleType, model: Path) -> None:
    rewrite(model, **{"encoder.layer.2.output.dense.bias": np.zeros(32, np.float32)})
    with pytest.raises(ModelError, match=r"tensors of layer 2, config\.json says 2 layers"):
        checked(tiny, model)


def test_whole_weights_pass_the_check(tiny: ModuleType, model: Path) -> None:
    checked(tiny, model)


@pytest.mark.parametrize("keep", [0, 4, 1000, -1])
def test_a_truncated_file_is_refused_with_its_size(model: Path, keep: int) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=rf"model\.safetensors: cannot read the weights.*{path.stat().st_size} bytes"):
        checkpoint(model)


def shard(model: Path, where: dict[str, str] | None = None) -> None:
    """Splits the weights into two files with an index."""
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, model / file)
    mapped = {name: file for file, held in parts.items() for name in held} | (where or {})
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))
    (model / "model.safetensors").unlink()


def test_shards_are_read_as_one_checkpoint(tiny: ModuleType, model: Path) -> None:
    whole = checkpoint(model)
    expected = {name: whole.read(name) for name in whole.names()}
    shard(model)
    sharded = checkpoint(model)
    checked(tiny, model)
    assert all(np.array_equal(sharded.read(name), value) for name, value in expected.items())


def test_shards_and_their_index_count_for_the_digest(model: Path) -> None:
    shard(model)
    names = [path.name for path in source_files(model)]
    assert "model.safetensors.index.json" in names
    assert sum(name.startswith("model-0000") for name in names) == 2


def test_a_shard_that_is_not_there_is_named(model: Path) -> None:
    shard(model)
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"names model-00002-of-00002\.safetensors, and there is no such file"):
        checkpoint(model)


@pytest.mark.parametrize("file", ["../../secret.safetensors", "/etc/passwd", "sub/model.safetensors", "model.bin"])
def test_an_index_cannot_lead_out_of_its_directory(model: Path, file: str) -> None:
    shard(model, {"extra": file})
    with pytest.raises(ModelError, match="not the name of a safetensors file in the same directory"):
        checkpoint(model)


@pytest.mark.parametrize("document", ["{}", '{"weight_map": {}}', '{"weight_map": [1]}', "{"])
def test_an_index_that_names_no_shard_is_refused(model: Path, document: str) -> None:
    shard(model)
    (model / "model.safetensors.index.json").write_text(document)
    with pytest.raises(ModelError, match=r"index\.json|no weights"):
        checkpoint(model)


def test_a_directory_with_weights_in_another_format_says_which_format_is_wanted(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no model\.safetensors \(found pytorch_model\.bin\).*safetensors format"):
        weight_files(model)
