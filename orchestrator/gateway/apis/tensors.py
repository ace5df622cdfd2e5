"""How do the tensors of an Open Inference request lie in its body: in the JSON, or as bytes behind it? Pure.

The JSON names each tensor with its datatype and shape. Its elements are either there too (`data`, flat in row-major order or nested as
the shape says), or `binary_data_size` bytes behind the JSON, in the order in which the tensors are named: little-endian without gaps,
each element of BYTES behind its length as u32. The header `Inference-Header-Content-Length` says where the JSON ends. Bytes are looked at
where they lie; numbers are never taken out of them one by one.
Sources: https://github.com/kserve/open-inference-protocol (inference_rest.md) and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from orchestrator.gateway.apis.call import decode
from orchestrator.gateway.errors import Refusal

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
BINARY: Final = "application/octet-stream"

SIZE = struct.Struct("<I")
"""How long an element of BYTES is."""
_INTEGERS: Final = {"INT64": "<i8", "INT32": "<i4"}
_SHARED: Final = "shared_memory_region"

Parameters = dict[str, Any]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class InferInput(msgspec.Struct):
    """A tensor of the request. `data`, or `binary_data_size` in its parameters and its bytes behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class InferRequestedOutput(msgspec.Struct):
    """`binary_data: true` in the parameters has the tensor as bytes behind the JSON."""

    name: str
    parameters: Parameters | None = None


class InferRequest(msgspec.Struct):
    """`binary_data_output: true` in the parameters has all outputs as bytes, unless one says otherwise for itself."""

    inputs: list[InferInput]
    id: str | None = None
    parameters: Parameters | None = None
    outputs: list[InferRequestedOutput] | None = None


_request = msgspec.json.Decoder(InferRequest)
_DEEPEST: Final = 4


def _decoders(kind: Any) -> list[msgspec.json.Decoder[Any]]:
    decoders = []
    for _ in range(_DEEPEST):
        kind = list[kind]
        decoders.append(msgspec.json.Decoder(kind))
    return decoders


_STRINGS, _WHOLE, _REAL = _decoders(str), _decoders(int), _decoders(float)


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """An input that is known by name, size and shape; its elements have not been looked at."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Parameters
    data: bytes
    """JSON; empty where its bytes came behind it."""
    blob: memoryview | None
    """Its bytes, where they came behind the JSON."""

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def of(self, datatypes: tuple[str, ...]) -> None:
        """Refusal (422) for another datatype than these."""
        if self.datatype not in datatypes:
            raise Refusal(
                "unprocessable", f"inputs.{self.name}: is {self.datatype[:40]}, expected {' or '.join(datatypes)}"
            )

    def encoded(self, known: str) -> bool:
        """Whether it says that it is encoded so. MLServer's clients do; Refusal (422) for another encoding."""
        said = self.parameters.get("content_type")
        if said not in (None, known):
            raise Refusal(
                "unprocessable",
                f"inputs.{self.name}.parameters.content_type: {said!r:.40} is not read here; leave it out, or send {known!r}",
            )
        return said == known

    def wrong(self, why: str) -> Refusal:
        return Refusal("malformed", f"inputs.{self.name}: {why}")


class Wish(NamedTuple):
    """An output that is asked for."""

    name: str
    binary: bool


class Asked(NamedTuple):
    """A request whose sizes add up."""

    id: str | None
    parameters: Parameters
    inputs: dict[str, Tensor]
    outputs: tuple[Wish, ...]
    """Empty: all."""
    binary: bool
    """How outputs are given where none is named."""


def read(body: bytes, header_length: int | None) -> Asked:
    """Refusal: 400 for what is not of this form or whose sizes contradict one another, 422 for what cannot be done.

    `header_length` is where the JSON ends, None = it is all of the body.
    """
    end = len(body) if header_length is None else header_length
    if not 0 < end <= len(body) and header_length is not None:
        raise Refusal(
            "malformed", f"{HEADER_LENGTH}: {end}, the body has {len(body)} bytes; it is the length of the JSON"
        )
    request = decode(_request, body if end == len(body) else body[:end])
    rest = memoryview(body)[end:]
    inputs: dict[str, Tensor] = {}
    at = 0
    for one in request.inputs:
        tensor, at = _tensor(one, rest, at, header_length is None)
        if tensor.name in inputs:
            raise tensor.wrong("is there twice")
        inputs[tensor.name] = tensor
    if at != len(rest):
        raise Refusal(
            "malformed",
            f"body: {len(rest)} bytes behind the JSON, the inputs account for {at}; binary_data_size says how many are whose",
        )
    parameters = request.parameters or {}
    return Asked(
        request.id,
        parameters,
        inputs,
        tuple(_wish(one, _flag(parameters, "binary_data_output", "parameters")) for one in request.outputs or ()),
        _flag(parameters, "binary_data_output", "parameters"),
    )


def _tensor(one: InferInput, rest: memoryview, at: int, no_header: bool) -> tuple[Tensor, int]:
    """The tensor, and where the bytes of the next one begin."""
    parameters = one.parameters or {}
    name = one.name[:80]
    where = f"inputs.{name}"
    if _SHARED in parameters:
        raise Refusal("unprocessable", f"{where}: shared memory is not taken; send the tensor in the body")
    if any(size < 0 for size in one.shape):
        raise Refusal("malformed", f"{where}.shape: {one.shape!s:.80} has a negative size; say how many there are")
    shape = tuple(one.shape)
    data = b"" if isinstance(one.data, msgspec.UnsetType) else bytes(one.data)
    given = data not in (b"", b"null")
    size = parameters.get("binary_data_size")
    if size is None:
        if not given:
            raise Refusal("malformed", f"{where}: has neither data nor binary_data_size")
        return Tensor(name, one.datatype, shape, parameters, data, None), at
    if type(size) is not int or size < 0:
        raise Refusal("malformed", f"{where}.parameters.binary_data_size: expected a whole number of bytes, 0 or more")
    if given:
        raise Refusal("malformed", f"{where}: has both data and binary_data_size; send one of them")
    if at + size > len(rest):
        missing = f"; without the header {HEADER_LENGTH} all of the body is JSON" if no_header else ""
        raise Refusal(
            "malformed",
            f"{where}: binary_data_size is {size}, {len(rest) - at} bytes of the body are left for it{missing}",
        )
    return Tensor(name, one.datatype, shape, parameters, b"", rest[at : at + size]), at + size


