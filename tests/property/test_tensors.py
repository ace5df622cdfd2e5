"""Do tensors of any shape come out of a body of the Open Inference Protocol as they went in?"""

from __future__ import annotations

import json
import math
import struct
from contextlib import suppress
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.apis import outputs, tensors
from orchestrator.gateway.apis.call import Content
from orchestrator.gateway.apis.outputs import Output
from orchestrator.gateway.errors import Refusal

texts = st.text(st.characters(codec="utf-8"), max_size=8)
shapes = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


@st.composite
def given_outputs(draw: st.DrawFn) -> Output:
    shape = draw(shapes)
    count = math.prod(shape)
    kind = draw(st.sampled_from(["FP32", "INT64", "BYTES"]))
    values: Any
    if kind == "BYTES":
        values = draw(st.lists(texts, min_size=count, max_size=count))
    elif kind == "INT64":
        values = np.array(draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=count, max_size=count)), np.int64)
        values = values.reshape(shape)
    else:
        listed = draw(
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=count, max_size=count)
        )
        values = np.array(listed, np.float32).reshape(shape)
    return Output(kind, shape, values)


def same(tensor: tensors.Tensor, output: Output) -> bool:
    if output.datatype == "BYTES":
        return tensors.strings(tensor) == output.values
    found = tensors.floats(tensor) if output.datatype == "FP32" else tensors.integers(tensor)
    assert isinstance(output.values, np.ndarray)
    return found.shape == output.shape and found.tobytes() == output.values.tobytes()


@given(st.lists(st.tuples(given_outputs(), st.booleans()), min_size=1, max_size=4))
def test_what_is_written_as_an_answer_is_read_back_as_a_request(given_: list[tuple[Output, bool]]) -> None:
    """An answer has the form of a request but for the name of its list: each is the other's proof."""
    named = {f"t{number}": output for number, (output, _) in enumerate(given_)}
    wishes = tuple(tensors.Wish(f"t{number}", binary) for number, (_, binary) in enumerate(given_))
    written = outputs.written(tensors.Asked(None, {}, {}, wishes, False), "m", "1", named)
    if isinstance(written, Content):
        length = int(written.headers.split(b":")[1])
        document, rest = json.loads(written.data[:length]), written.data[length:]
    else:
        document, rest = json.loads(written), b""
    head = json.dumps({"inputs": document["outputs"]}).encode()
    asked = tensors.read(head + rest, len(head))
    assert all(same(asked.inputs[name], output) for name, output in named.items())


@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_a_byte_that_is_changed_or_gone_is_refused_or_changes_the_texts_and_nothing_worse(
    column: list[str], data: st.DataObject
) -> None:
    encoded = [text.encode() for text in column]
    blob = b"".join(struct.pack("<I", len(one)) + one for one in encoded)
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "BYTES",
                    "shape": [len(column)],
                    "parameters": {"binary_data_size": len(blob)},
                }
            ]
        }
    ).encode()
    body = bytearray(head + blob)
    at = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        body[at] = data.draw(st.integers(0, 255))
    else:
        del body[at]
    with suppress(Refusal):
        for tensor in tensors.read(bytes(body), data.draw(st.sampled_from([len(head), None]))).inputs.values():
            assert len(tensors.strings(tensor)) == tensor.count
