"""In which form does OpenVINO run a graph fastest, and how is ours brought into it? Pure.

The graph is built for ONNX Runtime. OpenVINO reads it, and takes its MultiHeadAttention apart into nodes that it does not put together
again; written as plain products, Softmax and Transposes, it compiles each attention into one kernel, and the bias of queries, keys and
values goes into their products. An If (attention with and without a mask, `GraphBuilder.either`) becomes its branch with the mask:
without one nothing is gained here, and the If costs a tenth. Attention that is not in such an If is somebody else's and stays. Tokens stay
[batch, length, width]: one below the other, as ONNX Runtime likes them, they cost 3 %.
In all, bf16, MiniLM, one core with AMX, CPU time: 1.11 × as fast at 1×16 and 1×64, 1.15 at 1×128, 1.08 at 1×512.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from orchestrator.models.build.postnorm import DEEP, FLAT, FLAT_NARROW

Constant = Callable[[str], np.ndarray]
"""The value of a constant of the graph, by its name."""

LOWEST = float(np.array(0xFF7F0000, np.uint32).view(np.float32))
"""Added to the score of padding: the lowest number of bf16. The lowest of fp32 would become −∞ in bf16, and 0 · −∞ is no number."""

_KNOWN = {"num_heads", "mask_filter_value", "scale"}


def openvino_form(model: onnx.ModelProto, constant: Constant) -> onnx.ModelProto:
    """The same answers from other nodes; constants that are new lie in the graph itself, the rest where they lay."""
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    writer = _Writer({tensor.name: tensor for tensor in model.graph.initializer}, constant)
    for node in model.graph.node:
        writer.take(node)
    del rewritten.graph.node[:]
    rewritten.graph.node.extend(writer.nodes)
    rewritten.graph.initializer.extend(writer.constants.values())
    return rewritten


def _masked(node: Any) -> Any | None:
    """Of an If that the builder wrote around attention: what its else branch has, under the name of the If. None for any other node."""
    if node.op_type != "If":
        return None
    branches = {one.name: one.g for one in node.attribute}
    named = {"then_branch": f"{node.output[0]}.then", "else_branch": f"{node.output[0]}.else"}
    if {name: branch.name for name, branch in branches.items()} != named:
        return None
    if any([inner.op_type for inner in branch.node] != ["MultiHeadAttention"] for branch in branches.values()):
        return None
    inner = onnx.NodeProto()
    inner.CopyFrom(branches["else_branch"].node[0])
    inner.output[0] = node.output[0]
    return inner


class _Writer:
    def __init__(self, known: dict[str, Any], constant: Constant) -> None:
        self._known = known
        self._constant = constant
        self._flattened = FLAT in known  # a graph of postnorm.py
        self._renamed: dict[str, str] = {}
        """What is read instead, by the output of a Reshape that has gone."""
        self._masks: dict[str, str] = {}
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def take(self, node: Any) -> None:
        if self._flattened and node.op_type == "Reshape" and node.input[1] in (FLAT, FLAT_NARROW, DEEP):
            self._renamed[node.output[0]] = self._renamed.get(node.input[0], node.input[0])
            return
        attention = _masked(node)
        node = node if attention is None else attention
        inputs = [self._renamed.get(name, name) for name in node.input]
        if self._flattened and node.op_type == "Gemm" and not node.attribute:
            product = self._node("MatMul", inputs[:2], f"{node.output[0]}.product")
            self._node("Add", [product, inputs[2]], node.output[0])
        elif attention is None or not self._plainly(attention, inputs):
            kept = onnx.NodeProto()
            kept.CopyFrom(node)
            kept.input[:] = inputs
            self.nodes.append(kept)

    def _plainly(self, node: Any, inputs: Sequence[str]) -> bool:
        """Writes the attention in plain nodes. False, and nothing written, where it has something that is not known here."""
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        query, key, value, bias, mask, added, *others = [*inputs, *[""] * (6 - len(inputs))]
        if not attributes.keys() <= _KNOWN or len(node.output) != 1 or not (query and key and value) or any(others):
            return False
        if bias and bias not in self._known:
            return False
        heads, scale = int(attributes["num_heads"]), attributes.get("scale")
        parts: Sequence[np.ndarray | None] = [None] * 3
        if bias:
            parts = np.split(self._constant(bias), 3)
            scale = scale or 1.0 / math.sqrt(len(self._constant(bias)) // 3 // heads)
        if not scale:  # the width of a head is not known here
            return False
        self._attention(node.output[0], (query, key, value), parts, heads, float(scale), mask, added)
        return True

    def _attention(
        self,
        at: str,
        sources: Sequence[str],
        biases: Sequence[np.ndarray | None],
        heads: int,
        scale: float,
        mask: str,
        added: str,
    ) -> None:
        split = self._fixed(f"heads_{heads}", np.array([0, 0, heads, -1], np.int64))  # 0: as it was
        rows = []
        for role, source, bias in zip(("query", "key", "value"), sources, biases, strict=True):
            if bias is not None:
                source = self._node("Add", [source, self._fixed(f"{at}.{role}_bias", bias)], f"{at}.{role}_biased")
            source = self._node("Reshape", [source, split], f"{at}.{role}_heads")
            rows.append(self._node("Transpose", [source], f"{at}.{role}_rows", perm=[0, 2, 1, 3]))
        # A Transpose of its own: with both in one, [0, 2, 3, 1], the copy takes 5 % of everything at 1×128.
        columns = self._node("Transpose", [rows[1]], f"{at}.key_columns", perm=[0, 1, 3, 2])
        scores = self._node("MatMul", [rows[0], columns], f"{at}.products")
        if scale != 1.0:
            factor = self._fixed(f"scale_{scale:.9g}", np.array(scale, np.float32))
            scores = self._node("Mul", [scores, factor], f"{at}.scores")
        if added:
            scores = self._node("Add", [scores, added], f"{at}.moved")
        if mask:
            scores = self._node("Add", [scores, self._padding(mask)], f"{at}.masked")
        shares = self._node("Softmax", [scores], f"{at}.shares", axis=-1)
        context = self._node("MatMul", [shares, rows[2]], f"{at}.context_rows")
        context = self._node("Transpose", [context], f"{at}.context_heads", perm=[0, 2, 1, 3])
        flat = self._fixed("heads_joined", np.array([0, 0, -1], np.int64))
        self._node("Reshape", [context, flat], at)

    def _padding(self, mask: str) -> str:
        """What is added to scores, float32 [batch, 1, 1, length]: 0 for a token, the lowest number for padding. Once for all layers."""
        if mask not in self._masks:
            at = f"{mask}.scores"
            floats = self._node("Cast", [mask], f"{at}.floats", to=TensorProto.FLOAT)
            missing = self._node("Sub", [self._fixed(f"{at}.one", np.array(1, np.float32)), floats], f"{at}.missing")
            lowest = self._fixed(f"{at}.lowest", np.array(LOWEST, np.float32))
            filled = self._node("Mul", [missing, lowest], f"{at}.filled")
            self._masks[mask] = self._node(
                "Unsqueeze", [filled, self._fixed(f"{at}.axes", np.array([1, 2], np.int64))], at
            )
        return self._masks[mask]

    def _fixed(self, name: str, value: np.ndarray) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output
