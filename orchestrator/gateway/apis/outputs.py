"""How are the tensors of an Open Inference answer written: in its JSON, or as bytes behind it? Pure. See tensors.py for the form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np

from orchestrator.gateway.apis.call import Body, Content, dumps
from orchestrator.gateway.apis.tensors import BINARY, HEADER_LENGTH, SIZE, Asked, Floats, Integers, Parameters, Wish


class OutputTensor(TypedDict):
    """A tensor of the answer. `data`, or `binary_data_size` in its parameters and its bytes behind the JSON."""

    name: str
    datatype: Literal["FP32", "INT64", "BYTES"]
    shape: list[int]
    parameters: NotRequired[Parameters]
    data: NotRequired[list[float | int | str]]


class InferResponse(TypedDict):
    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: NotRequired[str]


class Output(NamedTuple):
    """[n, …] in the datatype that goes with its array: FP32, INT64, or BYTES for a list of strings."""

    datatype: str
    shape: tuple[int, ...]
    values: Floats | Integers | list[str]


def written(asked: Asked, model: str, version: str, given: Mapping[str, Output]) -> Body:
    """The body with the outputs that were asked for, in that order; all of them where none was named."""
    wishes = asked.outputs or tuple(Wish(name, asked.binary) for name in given)
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, binary in wishes:
        output = given[name]
        one: dict[str, Any] = {"name": name, "datatype": output.datatype, "shape": output.shape}
        if binary:
            data = _bytes_of(output)
            one["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            values = output.values
            one["data"] = values if isinstance(values, list) else np.ascontiguousarray(values).reshape(-1)
        described.append(one)
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if asked.id is not None:
        document["id"] = asked.id
    head = dumps(document)
    if not parts:
        return head
    return Content(b"".join((head, *parts)), BINARY, f"{HEADER_LENGTH}: {len(head)}\r\n".encode("ascii"))


def _bytes_of(output: Output) -> bytes:
    values = output.values
    if isinstance(values, list):
        encoded = [one.encode() for one in values]
        return b"".join([part for one in encoded for part in (SIZE.pack(len(one)), one)])
    return values.astype("<f4" if output.datatype == "FP32" else "<i8", copy=False).tobytes()
