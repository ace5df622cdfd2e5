"""Are tensors found in a body of the Open Inference Protocol, and is every contradiction in one told?"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orchestrator.gateway.apis import outputs, tensors
from orchestrator.gateway.apis.call import Content
from orchestrator.gateway.apis.outputs import Output
from orchestrator.gateway.errors import Refusal


def column(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in texts)


def request(*inputs: tuple[str, str, list[int], Any], **more: Any) -> tuple[bytes, int]:
    """Inputs whose data is bytes lie behind the JSON; the body and the length of its JSON."""
    listed, parts = [], []
    for name, datatype, shape, data in inputs:
        one: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if isinstance(data, bytes):
            one["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            one["data"] = data
        listed.append(one)
    head = json.dumps({"inputs": listed, **more}).encode()
    return head + b"".join(parts), len(head)


def one(datatype: str, shape: list[int], data: Any) -> tensors.Tensor:
    body, length = request(("x", datatype, shape, data))
    return tensors.read(body, length).inputs["x"]


def refusal(kind: str, what: Any) -> str:
    with pytest.raises(Refusal) as caught:
        what()
    assert caught.value.kind == kind, caught.value.message
    return caught.value.message


def test_binary_and_json_tensors_go_together_in_the_order_of_their_names() -> None:
    ids = np.array([[1, 2], [3, -4]], np.int64)
    body, length = request(
        ("a", "INT64", [2, 2], ids.tobytes()), ("b", "BYTES", [1], ["x"]), ("c", "BYTES", [2], column(b"\xc3\xa9", b"")),
        ("d", "INT32", [2], np.array([7, 8], np.int32).tobytes()),
    )  # fmt: skip
    asked = tensors.read(body, length)
    assert tensors.integers(asked.inputs["a"]).tolist() == ids.tolist()
    assert tensors.strings(asked.inputs["b"]) == ["x"]
    assert tensors.strings(asked.inputs["c"]) == ["é", ""]
    assert tensors.integers(asked.inputs["d"]).tolist() == [7, 8]


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[1, 2, 3], [4, 5, 6]]])
def test_data_may_be_flat_or_nested_as_the_shape_says(data: Any) -> None:
    assert tensors.integers(one("INT64", [2, 3], data)).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tensors.floats(one("FP32", [2, 3], data)).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tensors.strings(one("BYTES", [2, 1], [["a"], ["b"]])) == ["a", "b"]


def test_numbers_behind_the_json_are_not_copied_one_by_one() -> None:
    found = tensors.floats(one("FP32", [3, 4], np.arange(12, dtype=np.float32).tobytes()))
    assert found.tolist() == np.arange(12).reshape(3, 4).tolist()
    assert not found.flags.owndata


@pytest.mark.parametrize(
    ("shape", "data", "says"),
    [
        ([2], [1], "1 elements, the shape [2] says 2"),
        ([2, 2], [1, 2, 3], "3 elements"),
        ([2, 2], [[1, 2], [3]], "lists of other lengths than the 2"),
        ([2, 2], [[1, 2], 3], "Expected `array`"),
        ([2, 2], [[[1], [2]], [[3], [4]]], "3 lists deep"),
        ([4], [[1, 2, 3, 4]], "2 lists deep"),
        ([1], 5, "Expected `array`"),
        ([1], [1.5], "Expected `int`"),
        ([1], [True], "Expected `int`"),
        ([1], ["1"], "Expected `int`"),
        ([1], [2**63], "beyond INT64"),
        ([10**15], [1], "1 elements"),
        ([1, 1, 1, 1, 1], [[[[[1]]]]], "5 lists deep"),
    ],
    ids=repr,
)
def test_elements_that_are_not_what_shape_and_datatype_say_are_malformed(
    shape: list[int], data: Any, says: str
) -> None:
    message = refusal("malformed", lambda: tensors.integers(one("INT64", shape, data)))
    assert says in message
    assert message.startswith("inputs.x")


@pytest.mark.parametrize("data", [b"", b"\0" * 15, b"\0" * 17])
def test_bytes_that_are_not_as_many_as_the_shape_says_are_malformed(data: bytes) -> None:
    message = refusal("malformed", lambda: tensors.integers(one("INT64", [2, 1], data)))
    assert message == f"inputs.x: {len(data)} bytes, INT64 of the shape [2, 1] has 16"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x01\x00", "element 0 has 2 bytes of the 4"),
        (struct.pack("<I", 5) + b"abc", "element 0 says it has 5 bytes, 3 are left"),
        (column(b"a") + struct.pack("<I", 2**32 - 1), "element 1 says it has 4294967295 bytes, 0 are left"),
        (column(b"a"), "1 elements, the shape [2] says 2"),
        (column(b"a", b"b", b"c"), "5 bytes behind the 2 elements of its shape"),
        (column(*[b""] * 9), "28 bytes behind"),
        (column(b"a", b"\xff\xfe"), "element 1 is not UTF-8"),
    ],
)
def test_lengths_of_elements_that_lie_are_malformed(data: bytes, says: str) -> None:
    assert says in refusal("malformed", lambda: tensors.strings(one("BYTES", [2], data)))


@pytest.mark.parametrize("datatype", ["FP32", "BOOL", "bytes", ""])
def test_another_datatype_than_the_tensor_has_is_not_acceptable(datatype: str) -> None:
    assert "expected BYTES" in refusal("unprocessable", lambda: tensors.strings(one(datatype, [1], ["a"])))
    assert "INT64 or INT32" in refusal("unprocessable", lambda: tensors.integers(one(datatype, [1], b"\0" * 8)))


def test_another_encoding_than_the_one_that_is_read_is_not_acceptable() -> None:
    def said(content_type: Any) -> tensors.Tensor:
        return tensors.Tensor("x", "BYTES", (1,), {"content_type": content_type}, b'["a"]', None)

    assert said("str").encoded("str")
    assert not said(None).encoded("str")
    for other in ("base64", 5, ["str"]):
        assert "send 'str'" in refusal("unprocessable", lambda other=other: said(other).encoded("str"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda right: 0, "it is the length of the JSON"),
        (lambda right: right + 9, "the body has"),
        (lambda right: right - 3, "not JSON"),
        (lambda right: right + 3, "not JSON"),
        (lambda right: None, "not JSON"),
    ],
)
def test_a_length_of_the_json_that_lies_is_malformed(change: Callable[[int], int | None], says: str) -> None:
    body, right = request(("x", "INT64", [1], b"\0" * 8))
    assert says in refusal("malformed", lambda: tensors.read(body, change(right)))


def test_bytes_that_belong_to_no_tensor_are_malformed() -> None:
    body, length = request(("x", "INT64", [1], b"\0" * 8))
    message = refusal("malformed", lambda: tensors.read(body + b"!", length))
    assert "9 bytes behind the JSON, the inputs account for 8" in message


def test_a_body_that_ends_before_its_tensors_is_malformed_and_names_the_first_that_is_torn() -> None:
    body, length = request(("a", "INT64", [1], b"\0" * 8), ("b", "INT64", [2], b"\0" * 16))
    message = refusal("malformed", lambda: tensors.read(body[:-1], length))
    assert message == "inputs.b: binary_data_size is 16, 15 bytes of the body are left for it"


def test_binary_sizes_without_the_header_are_told_what_is_missing() -> None:
    body = json.dumps(
        {"inputs": [{"name": "a", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}}]}
    ).encode()
    assert tensors.HEADER_LENGTH in refusal("malformed", lambda: tensors.read(body, None))


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"shape": [-1]}, "malformed", "negative"),
        ({"data": None}, "malformed", "neither data nor binary_data_size"),
        ({"parameters": {"binary_data_size": 0}}, "malformed", "both"),
        ({"parameters": {"binary_data_size": -1}}, "malformed", "0 or more"),
        ({"parameters": {"binary_data_size": "8"}}, "malformed", "whole number"),
        ({"parameters": {"binary_data_size": True}}, "malformed", "whole number"),
        ({"parameters": {"shared_memory_region": "r"}}, "unprocessable", "shared memory"),
        ({"name": 5}, "malformed", "$.inputs[0].name"),
        ({"shape": "1"}, "malformed", "$.inputs[0].shape"),
        ({"datatype": None}, "malformed", "$.inputs[0].datatype"),
    ],
)
def test_an_input_that_contradicts_itself_is_told(changes: dict[str, Any], kind: str, says: str) -> None:
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "data": ["a"], **changes}
    assert says in refusal(kind, lambda: tensors.read(json.dumps({"inputs": [tensor]}).encode(), None))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"inputs": 5}', b'{"id": 5, "inputs": []}', b'{"inputs": [', b"[" * 100_000,
             b'{"inputs": [{"name": "x", "shape": [1], "datatype": "BYTES", "data": ' + b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_request_is_malformed(body: bytes) -> None:
    refusal("malformed", lambda: tensors.read(body, None))


def test_an_input_or_flag_that_is_not_one_is_told() -> None:
    twice = request(("x", "BYTES", [1], ["a"]), ("x", "BYTES", [1], ["a"]))
    assert "is there twice" in refusal("malformed", lambda: tensors.read(*twice))
    flag = request(("x", "BYTES", [1], ["a"]), parameters={"binary_data_output": 1})
    assert "expected true or false" in refusal("malformed", lambda: tensors.read(*flag))
    for parameters, kind in (({"classification": 3}, "unprocessable"), ({"binary_data": "yes"}, "malformed")):
        wish = request(("x", "BYTES", [1], ["a"]), outputs=[{"name": "y", "parameters": parameters}])
        refusal(kind, lambda wish=wish: tensors.read(*wish))


GIVEN = {
    "embedding": Output("FP32", (2, 2), np.array([[1, 1 / 3], [-1e-8, 0]], np.float32)),
    "labels": Output("BYTES", (2,), ["é", ""]),
    "count": Output("INT64", (1,), np.array([5])),
}


def asked(**more: Any) -> tensors.Asked:
    return tensors.read(*request(("x", "BYTES", [1], ["a"]), **more))


def test_outputs_come_as_json_unless_they_are_asked_for_as_bytes() -> None:
    body = outputs.written(asked(id="7"), "m", "1", GIVEN)
    assert isinstance(body, bytes)
    answer = json.loads(body)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "1", "7")
    assert [one["name"] for one in answer["outputs"]] == list(GIVEN)
    assert np.array(answer["outputs"][0]["data"], np.float32).tolist() == GIVEN["embedding"].values.ravel().tolist()  # type: ignore[union-attr]
    assert answer["outputs"][1] == {"name": "labels", "datatype": "BYTES", "shape": [2], "data": ["é", ""]}


def test_no_id_is_given_where_none_was_sent() -> None:
    assert b'"id"' not in outputs.written(asked(), "m", "1", GIVEN)  # type: ignore[operator]


def test_only_the_outputs_that_are_named_come_in_that_order_each_as_it_is_asked_for() -> None:
    wishes = [{"name": "count", "parameters": {"binary_data": False}}, {"name": "labels"}, {"name": "embedding"}]
    content = outputs.written(asked(outputs=wishes, parameters={"binary_data_output": True}), "m", "1", GIVEN)
    assert isinstance(content, Content)
    assert content.content_type == "application/octet-stream"
    name, length = content.headers.decode().strip().split(": ")
    assert name == "Inference-Header-Content-Length"
    head, rest = json.loads(content.data[: int(length)]), content.data[int(length) :]
    count, labels, embedding = head["outputs"]
    assert (count["name"], count["data"]) == ("count", [5])
    assert (labels["name"], labels["parameters"]) == ("labels", {"binary_data_size": 10})
    assert rest[:10] == column("é".encode(), b"")
    assert embedding["parameters"] == {"binary_data_size": 16}
    assert rest[10:] == GIVEN["embedding"].values.tobytes()  # type: ignore[union-attr]
