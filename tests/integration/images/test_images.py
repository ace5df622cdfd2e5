"""Does a model of images answer as transformers.pipeline does, and what does it refuse?"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from orchestrator.client.link import Answered, Part
from orchestrator.client.texts import Tokens
from orchestrator.deploy import image_shapes
from orchestrator.gateway.apis import huggingface, jina, openai, openinference, tei
from orchestrator.gateway.apis.call import Call, Served
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.spec import Limits
from orchestrator.gateway.tasks import image_classification
from orchestrator.models import ModelError, Prepared, prepare
from orchestrator.models.choose import Wish
from orchestrator.models.optimize import tune
from workers import wire
from workers.costs import measure
from workers.engines.base import EngineError, LoadError
from workers.engines.onnxruntime import load
from workers.loop import Worker
from workers.spec import WorkerSpec
from workers.warmup import warm_up
from workers.wire import RequestId

DATA = Path(__file__).parents[2] / "data" / "images"
REFERENCE = json.loads((DATA / "reference.json").read_text())
CASES = [(name, file) for name, images in REFERENCE["answers"].items() for file in images]


@pytest.fixture(scope="module")
def tiny_images() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_images", DATA / "tiny_images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_images"] = module
    spec.loader.exec_module(module)
    return module


class Model:
    """A tiny model with what a gateway knows of it and a worker that has loaded it."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.served = Served(prepared.status, Limits(batch=8), 0)
        spec = WorkerSpec(
            name="test", incarnation=1, cpus=[0], membind=[], nodes_on_machine=1, threads=1, endpoint="",
            max_seqlen=prepared.status.max_seqlen, warmup=[], artefact=prepared.artefact,
        )  # fmt: skip
        self.worker = Worker(spec, load(spec), None)  # type: ignore[arg-type]  # nothing is sent to a supervisor

    def answer(self, call: Call) -> Any:
        tokens = call.tokens
        if tokens is None:
            assert call.decode is not None
            tokens = call.decode()
        frame = wire.encode_batch(1, tokens.lengths, [tokens.ids], pixels=tokens.pixels)
        rows = self.worker._compute(wire.decode_batch(frame))
        part = Part("test", (0, 0), len(rows), 0, 0, 1)
        answered = Answered(
            RequestId(1), [memoryview(row.tobytes()) for row in rows], rows.shape[1], False, [part], None
        )
        return json.loads(call.render(answered, tokens))  # type: ignore[arg-type]  # nothing is asked for as bytes

    def post(self, body: Any) -> Any:
        return self.answer(huggingface.predict(json.dumps(body).encode(), self.served))


@pytest.fixture(scope="module")
def model(tiny_images: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    home = tmp_path_factory.mktemp("images")
    made: dict[str, Model] = {}

    def of(name: str) -> Model:
        if name not in made:
            made[name] = Model(prepare(str(tiny_images.write(home / name, name)), cache=home / "cache"))
        return made[name]

    return of


@pytest.mark.parametrize(("name", "file"), CASES)
def test_an_image_gets_the_labels_and_scores_of_the_pipeline(
    name: str, file: str, model: Callable[[str], Model]
) -> None:
    got = model(name).post({"inputs": REFERENCE["images"][file], "parameters": {"top_k": 100}})
    expected = REFERENCE["answers"][name][file]
    assert [one["label"] for one in got] == [one["label"] for one in expected]
    assert [one["score"] for one in got] == pytest.approx([one["score"] for one in expected], abs=1e-4)


def test_bytes_a_data_url_and_a_list_give_the_same_answer(model: Callable[[str], Model]) -> None:
    one, text = model("classes"), REFERENCE["images"]["photo.jpg"]
    plain = one.post({"inputs": text})
    assert len(plain) == image_classification.TOP_K
    assert one.post({"inputs": f"data:image/jpeg;base64,{text}"}) == plain
    assert one.answer(image_classification.raw(base64.b64decode(text), one.served)) == plain
    other = REFERENCE["images"]["odd.png"]
    listed = one.post({"inputs": [text, other], "parameters": {"top_k": 2}})
    for got, alone in zip(listed, (plain, one.post({"inputs": other})), strict=True):
        assert [label["label"] for label in got] == [label["label"] for label in alone[:2]]
        assert [label["score"] for label in got] == pytest.approx([label["score"] for label in alone[:2]], abs=1e-6)


def _infer(
    one: Model, name: str, datatype: str, shape: list[int], data: Any, said: Any = None, **more: Any
) -> dict[str, Any]:
    """By name the outputs; data that is bytes lies behind the JSON."""
    tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape, "parameters": said or {}}
    behind = data if isinstance(data, bytes) else b""
    tensor.update({} if isinstance(data, bytes) else {"data": data})
    if isinstance(data, bytes):
        tensor["parameters"]["binary_data_size"] = len(data)
    head = json.dumps({"inputs": [tensor], **more}).encode()
    answer = one.answer(openinference.infer(head + behind, one.served, len(head)))
    return {output["name"]: output for output in answer["outputs"]}


