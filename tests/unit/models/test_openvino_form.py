"""Is only our own attention rewritten for OpenVINO, and is what it adds to scores a number in bf16?"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from orchestrator.models.openvino_form import LOWEST, openvino_form

NAMES = ["query", "key", "value", "bias"]


def branch(name: str, operator: str = "MultiHeadAttention", inputs: tuple[str, ...] = ()) -> Any:
    attributes = {"num_heads": 2} if operator == "MultiHeadAttention" else {}
    domain = "com.microsoft" if attributes else ""
    node = helper.make_node(operator, [*(inputs or NAMES)], [name], name=name, domain=domain, **attributes)
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])


def rewritten(*nodes: Any) -> list[Any]:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("b", "l", 4)) for name in NAMES[:3]]
    bias = np.arange(12, dtype=np.float32)
    graph = helper.make_graph(list(nodes), "g", values, [], [numpy_helper.from_array(bias, "bias")])
    return list(openvino_form(helper.make_model(graph), lambda _: bias).graph.node)


def choice(output: str, then: Any, other: Any) -> Any:
    return helper.make_node("If", ["condition"], [output], name=output, then_branch=then, else_branch=other)


def test_attention_with_and_without_a_mask_becomes_plain_nodes_with_the_mask() -> None:
    masked = branch("out.else", inputs=(*NAMES, "attention_mask"))
    nodes = rewritten(choice("out", branch("out.then"), masked))
    operators = [node.op_type for node in nodes]
    assert not {"If", "MultiHeadAttention"} & set(operators)
    assert operators.count("Softmax") == 1
    assert nodes[-1].output[0] == "out"
    assert any("attention_mask" in node.input for node in nodes)


def test_two_layers_make_what_is_added_for_padding_once() -> None:
    layers = [
        choice(name, branch(f"{name}.then"), branch(f"{name}.else", inputs=(*NAMES, "attention_mask")))
        for name in ("one", "two")
    ]
    nodes = rewritten(*layers)
    assert sum(node.op_type == "Cast" for node in nodes) == 1
    assert sum(node.op_type == "Softmax" for node in nodes) == 2


def test_what_somebody_else_wrote_stays_as_it_is() -> None:
    """A choice between two single nodes, one between attentions under other names, and attention by itself."""
    other = choice("out", branch("out.then", "Identity", ("key",)), branch("out.else", "Identity", ("value",)))
    foreign = choice("far", branch("yes"), branch("no"))
    alone = branch("alone").node[0]
    assert rewritten(other, foreign, alone) == [other, foreign, alone]


def test_the_lowest_score_is_finite_in_bf16_and_hides_whatever_it_is_added_to() -> None:
    bits = np.array(LOWEST, np.float32).view(np.uint32)
    assert bits & 0xFFFF == 0  # bf16 is the upper half of fp32
    assert np.isfinite(np.array(LOWEST, np.float32))
    with np.errstate(under="ignore"):
        assert np.exp(np.float32(LOWEST) + np.float32(1e6)) == 0.0
