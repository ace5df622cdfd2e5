"""Is a graph that somebody else exported served as it is, and is one that cannot be served refused by what is wrong with it?

The graph of these tests is written out here: a row per word and token type, plus the mean of the text's rows, so that a mask that is
not minded shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from orchestrator.models import ModelError, prepare, torch_side
from orchestrator.models.directory import source_files, weights_of
from orchestrator.models.synthetic import tokenizer_document

WIDTH = 8
WORDS = np.random.default_rng(3).standard_normal((6000, WIDTH)).astype(np.float32)
TYPES = np.random.default_rng(4).standard_normal((2, WIDTH)).astype(np.float32)
MASKED = ["input_ids", "attention_mask"]
TYPED = [*MASKED, "token_type_ids"]
IDS = [np.array([2, 80, 90, 3], np.int32), np.array([2, 3], np.int32), np.array([2, 7, 7, 9, 1, 3], np.int32)]


def graph(
    path: Path,
    *,
    inputs: list[str] = MASKED,
    integer: int = TensorProto.INT64,
    opset: int = 18,
    output: str = "last_hidden_state",
    half: bool = False,
    pooled: bool = False,
    mindless: bool = False,
    external: str | None = None,
) -> Path:
    """Writes the graph in one of the ways in which exporters write theirs."""
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["ones", "last"], ["weights"]),
        helper.make_node("Mul", ["rows", "rows" if mindless else "weights"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "middle"], ["total"], keepdims=1),
        helper.make_node("ReduceSum", ["weights", "middle"], ["count"], keepdims=1),
        helper.make_node("Div", ["total", "count"], ["mean"]),
        helper.make_node("Add", ["rows", "mean"], ["mixed"]),
    ]
    value = "mixed"
    if "token_type_ids" in inputs:
        nodes.append(helper.make_node("Gather", ["types", "token_type_ids"], ["typed"]))
        nodes.append(helper.make_node("Add", ["mixed", "typed"], ["all"]))
        value = "all"
    if pooled:
        nodes.append(helper.make_node("Gather", [value, "first"], ["first_row"], axis=1))
        value = "first_row"
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes.append(helper.make_node("Cast", [value], [output], to=kind))
    constants = {
        "words": WORDS, "types": TYPES, "last": np.array([2], np.int64), "middle": np.array([1], np.int64),
        "first": np.array(0, np.int64),
    }  # fmt: skip
    shape: list[str | int] = ["batch", WIDTH] if pooled else ["batch", "length", WIDTH]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "somebody",
            [helper.make_tensor_value_info(name, integer, ["batch", "length"]) for name in inputs],
            [helper.make_tensor_value_info(output, kind, shape)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if external is not None:
        onnx.save_model(model, str(path), save_as_external_data=True, location=external, size_threshold=1024)
    else:
        onnx.save_model(model, str(path))
    return path


def expected(ids: np.ndarray, types: np.ndarray | None = None) -> np.ndarray:
    rows = WORDS[ids]
    return rows + rows.mean(axis=0) + (0 if types is None else TYPES[types])


def directory(root: Path, **options: Any) -> Path:
    """A Hugging Face directory with `onnx/` in it and no safetensors."""
    graph(root / "onnx" / "model.onnx", **options)
    (root / "tokenizer.json").write_text(json.dumps(tokenizer_document()))
    (root / "config.json").write_text(json.dumps({"model_type": "novel", "max_position_embeddings": 40}))
    return root


def describe(model: Path, name: str, document: object) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text(json.dumps(document))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"integer": TensorProto.INT32},
        {"opset": 14},
        {"external": "model.onnx_data"},
        {"external": "weights.data"},
        {"output": "token_embeddings"},
        {"output": "anything"},
    ],
)
def test_a_graph_in_the_folder_onnx_gives_the_rows_of_its_tokens(
    tmp_path: Path, session: Callable[..., Any], options: dict[str, Any]
) -> None:
    prepared = prepare(str(directory(tmp_path / "model", **options)), cache=tmp_path / "cache")
    assert (prepared.status.architecture, prepared.status.task) == ("novel", "feature-extraction")
    words = len(tokenizer_document()["model"]["vocab"])
    artefact = prepared.artefact
    assert (artefact.positions, artefact.width, artefact.vocab_size) == (40, WIDTH, words)
    for one, row in zip(IDS, session(prepared)(IDS), strict=True):
        assert np.abs(row - expected(one)).max() < 1e-5


def test_token_types_that_no_task_asks_for_are_all_zero(tmp_path: Path, session: Callable[..., Any]) -> None:
    prepared = prepare(str(directory(tmp_path / "model", inputs=TYPED)), cache=tmp_path / "cache")
    assert not prepared.artefact.token_types
    for one, row in zip(IDS, session(prepared)(IDS), strict=True):
        assert np.abs(row - expected(one, np.zeros_like(one))).max() < 1e-5


def test_half_precision_is_answered_in_floats(tmp_path: Path, session: Callable[..., Any]) -> None:
    prepared = prepare(str(directory(tmp_path / "model", half=True)), cache=tmp_path / "cache")
    for one, row in zip(IDS, session(prepared)(IDS), strict=True):
        assert row.dtype == np.float32
        assert np.abs(row - expected(one)).max() < 5e-3


def test_pooling_of_modules_json_is_appended(tmp_path: Path, session: Callable[..., Any]) -> None:
    model = directory(tmp_path / "model")
    modules = [("m.Transformer", ""), ("m.Pooling", "1_Pooling"), ("m.Normalize", "2_Normalize")]
    describe(model, "modules.json", [{"type": kind, "path": path} for kind, path in modules])
    describe(model, "1_Pooling/config.json", {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True})
    prepared = prepare(str(model), cache=tmp_path / "cache")
    assert (prepared.status.task, prepared.artefact.per_token) == ("sentence-embedding", False)
    for one, row in zip(IDS, session(prepared)(IDS), strict=True):
        mean = expected(one).mean(axis=0)
        assert np.abs(row - mean / np.linalg.norm(mean)).max() < 1e-6


def test_a_classifier_gives_the_row_of_its_labels(tmp_path: Path, session: Callable[..., Any]) -> None:
    model = directory(tmp_path / "model", output="logits", pooled=True)
    labels = {str(number): f"label {number}" for number in range(WIDTH)}
    document = {"architectures": ["NovelForSequenceClassification"], "id2label": labels, "max_position_embeddings": 40}
    describe(model, "config.json", document)
    prepared = prepare(str(model), cache=tmp_path / "cache")
    assert (prepared.status.task, prepared.artefact.width, prepared.artefact.per_token) == (
        "text-classification", WIDTH, False,
    )  # fmt: skip
    assert prepared.status.head is not None
    assert prepared.status.head.labels == list(labels.values())
    for one, row in zip(IDS, session(prepared)(IDS), strict=True):
        assert np.abs(row - expected(one)[0]).max() < 1e-5


def test_a_bare_graph_needs_a_tokenizer_beside_it_and_its_longest_text(
    tmp_path: Path, session: Callable[..., Any]
) -> None:
    path = graph(tmp_path / "somewhere" / "encoder.onnx")
    with pytest.raises(ModelError, match="no tokenizer"):
        prepare(str(path), cache=tmp_path / "cache")
    describe(path.parent, "tokenizer.json", tokenizer_document())
    with pytest.raises(ModelError, match=r"nobody says how long a text.*max_position_embeddings"):
        prepare(str(path), cache=tmp_path / "cache")
    describe(path.parent, "tokenizer_config.json", {"model_max_length": 33})
    prepared = prepare(str(path), cache=tmp_path / "cache")
    assert (prepared.status.architecture, prepared.artefact.positions) == ("onnx", 33)
    assert Path(prepared.status.artefact).name.startswith("somewhere-encoder-")
    assert np.abs(session(prepared)(IDS[:1])[0] - expected(IDS[0])).max() < 1e-5


def test_a_graph_in_the_folder_onnx_that_is_asked_for_by_name_belongs_to_the_directory_above(tmp_path: Path) -> None:
    model = directory(tmp_path / "model")
    (model / "onnx" / "model.onnx").rename(model / "onnx" / "model_O2.onnx")
    prepared = prepare(str(model / "onnx" / "model_O2.onnx"), cache=tmp_path / "cache")
    assert prepared.artefact.positions == 40
    assert Path(prepared.status.artefact).name.startswith("model-model_O2-")


def test_a_change_of_the_graph_or_of_its_weights_is_another_artefact(tmp_path: Path) -> None:
    model = directory(tmp_path / "model", external="model.onnx_data")
    assert [path.name for path in source_files(model)] == [
        "config.json", "model.onnx", "model.onnx_data", "tokenizer.json",
    ]  # fmt: skip
    first = prepare(str(model), cache=tmp_path / "cache")
    assert not prepare(str(model), cache=tmp_path / "cache").built
    with (model / "onnx" / "model.onnx_data").open("r+b") as file:
        file.write(np.float32(1.5).tobytes())
    second = prepare(str(model), cache=tmp_path / "cache")
    assert second.built
    assert first.status.digest != second.status.digest


def test_safetensors_that_are_built_here_come_before_a_graph_and_a_graph_before_other_safetensors(
    tiny: ModuleType, tmp_path: Path
) -> None:
    model = Path(tiny.write(tmp_path / "model", tiny.CASES["bert"]))
    graph(model / "onnx" / "model.onnx")
    assert weights_of(model).form == "safetensors"
    tiny.write_json(model / "config.json", tiny.BERT | {"model_type": "novel"})
    assert weights_of(model).form == "onnx"
    (model / "onnx" / "model.onnx").unlink()
    assert weights_of(model).form == "safetensors"
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert weights_of(model).form == "pickled"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inputs": ["input_ids", "attention_mask", "position_ids"]}, "it takes position_ids (int64)"),
        ({"integer": TensorProto.FLOAT}, "it takes input_ids (float)"),
        ({"output": "logits"}, "its outputs are logits; wanted is last_hidden_state, for feature-extraction"),
        ({"pooled": True}, "gave last_hidden_state [2, 8]"),
        ({"mindless": True}, "padding changes its answers"),
        ({"external": "elsewhere.bin"}, "lies in 'elsewhere.bin'"),
    ],
)
def test_a_graph_that_cannot_be_served_is_refused_by_what_does_not_fit(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    model = directory(tmp_path / "model", **options)
    with pytest.raises(ModelError) as raised:
        prepare(str(model), cache=tmp_path / "cache")
    assert str(model / "onnx" / "model.onnx") in str(raised.value)
    assert words in str(raised.value)
    assert raised.value.unworkable


@pytest.mark.parametrize("keep", [0, 5, 1000])
def test_a_graph_that_is_cut_off_is_refused_with_its_size(tmp_path: Path, keep: int) -> None:
    path = directory(tmp_path / "model") / "onnx" / "model.onnx"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.onnx: cannot read the graph"):
        prepare(str(tmp_path / "model"), cache=tmp_path / "cache")


def test_weights_that_are_cut_off_are_refused_by_the_graph_they_belong_to(tmp_path: Path) -> None:
    model = directory(tmp_path / "model", external="model.onnx_data")
    data = model / "onnx" / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.onnx: cannot take over the graph"):
        prepare(str(model), cache=tmp_path / "cache")


def test_a_graph_that_is_quantised_already_is_refused(tmp_path: Path) -> None:
    path = directory(tmp_path / "model") / "onnx" / "model.onnx"
    model = onnx.load(str(path))
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["mixed"], ["a", "b", "c"]))
    onnx.save_model(model, str(path))
    with pytest.raises(ModelError, match=r"quantised already \(DynamicQuantizeLinear\)"):
        prepare(str(tmp_path / "model"), cache=tmp_path / "cache")


def test_scores_that_are_not_as_many_as_the_labels_are_refused(tmp_path: Path) -> None:
    model = directory(tmp_path / "model", output="logits", pooled=True)
    document = {"architectures": ["NovelForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}
    describe(model, "config.json", document | {"max_position_embeddings": 40})
    with pytest.raises(ModelError, match="it gives 8 scores; wanted is one for each of 2 labels"):
        prepare(str(model), cache=tmp_path / "cache")


def test_a_text_that_the_graph_cannot_take_though_config_json_says_so_is_found_before_serving(tmp_path: Path) -> None:
    """A table of positions of 12 rows under a configuration that says 40."""
    model = directory(tmp_path / "model")
    path = model / "onnx" / "model.onnx"
    loaded = onnx.load(str(path))
    loaded.graph.initializer.append(numpy_helper.from_array(np.zeros((12, WIDTH), np.float32), "places"))
    loaded.graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), "zero"))
    loaded.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int64), "one"))
    loaded.graph.node[-1].input[0] = "placed"
    extra = [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["numbers"]),
        helper.make_node("Gather", ["places", "numbers"], ["place_rows"]),
        helper.make_node("Add", ["mixed", "place_rows"], ["placed"]),
    ]
    nodes = [*loaded.graph.node[:-1], *extra, loaded.graph.node[-1]]
    del loaded.graph.node[:]
    loaded.graph.node.extend(nodes)
    onnx.save_model(loaded, str(path))
    with pytest.raises(ModelError, match=r"model\.onnx: onnxruntime cannot run the graph"):
        prepare(str(model), cache=tmp_path / "cache")


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_side, "installed", lambda: False)


@pytest.mark.usefixtures("without_torch")
def test_an_architecture_that_is_not_built_names_those_that_are_and_the_extra(tiny: ModuleType, tmp_path: Path) -> None:
    model = Path(tiny.write(tmp_path / "model", tiny.CASES["bert"]))
    tiny.write_json(model / "config.json", tiny.BERT | {"model_type": "novel"})
    with pytest.raises(ModelError, match=r"'novel', supported: bert, .*deberta-v2.*orchestrator\[torch\]"):
        prepare(str(model), cache=tmp_path / "cache")


@pytest.mark.usefixtures("without_torch")
def test_a_model_that_is_not_built_though_its_architecture_is_names_the_graph_that_lies_there(
    tiny: ModuleType, tmp_path: Path
) -> None:
    model = Path(tiny.write(tmp_path / "model", tiny.CASES["bert"]))
    tiny.write_json(model / "config.json", tiny.BERT | {"position_embedding_type": "relative_key"})
    with pytest.raises(ModelError, match=r"relative_key.*orchestrator\[torch\]"):
        prepare(str(model), cache=tmp_path / "cache")
    path = graph(model / "onnx" / "model.onnx")
    with pytest.raises(ModelError, match=f"relative_key, supported: absolute; serve its graph: --model {path}"):
        prepare(str(model), cache=tmp_path / "cache")
    assert prepare(str(path), cache=tmp_path / "cache").artefact.width == WIDTH


def test_weights_of_a_graph_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = directory(tmp_path / "model") / "onnx" / "model.onnx"
    model = onnx.load(str(path))
    words = next(tensor for tensor in model.graph.initializer if tensor.name == "words")
    words.CopyFrom(numpy_helper.from_array(np.full_like(WORDS, np.nan), "words"))
    onnx.save_model(model, str(path))
    with pytest.raises(ModelError, match="gave numbers that are not finite"):
        prepare(str(tmp_path / "model"), cache=tmp_path / "cache")


@pytest.mark.usefixtures("without_torch")
def test_a_pickle_is_not_read_without_torch(tiny: ModuleType, tmp_path: Path) -> None:
    model = Path(tiny.write(tmp_path / "model", tiny.CASES["bert"]))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: these weights need torch.*orchestrator\[torch\]"):
        prepare(str(model), cache=tmp_path / "cache")


needs_torch = pytest.mark.skipif(not torch_side.installed(), reason="the extra torch; make test-reference has it")


@needs_torch
@pytest.mark.timeout(300)
def test_an_architecture_that_is_not_built_is_exported_and_gives_the_same(
    tiny: ModuleType, tmp_path: Path, session: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """BERT stands in for it: the rows of our own graph are known to be those of transformers."""
    from orchestrator.models import settings

    model = str(tiny.write(tmp_path / "model", tiny.CASES["bert-mean-normalised"]))
    ours = session(prepare(model, cache=tmp_path / "cache"))(IDS)
    monkeypatch.delitem(settings.ARCHITECTURES, "bert")
    exported = prepare(model, cache=tmp_path / "other")
    assert exported.artefact.per_token is False
    for one, other in zip(ours, session(exported)(IDS), strict=True):
        assert np.abs(one - other).max() < 1e-5


@needs_torch
@pytest.mark.timeout(300)
def test_a_pickle_of_tensors_is_read_as_safetensors_are(tiny: ModuleType, tmp_path: Path, session: Any) -> None:
    import torch

    model = Path(tiny.write(tmp_path / "model", tiny.CASES["bert"]))
    ours = session(prepare(str(model), cache=tmp_path / "cache"))(IDS)
    tensors = {name: torch.from_numpy(value) for name, value in load_file(model / "model.safetensors").items()}
    torch.save(tensors, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    pickled = session(prepare(str(model), cache=tmp_path / "other"))(IDS)
    assert all(np.array_equal(one, other) for one, other in zip(ours, pickled, strict=True))


@needs_torch
@pytest.mark.timeout(300)
def test_a_pickle_that_would_call_something_is_refused_and_nothing_is_called(tiny: ModuleType, tmp_path: Path) -> None:
    import torch

    model = Path(tiny.write(tmp_path / "model", tiny.CASES["bert"]))
    (model / "model.safetensors").unlink()
    torch.save({"weight": Call(str(tmp_path / "called"))}, model / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: cannot read the weights"):
        prepare(str(model), cache=tmp_path / "cache")
    assert not (tmp_path / "called").exists()


class Call:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))