def test_tensors_of_images_give_the_labels_and_scores_of_predict(model: Callable[[str], Model]) -> None:
    one, text = model("classes"), REFERENCE["images"]["photo.jpg"]
    expected = one.post({"inputs": text, "parameters": {"top_k": 3}})
    file = base64.b64decode(text)
    sized = struct.pack("<I", len(file)) + file
    encoded = struct.pack("<I", len(text)) + text.encode()
    asked: list[tuple[Any, Any]] = [(sized, {}), ([text], {}), ([[text]], {}), (encoded, {"content_type": "base64"})]
    with pytest.raises(Refusal, match="content_type: 'pillow' is not read here"):
        _infer(one, "image", "BYTES", [1], [text], {"content_type": "pillow"})
    for data, parameters in asked:
        shape = [1, 1] if data == [[text]] else [1]
        found = _infer(one, "image", "BYTES", shape, data, parameters, parameters={"top_k": 3})
        assert found["labels"]["data"] == [label["label"] for label in expected]
        assert (
            np.float32(found["scores"]["data"]).tolist() == np.float32([label["score"] for label in expected]).tolist()
        )
        assert found["labels"]["shape"] == [1, 3]
        assert found["logits"]["shape"] == [1, len(one.served.model.head.labels)]  # type: ignore[union-attr]


def test_pixels_that_a_client_has_prepared_are_taken_as_they_are(model: Callable[[str], Model]) -> None:
    one = model("classes")
    decode = image_classification.raw(base64.b64decode(REFERENCE["images"]["photo.jpg"]), one.served).decode
    assert decode is not None
    pixels = decode().ids
    by_image = _infer(one, "image", "BYTES", [1], [REFERENCE["images"]["photo.jpg"]])
    assert _infer(one, "pixel_values", "FP32", [1, 3, 32, 32], pixels)["logits"] == by_image["logits"]
    nested = np.frombuffer(pixels, np.float32).reshape(1, 3, 32, 32).tolist()
    assert _infer(one, "pixel_values", "FP32", [1, 3, 32, 32], nested)["logits"] == by_image["logits"]


