"""How do the rows of the tokens become one row per text, inside the graph?

The formulas are those of sentence-transformers (modules Pooling, Dense, Normalize), its guards against division by zero included.
Padding is on the right: a text's first token is at 0 and its last at its count of tokens − 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import numpy as np

from orchestrator.models.settings import Normalise, Pool, PoolingMode, Project, Step
from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder

SMALLEST_COUNT = 1e-9
SMALLEST_LENGTH = 1e-12


def emit(graph: GraphBuilder, step: Step, at: str, value: str, mask: str, weights: Weights | None) -> str:
    """Writes one step; `at` prefixes its names. `weights` are those of a Project. Returns the name of its output."""
    match step:
        case Pool(modes):
            parts = [_pool(graph, mode, f"{at}.{mode}", value, mask) for mode in modes]
            return parts[0] if len(parts) == 1 else graph.node("Concat", parts, f"{at}.pooled", axis=-1)
        case Project():
            if weights is None:
                raise RuntimeError("a projection needs its weights")
            matrix = take(weights, "linear.weight", (step.outputs, step.inputs)).T
            value = graph.node("MatMul", [value, graph.constant(f"{at}.weight", matrix)], f"{at}.product")
            if step.bias:
                bias = graph.constant(f"{at}.bias", take(weights, "linear.bias", (step.outputs,)))
                value = graph.node("Add", [value, bias], f"{at}.biased")
            return graph.node("Tanh", [value], f"{at}.tanh") if step.activation == "tanh" else value
        case Normalise():
            axis = graph.constant(f"{at}.axis", np.array([-1], np.int64))
            length = graph.node("ReduceL2", [value, axis], f"{at}.length", keepdims=1)
            floor = graph.constant(f"{at}.floor", np.array(SMALLEST_LENGTH, np.float32))
            return graph.node("Div", [value, graph.node("Max", [length, floor], f"{at}.divisor")], f"{at}.normal")
        case _:
            assert_never(step)


def _pool(graph: GraphBuilder, mode: PoolingMode, at: str, value: str, mask: str) -> str:
    match mode:
        case "cls":
            return graph.node("Gather", [value, graph.constant(f"{at}.first", np.array(0, np.int64))], at, axis=1)
        case "max":
            here = graph.node("Cast", [mask], f"{at}.bool", to=9)  # TensorProto.BOOL
            last = graph.constant(f"{at}.last", np.array([-1], np.int64))
            here = graph.node("Unsqueeze", [here, last], f"{at}.here")
            lowest = graph.constant(f"{at}.lowest", np.array(-np.inf, np.float32))
            kept = graph.node("Where", [here, value, lowest], f"{at}.kept")
            return graph.node(
                "ReduceMax", [kept, graph.constant(f"{at}.axis", np.array([1], np.int64))], at, keepdims=0
            )
        case "mean" | "mean_sqrt_len_tokens":
            # [batch, 1, length] × [batch, length, width]: no temporary of the size of all tokens.
            ones = graph.node("Cast", [mask], f"{at}.float", to=1)  # TensorProto.FLOAT
            axis = graph.constant(f"{at}.axis", np.array([1], np.int64))
            total = graph.node("MatMul", [graph.node("Unsqueeze", [ones, axis], f"{at}.row"), value], f"{at}.total")
            total = graph.node("Squeeze", [total, axis], f"{at}.sum")
            count = graph.node("ReduceSum", [ones, axis], f"{at}.count", keepdims=1)
            floor = graph.constant(f"{at}.floor", np.array(SMALLEST_COUNT, np.float32))
            count = graph.node("Max", [count, floor], f"{at}.divisor")
            if mode == "mean_sqrt_len_tokens":
                count = graph.node("Sqrt", [count], f"{at}.root")
            return graph.node("Div", [total, count], at)
        case "lasttoken":
            long = graph.node("Cast", [mask], f"{at}.long", to=7)  # TensorProto.INT64
            axis = graph.constant(f"{at}.axis", np.array([1], np.int64))
            count = graph.node("ReduceSum", [long, axis], f"{at}.count", keepdims=1)
            one = graph.constant(f"{at}.one", np.array(1, np.int64))
            return graph.node("GatherND", [value, graph.node("Sub", [count, one], f"{at}.index")], at, batch_dims=1)
        case _:
            assert_never(mode)
