"""How are nodes and weights written into an ONNX file?

The weights lie beside the graph in one data file, raw and aligned to pages, so that an engine maps them: what it does not repack (the
table of words above all) is then shared by all processes through the page cache. One tensor is in memory at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from orchestrator.models.build import OPSET

PAGE = 4096
INLINE_BYTES = 16 << 10
"""Biases and the like stay in the graph: a page each would be mostly air."""

IR_VERSION = 9
"""The oldest that holds opset 18 and external data; read by onnxruntime from 1.16 on."""


class DataFile:
    """Tensors one after the other, each starting on a page. A context: leaving it flushes to the disk."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> DataFile:
        self._file = self._path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with self._file as file:
                file.flush()
                os.fsync(file.fileno())

    def append(self, value: np.ndarray) -> tuple[int, int]:
        """Writes the bytes; returns (offset, length)."""
        if self._file is None:
            raise RuntimeError("the data file is not open: use it as a context")
        at = self._file.tell()
        if at % PAGE:
            self._file.write(bytes(PAGE - at % PAGE))
            at = self._file.tell()
        self._file.write(np.ascontiguousarray(value).data.cast("B"))
        return at, value.nbytes

    def tensor(self, name: str, value: np.ndarray) -> Any:
        """An initializer of this value, float32, int64 or int8: in the graph where it is small, else in this file."""
        tensor = TensorProto()
        tensor.name = name
        tensor.dims.extend(value.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        if value.nbytes <= INLINE_BYTES:
            tensor.raw_data = np.ascontiguousarray(value).tobytes()
            return tensor
        offset, length = self.append(value)
        tensor.data_location = TensorProto.EXTERNAL
        for key, text in (("location", self.name), ("offset", str(offset)), ("length", str(length))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, text
        return tensor


class GraphBuilder:
    """Collects nodes and constants; `serialise` makes the model. Every name is given by the caller and used once."""

    def __init__(self, data: DataFile) -> None:
        self._data = data
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._names: set[str] = set()
        self._shared: set[str] = set()
        self._functions: list[Any] = []
        self._opsets = {"": OPSET, "com.microsoft": 1}
        self._ir_version = IR_VERSION

    def shared(self, name: str, make: Callable[[], np.ndarray]) -> str:
        """A constant that several nodes read: made and written once, however often it is asked for."""
        if name not in self._shared:
            self.constant(name, make())
            self._shared.add(name)
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """An initializer, float32 or int64."""
        self._claim(name)
        self._constants.append(self._data.tensor(name, value))
        return name

    def absorb(self, model: onnx.ModelProto) -> None:
        """Takes over the nodes, constants, functions and operator sets of a model whose weights are in memory; not its inputs and outputs.

        Its names must be none that this graph has. Its ai.onnx must be at least OPSET.
        """
        for tensor in model.graph.initializer:
            self.constant(tensor.name, numpy_helper.to_array(tensor))
        for node in model.graph.node:
            for name in node.output:
                if name:
                    self._claim(name)
            self._nodes.append(node)
        self._functions.extend(model.functions)
        for entry in model.opset_import:
            domain = "" if entry.domain == "ai.onnx" else entry.domain
            self._opsets[domain] = max(entry.version, self._opsets.get(domain, 0))
        self._ir_version = max(self._ir_version, model.ir_version)

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        *,
        domain: str = "",
        spare_outputs: int = 0,
        **attributes: Any,
    ) -> str:
        """One node; returns the name of its first output. `spare_outputs` are outputs that the schema demands and nobody reads."""
        outputs = [output, *(f"{output}.spare{number}" for number in range(spare_outputs))]
        for name in outputs:
            self._claim(name)
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=output, domain=domain, **attributes))
        return output

    def either(
        self,
        condition: str,
        output: str,
        operator: str,
        inputs: Sequence[str],
        other_inputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """The operator on `inputs` where the condition (a bool scalar) holds, on `other_inputs` where it does not."""

        def branch(name: str, chosen: Sequence[str]) -> Any:
            self._claim(name)
            node = helper.make_node(operator, list(chosen), [name], name=name, domain=domain, **attributes)
            return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

        return self.node(
            "If",
            [condition],
            output,
            then_branch=branch(f"{output}.then", inputs),
            else_branch=branch(f"{output}.else", other_inputs),
        )

    def serialise(
        self,
        name: str,
        inputs: Mapping[str, tuple[str | int, ...]],
        output: str,
        shape: tuple[str | int, ...],
        *,
        floats: bool = False,
    ) -> bytes:
        """The model: int32 inputs (with `floats` float32) by name and symbolic shape, one float32 output."""
        kind = TensorProto.FLOAT if floats else TensorProto.INT32
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(one, kind, dims) for one, dims in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
            initializer=self._constants,
        )
        model = helper.make_model(
            graph,
            producer_name="orchestrator",
            ir_version=self._ir_version,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in self._opsets.items()],
            functions=self._functions,
        )
        data: bytes = model.SerializeToString()
        return data

    def _claim(self, name: str) -> None:
        if name in self._names:
            raise ValueError(f"the graph has two values of the name {name!r}")
        self._names.add(name)


ONNX_VERSION: str = onnx.__version__