def _wish(one: InferRequestedOutput, otherwise: bool) -> Wish:
    parameters = one.parameters or {}
    where = f"outputs.{one.name[:80]}.parameters"
    if _SHARED in parameters:
        raise Refusal("unprocessable", f"{where}: shared memory is not written to; the tensor comes in the body")
    if parameters.get("classification"):
        raise Refusal("unprocessable", f"{where}.classification: ask for the outputs labels and scores, with top_k")
    return Wish(one.name, _flag(parameters, "binary_data", where) if "binary_data" in parameters else otherwise)


def _flag(parameters: Parameters, name: str, where: str) -> bool:
    value = parameters.get(name)
    if value is not None and type(value) is not bool:
        raise Refusal("malformed", f"{where}.{name}: {value!r:.40}, expected true or false")
    return bool(value)


# ---- elements


def strings(tensor: Tensor) -> list[str]:
    """Its texts, in row-major order. Refusal (400) for what is no UTF-8."""
    if tensor.blob is None:
        tensor.of(("BYTES",))
        return _from_json(tensor, _STRINGS)
    texts = []
    for position, element in enumerate(blobs(tensor)):
        try:
            texts.append(element.decode())
        except UnicodeDecodeError as error:
            raise tensor.wrong(f"element {position} is not UTF-8: {error}") from None
    return texts


def blobs(tensor: Tensor) -> list[bytes]:
    """The elements of a BYTES tensor that came behind the JSON."""
    tensor.of(("BYTES",))
    assert tensor.blob is not None
    blob, at, count = tensor.blob, 0, tensor.count
    elements: list[bytes] = []
    while at < len(blob):
        begins = at + SIZE.size
        if begins > len(blob):
            raise tensor.wrong(f"element {len(elements)} has {len(blob) - at} bytes of the 4 that say its length")
        (length,) = SIZE.unpack_from(blob, at)
        at = begins + length
        if at > len(blob):
            raise tensor.wrong(
                f"element {len(elements)} says it has {length} bytes, {len(blob) - begins} are left; each is behind its length as u32"
            )
        elements.append(bytes(blob[begins:at]))
        if len(elements) == count and at < len(blob):
            raise tensor.wrong(f"{len(blob) - at} bytes behind the {count} elements of its shape")
    if len(elements) != count:
        raise tensor.wrong(f"{len(elements)} elements, the shape {list(tensor.shape)!s:.80} says {count}")
    return elements


def integers(tensor: Tensor) -> Integers:
    """In the shape of the tensor; read-only where they lie in the body."""
    tensor.of(tuple(_INTEGERS))
    if tensor.blob is not None:
        return _from_bytes(tensor, _INTEGERS[tensor.datatype]).astype(np.int64, copy=False)
    try:
        return np.array(_from_json(tensor, _WHOLE), np.int64).reshape(tensor.shape)
    except OverflowError:
        raise tensor.wrong("holds a number beyond INT64") from None


def floats(tensor: Tensor) -> Floats:
    """In the shape of the tensor; read-only where they lie in the body."""
    tensor.of(("FP32",))
    if tensor.blob is not None:
        return _from_bytes(tensor, "<f4").astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # an infinity is refused by whoever asked for the floats
        return np.array(_from_json(tensor, _REAL), np.float64).astype(np.float32).reshape(tensor.shape)


def _from_bytes(tensor: Tensor, kind: str) -> npt.NDArray[Any]:
    assert tensor.blob is not None
    wanted = tensor.count * np.dtype(kind).itemsize
    if len(tensor.blob) != wanted:
        raise tensor.wrong(
            f"{len(tensor.blob)} bytes, {tensor.datatype} of the shape {list(tensor.shape)!s:.80} has {wanted}"
        )
    return np.frombuffer(tensor.blob, kind).reshape(tensor.shape)


def _from_json(tensor: Tensor, decoders: list[msgspec.json.Decoder[Any]]) -> list[Any]:
    """The elements in row-major order, nested as the shape says or flat."""
    raw = tensor.data
    depth = raw[: len(raw) - len(raw.lstrip(b"[ \t\r\n"))].count(b"[")
    shape = tensor.shape
    nested = shape if depth == len(shape) else (tensor.count,)
    if depth > 1 and (depth != len(shape) or depth > _DEEPEST):
        raise tensor.wrong(
            f"data: {depth} lists deep; expected a flat list, or one nested as the shape {list(shape)!s:.80}"
        )
    try:
        found: list[Any] = decoders[max(depth, 1) - 1].decode(raw)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise tensor.wrong(f"data: {error}") from None
    for axis, size in enumerate(nested):
        if axis:
            if any(len(one) != nested[axis] for one in found):
                raise tensor.wrong(f"data: lists of other lengths than the {size} of the shape {list(shape)!s:.80}")
            found = [element for one in found for element in one]
        elif len(found) != size:
            raise tensor.wrong(f"data: {len(found)} elements, the shape {list(shape)!s:.80} says {size}")
    return found