@pytest.mark.parametrize(
    ("name", "datatype", "shape", "data", "status", "says"),
    [
        ("image", "BYTES", [1], ["no base64!"], 400, "inputs.image[0]: not base64"),
        ("image", "BYTES", [1], struct.pack("<I", 3) + b"abc", 422, "inputs.image[0]: 3 bytes that are no image"),
        ("image", "BYTES", [9], ["AAAA"] * 9, 413, "9 images, the limit is 8"),
        ("image", "UINT8", [1], [5], 422, "expected BYTES"),
        ("pixel_values", "FP32", [1, 32, 32, 3], bytes(12288), 422, "[images, [3, 32, 32]]"),
        ("pixel_values", "FP32", [1, 3, 32, 32], bytes(12284), 400, "12284 bytes"),
        ("pixel_values", "FP64", [1, 3, 32, 32], bytes(24576), 422, "expected FP32"),
        ("pixel_values", "FP32", [1, 3, 32, 32], np.full(3072, np.nan, np.float32).tobytes(), 422, "not finite"),
        (
            "text",
            "BYTES",
            [1],
            ["rain"],
            422,
            "inputs.text: is unknown; this model takes image (BYTES), or pixel_values (FP32)",
        ),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_tensors_that_are_no_image_are_refused_by_their_name(
    name: str, datatype: str, shape: list[int], data: Any, status: int, says: str, model: Callable[[str], Model]
) -> None:
    with pytest.raises(Refusal) as caught:
        _infer(model("classes"), name, datatype, shape, data)
    assert caught.value.status == status
    assert says in caught.value.message


def _png(width: int, height: int) -> bytes:
    """The header of an image of this size, and no pixel behind it."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return start + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def _whole(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"inputs": "no base64!"}, 400, "inputs: not base64"),
        ({"inputs": "data:image/png,abc"}, 400, "data: URL"),
        ({"inputs": 7}, 400, "inputs"),
        ({"inputs": ""}, 422, "inputs: is empty"),
        ({"inputs": []}, 422, "is empty"),
        ({"inputs": _whole(b"not an image")}, 422, "12 bytes that are no image; PNG"),
        ({"inputs": ["AAAA"] * 9}, 413, "9 inputs, the limit is 8"),
        ({"inputs": _whole(_png(30_000, 30_000))}, 413, "pixels"),
        ({"inputs": _whole(_png(8000, 8000))}, 413, "8000 × 8000 pixels, the limit is 50000000"),
        ({"inputs": _whole(_png(8, 8))}, 422, "broken"),
        ({"inputs": _whole(base64.b64decode(REFERENCE["images"]["photo.jpg"])[:-700])}, 422, "broken"),
        ({"inputs": "https://example.com/cat.png"}, 422, "not fetched"),
        ({"inputs": "AAAA", "parameters": {"top_k": 0}}, 422, "top_k"),
        ({"inputs": "AAAA", "parameters": {"candidate_labels": ["a"]}}, 400, "candidate_labels"),
    ],
)
def test_what_is_no_image_or_too_large_is_refused_by_its_field(
    body: Any, status: int, says: str, model: Callable[[str], Model]
) -> None:
    with pytest.raises(Refusal, match=says) as caught:
        model("classes").post(body)
    assert caught.value.status == status


def test_routes_of_texts_refuse_a_model_of_images_by_its_task(model: Callable[[str], Model]) -> None:
    served = model("classes").served
    for parse, body in (
        (tei.embed, {"inputs": "a"}), (openai.embeddings, {"input": "a"}), (tei.tokenize, {"inputs": "a"}),
        (tei.rerank, {"query": "a", "texts": ["b"]}), (jina.rerank, {"query": "a", "documents": ["b"]}),
    ):  # fmt: skip
        with pytest.raises(Refusal, match="image-classification") as caught:
            parse(json.dumps(body).encode(), served)
        assert caught.value.status == 422


def test_a_worker_refuses_what_its_model_does_not_read(model: Callable[[str], Model]) -> None:
    worker = model("classes").worker
    with pytest.raises(EngineError, match="reads images"):
        worker._compute(wire.decode_batch(wire.encode_batch(1, [2], [np.ones(2, np.int32).tobytes()])))
    with pytest.raises(EngineError, match="expected 12288"):
        worker._compute(wire.decode_batch(wire.encode_batch(1, [17], [bytes(40)], pixels=True)))


@pytest.mark.parametrize("wish", [Wish("int8"), Wish("bf16"), Wish("auto", "openvino")])
def test_precisions_that_are_judged_with_texts_are_refused_for_images(
    wish: Wish, model: Callable[[str], Model], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="not for models of images"):
        tune(model("classes").prepared, tmp_path, wish, None, print)


def test_auto_and_fp32_serve_images_in_fp32(model: Callable[[str], Model]) -> None:
    prepared = model("classes").prepared
    for wish in (Wish(), Wish("fp32", "onnxruntime")):
        tuned = tune(prepared, Path(prepared.status.artefact).parent, wish, None, print)
        assert tuned.choose(1, prepared.status.max_seqlen).variant.name == "fp32 on onnxruntime"


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("preprocessor_config.json", {"size": {"height": 48, "width": 48}}, "the model reads"),
        ("preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor"}, "CLIPImageProcessor"),
        ("preprocessor_config.json", {"do_resize": False}, "do_resize"),
        ("preprocessor_config.json", {"resample": 9}, "resample is 9"),
        ("preprocessor_config.json", {"image_std": [0, 1, 1]}, "image_std"),
        ("preprocessor_config.json", None, "no such file"),
        ("config.json", {"patch_size": 9}, "patches of 9"),
        ("config.json", {"num_channels": 1}, "num_channels"),
        ("config.json", {"image_size": 40}, "position_embeddings"),
        ("config.json", {"architectures": ["ViTModel"]}, "ViT without a classifier"),
    ],
)
def test_a_directory_that_does_not_fit_itself_is_refused_by_the_field(
    file: str, changes: dict[str, Any] | None, says: str, tiny_images: ModuleType, tmp_path: Path
) -> None:
    directory = tiny_images.write(tmp_path / "model", "classes")
    path = directory / file
    if changes is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        if "image_size" in changes:
            other = directory / "preprocessor_config.json"
            other.write_text(json.dumps(json.loads(other.read_text()) | {"size": {"height": 40, "width": 40}}))
    with pytest.raises(ModelError, match=says):
        prepare(str(directory), cache=tmp_path / "cache")


@pytest.mark.parametrize("task", ["feature-extraction", "text-classification"])
def test_a_task_of_texts_is_refused_for_a_vit(task: str, tiny_images: ModuleType, tmp_path: Path) -> None:
    directory = tiny_images.write(tmp_path / "model", "classes")
    with pytest.raises(ModelError, match=f"not for {task}"):
        prepare(str(directory), task=task, cache=tmp_path / "cache")


def test_warm_up_and_costs_run_images(model: Callable[[str], Model]) -> None:
    artefact = model("classes").prepared.artefact
    spec = WorkerSpec(
        name="test", incarnation=1, cpus=[0], membind=[], nodes_on_machine=1, threads=1, endpoint="", max_seqlen=17,
        warmup=[(1, 17), (3, 17)], artefact=artefact,
    )  # fmt: skip
    engine = load(spec)
    warm_up(engine, spec)
    points, _ = measure(engine, spec, artefact)
    assert {(point.length, point.n) for point in points} == {(17, 1), (17, 2), (17, 8)}
    with pytest.raises(LoadError, match="expected"):
        warm_up(engine, msgspec.structs.replace(spec, artefact=msgspec.structs.replace(artefact, width=9)))


def test_an_instance_warms_up_with_one_image_and_a_full_batch(model: Callable[[str], Model]) -> None:
    assert image_shapes(model("classes").prepared.artefact, 170) == [(1, 17), (10, 17)]


def test_a_length_other_than_that_of_an_image_is_refused(tiny_images: ModuleType, tmp_path: Path) -> None:
    directory = str(tiny_images.write(tmp_path / "model", "classes"))
    assert prepare(directory, cache=tmp_path / "cache").status.max_seqlen == 17
    with pytest.raises(ModelError, match="17 tokens"):
        prepare(directory, cache=tmp_path / "cache", max_seqlen=16)


def test_pixels_travel_unharmed_from_image_to_wire(model: Callable[[str], Model]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (255, 0, 51)).save(file, "PNG")
    call = image_classification.raw(file.getvalue(), model("classes").served)
    assert call.decode is not None
    tokens: Tokens = call.decode()
    pixels = np.frombuffer(tokens.ids, np.float32).reshape(3, 32, 32)
    assert tokens.lengths == [17]
    assert pixels[:, 5, 9] == pytest.approx([1.0, -1.0, -0.6], abs=1e-6)
