"""Does what a directory says of itself arrive as settings, and is what cannot be built refused by name?"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.models.errors import ModelError
from orchestrator.models.settings import Normalise, Pool, Project, read_settings


def test_a_bare_encoder_gives_a_row_per_token(tiny: ModuleType, tmp_path: Path) -> None:
    settings = read_settings(tiny.write(tmp_path, tiny.CASES["bert"]), None)
    assert (settings.task, settings.per_token, settings.width) == ("feature-extraction", True, 32)
    assert settings.own_max_seqlen == 48


def test_a_bare_encoder_asked_for_sentences_pools_by_the_mean(tiny: ModuleType, tmp_path: Path) -> None:
    settings = read_settings(tiny.write(tmp_path, tiny.CASES["bert"]), "sentence-embedding")
    assert settings.steps == (Pool(("mean",)),)


def test_modules_decide_the_steps_and_the_width(tiny: ModuleType, tmp_path: Path) -> None:
    settings = read_settings(tiny.write(tmp_path, tiny.CASES["bert-concatenated"]), None)
    assert settings.task == "sentence-embedding"
    assert settings.steps == (Pool(("cls", "mean")), Project("2_Dense", 64, 16, True, "tanh"), Normalise())
    assert (settings.width, settings.per_token, settings.own_max_seqlen) == (16, False, 44)


def test_feature_extraction_by_name_leaves_the_modules_out(tiny: ModuleType, tmp_path: Path) -> None:
    settings = read_settings(tiny.write(tmp_path, tiny.CASES["bert-concatenated"]), "feature-extraction")
    assert settings.per_token
    assert settings.own_max_seqlen == 44


@pytest.mark.parametrize(
    ("document", "modes"),
    [
        ({"word_embedding_dimension": 32, "pooling_mode_cls_token": True}, ("cls",)),
        ({"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False}, ("mean",)),
        ({"embedding_dimension": 32, "pooling_mode": "lasttoken", "include_prompt": True}, ("lasttoken",)),
        ({"embedding_dimension": 32, "pooling_mode": ["mean", "max"]}, ("mean", "max")),
    ],
)
def test_pooling_is_understood_in_its_old_and_its_new_form(
    tiny: ModuleType, tmp_path: Path, document: dict[str, Any], modes: tuple[str, ...]
) -> None:
    tiny.write(tmp_path, tiny.CASES["bert-cls"])
    tiny.write_json(tmp_path / "1_Pooling" / "config.json", document)
    assert read_settings(tmp_path, None).steps == (Pool(modes),)


def test_modules_of_newer_releases_have_other_packages_and_the_same_meaning(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.CASES["bert-cls"])
    kinds = ["sentence_transformers.base.modules.transformer.Transformer", "x.y.Pooling", "z.Dropout", "x.Normalize"]
    paths = ["", "1_Pooling", "2_Dropout", "3_Normalize"]
    tiny.write_json(tmp_path / "modules.json", [{"type": k, "path": p} for k, p in zip(kinds, paths, strict=True)])
    assert read_settings(tmp_path, None).steps == (Pool(("cls",)), Normalise())


def test_the_encoder_may_lie_in_the_folder_of_its_module(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.CASES["bert-cls"])
    home = tmp_path / "0_Transformer"
    home.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "sentence_bert_config.json"):
        (tmp_path / name).rename(home / name)
    tiny.write_json(
        tmp_path / "modules.json",
        [{"type": "m.Transformer", "path": "0_Transformer"}, {"type": "m.Pooling", "path": "1_Pooling"}],
    )
    settings = read_settings(tmp_path, None)
    assert (settings.own_max_seqlen, settings.steps) == (44, (Pool(("cls",)),))


def test_a_limit_beyond_the_positions_is_the_positions(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.CASES["bert-cls"])
    tiny.write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 512})
    assert read_settings(tmp_path, None).own_max_seqlen == 48


@pytest.mark.parametrize("value", [-1, 6000, "no", None])
def test_a_padding_id_that_is_no_id_of_the_model_is_replaced_by_a_valid_one(
    tiny: ModuleType, tmp_path: Path, value: object
) -> None:
    case = {"config": tiny.BERT | {"pad_token_id": value}}
    assert read_settings(tiny.write(tmp_path, case), None).pad_id == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, ["config.json", "model_type is 'gpt2'", "supported: bert, distilbert"]),
        ({"model_type": None}, ["model_type is None"]),
        ({"hidden_act": "mish"}, ["hidden_act is 'mish'", "gelu", "relu"]),
        ({"position_embedding_type": "relative_key"}, ["position_embedding_type is relative_key", "absolute"]),
        ({"is_decoder": True}, ["is_decoder is true"]),
        ({"pruned_heads": {"0": [1]}}, ["pruned_heads"]),
        ({"num_attention_heads": 5}, ["width of 32", "5 attention heads"]),
        ({"hidden_size": "32"}, ["config.json", "$.hidden_size", "str"]),
        ({"num_hidden_layers": 0}, ["$.num_hidden_layers"]),
        ({"architectures": ["BertForMultipleChoice"]}, ["BertForMultipleChoice", "--task"]),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused_by_file_and_field(
    tiny: ModuleType, tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    tiny.write(tmp_path, tiny.CASES["bert"])
    tiny.write_json(tmp_path / "config.json", tiny.BERT | change)
    with pytest.raises(ModelError) as raised:
        read_settings(tmp_path, None)
    assert raised.value.unworkable
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_dimension_that_is_not_said_is_not_guessed(tiny: ModuleType, tmp_path: Path, field: str) -> None:
    tiny.write(tmp_path, tiny.CASES["bert"])
    tiny.write_json(tmp_path / "config.json", {key: value for key, value in tiny.BERT.items() if key != field})
    with pytest.raises(ModelError, match=f"missing required field `{field}`"):
        read_settings(tmp_path, None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model_type": "bert"', "\x00", '"bert"'])
def test_a_configuration_that_is_no_json_object_is_refused_by_file(tiny: ModuleType, tmp_path: Path, text: str) -> None:
    tiny.write(tmp_path, tiny.CASES["bert"])
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json: cannot understand the configuration"):
        read_settings(tmp_path, None)


def test_a_task_that_is_not_known_is_refused_with_those_that_are(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.CASES["bert"])
    with pytest.raises(ModelError, match=r"unknown task 'poetry'.*feature-extraction, sentence-embedding"):
        read_settings(tmp_path, "poetry")


@pytest.mark.parametrize(
    ("name", "document", "words"),
    [
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, ["weightedmean", "supported: cls, max"]),
        ("1_Pooling/config.json", {"embedding_dimension": 32, "pooling_mode": 7}, ["mode is 7"]),
        ("1_Pooling/config.json", {"word_embedding_dimension": 31}, ["31", "32"]),
        ("2_Dense/config.json", {"in_features": 8, "out_features": 4}, ["in_features is 8", "64"]),
        (
            "2_Dense/config.json",
            {"in_features": 64, "out_features": 4, "activation_function": "torch.nn.modules.activation.ReLU"},
            ["ReLU", "Tanh"],
        ),
        ("2_Dense/config.json", {"in_features": 64, "out_features": 4, "use_residual": True}, ["use_residual True"]),
        ("modules.json", [{"type": "a.Transformer"}, {"type": "a.LSTM", "path": "1"}], ["a.LSTM", "Pooling"]),
        ("modules.json", [{"type": "a.Transformer"}, {"type": "a.Normalize"}], ["Normalize"]),
        ("modules.json", [{"type": "a.Transformer"}], ["no Pooling"]),
        ("modules.json", [{"type": "a.CLIPModel"}], ["CLIPModel", "the first is Transformer"]),
        ("modules.json", [{"type": "a.Transformer", "path": "../elsewhere"}], ["leads out of the directory"]),
        ("modules.json", {"0": "Transformer"}, ["modules.json", "Expected `array`"]),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "q", "prompts": {"q": "query: "}},
            ["'query: '", "default_prompt_name"],
        ),
        ("sentence_bert_config.json", {"max_seq_length": -3}, ["$.max_seq_length"]),
    ],
)
def test_what_follows_the_encoder_is_refused_where_it_cannot_be_built(
    tiny: ModuleType, tmp_path: Path, name: str, document: object, words: list[str]
) -> None:
    tiny.write(tmp_path, tiny.CASES["bert-concatenated"])
    tiny.write_json(tmp_path / name, document)
    with pytest.raises(ModelError) as raised:
        read_settings(tmp_path, None)
    for word in words:
        assert word in str(raised.value)


def test_a_default_prompt_that_is_empty_changes_nothing_and_is_accepted(tiny: ModuleType, tmp_path: Path) -> None:
    tiny.write(tmp_path, tiny.CASES["bert-cls"])
    tiny.write_json(
        tmp_path / "config_sentence_transformers.json", {"default_prompt_name": None, "prompts": {"query": "q: "}}
    )
    assert read_settings(tmp_path, None).steps == (Pool(("cls",)),)
