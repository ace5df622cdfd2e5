"""Which task heads are there, which tensors have they, and how are they written as nodes?

Theory of operation. A head follows the encoder. It looks at the first token (a label for the text), at each token (a label for each, or
the two numbers that make a span), or at one masked token (a score for every word). `describe` says of a configuration which tensors the
head has; `emit` writes the nodes. Softmax and sigmoid are left to the gateway: which of them, a request may say.

Of a masked text only one row is wanted and not a row of the vocabulary per token (122 KB each for BERT). So the client marks the
masked token that it asks about with an id of its own, one beyond the vocabulary; the graph finds the mark, puts the mask's id in its
place for the encoder, and computes the one row. Nothing else of wire, router or worker has to know about it. A text with three masks is
three sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, assert_never

import numpy as np

from orchestrator.models.build.encoder import ACTIVATIONS, Activation, Encoder, Linear, Norm
from orchestrator.models.build.limits import activation, refuse
from orchestrator.models.weights import Weights, take

if TYPE_CHECKING:
    from orchestrator.models.build.graph import GraphBuilder

Kind = Literal["text", "token", "span", "mask"]
"""A row of labels per text; a row of labels per token; start and end per token; a row of the vocabulary for one masked token."""

HeadActivation = Literal["tanh", "gelu", "gelu_tanh", "relu", "silu"]

INT32 = 6
FLOAT = 1
BOOL = 9
"""Of onnx.TensorProto."""


@dataclass(frozen=True, slots=True)
class Head:
    """Dense layer, activation and norm where the architecture has them, then the layer that gives the answer."""

    kind: Kind
    dense: Linear | None
    activation: HeadActivation | None
    norm: Norm | None
    epsilon: float
    out: Linear
    out_weight: str
    """The tensor of the last layer: its own, or the table of words that it shares."""
    out_biases: tuple[str, ...]
    """Names under which the last layer's bias may be stored; one of them is there."""
    mask_id: int = -1
    """Only of kind mask: the tokenizer's, put in by `preparation`."""

    pooled: Literal["first", "mean"] = "first"
    """What a head of kind text looks at: the first token, or the mean of all."""
    unbiased: tuple[Literal["dense", "norm", "out"], ...] = ()
    """Layers without a bias."""

    def tensors(self, weights: Weights) -> dict[str, tuple[int, ...]]:
        """Every tensor that the head needs, and its shape."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.dense is not None:
            shapes[f"{self.dense.name}.weight"] = (self.dense.outputs, self.dense.inputs)
            if "dense" not in self.unbiased:
                shapes[f"{self.dense.name}.bias"] = (self.dense.outputs,)
        if self.norm is not None:
            shapes[f"{self.norm.name}.weight"] = (self.norm.width,)
            if "norm" not in self.unbiased:
                shapes[f"{self.norm.name}.bias"] = (self.norm.width,)
        shapes[self.out_weight] = (self.out.outputs, self.out.inputs)
        if "out" not in self.unbiased:
            shapes[self.bias(weights)] = (self.out.outputs,)
        return shapes

    def bias(self, weights: Weights) -> str:
        """The name under which the last layer's bias is stored in this checkpoint."""
        return next((name for name in self.out_biases if weights.shape(name) is not None), self.out_biases[0])

    @property
    def per_token(self) -> bool:
        return self.kind in ("token", "span")

    @property
    def pairs(self) -> bool:
        """Whether it is asked about two texts at once, told apart by token types where the encoder has them."""
        return self.kind in ("text", "span")


def describe(document: dict[str, Any], encoder: Encoder, kind: Kind, outputs: int, where: str) -> Head:
    """The head of a parsed config.json. ModelError for an architecture whose head of this kind is not built here."""
    family = _FAMILIES.get(encoder.architecture, {})
    make = family.get(kind)
    if make is None:
        known = [name for name, kinds in _FAMILIES.items() if kind in kinds]
        refuse(where, f"model_type (with a {kind} head)", encoder.architecture, known)
    return make(_Wanted(document, encoder, outputs, where))


def outline(kind: Kind, width: int, outputs: int) -> Head:
    """A head that is part of a graph already: what it answers, and no tensors."""
    return Head(kind, None, None, None, 0.0, Linear("", width, outputs), "", ())


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a head is described from."""

    document: dict[str, Any]
    encoder: Encoder
    outputs: int
    where: str


_Make = Callable[[_Wanted], Head]


def _plain(kind: Kind, name: str, wanted: _Wanted) -> Head:
    out = Linear(name, wanted.encoder.width, wanted.outputs)
    return Head(kind, None, None, None, 0.0, out, f"{name}.weight", (f"{name}.bias",))


def _each(name: str) -> _Make:
    return lambda wanted: _plain("token", name, wanted)


def _span(wanted: _Wanted) -> Head:
    return _plain("span", "qa_outputs", wanted)


def _first(dense: str, act: HeadActivation | None, out: str) -> _Make:
    """The first token through a square layer and an activation, then the labels; `act` None: what the configuration says of its pooler."""

    def make(wanted: _Wanted) -> Head:
        chosen = act or activation(
            wanted.where, "pooler_hidden_act", str(wanted.document.get("pooler_hidden_act", "gelu"))
        )
        square = Linear(dense, wanted.encoder.width, wanted.encoder.width)
        last = Linear(out, wanted.encoder.width, wanted.outputs)
        return Head("text", square, chosen, None, 0.0, last, f"{out}.weight", (f"{out}.bias",))

    return make


def _masked(dense: str, norm: str, decoder: str, biases: tuple[str, ...], act: str | None) -> _Make:
    """The masked token through a layer, an activation and a norm, then the vocabulary; `act` None: that of the configuration."""

    def make(wanted: _Wanted) -> Head:
        document, encoder = wanted.document, wanted.encoder
        field = "activation" if "activation" in document else "hidden_act"
        name = str(document.get(field, "gelu_new" if encoder.architecture == "albert" else "gelu"))
        chosen = ACTIVATIONS["gelu"] if act == "gelu" else activation(wanted.where, field, name)
        tied = document.get("tie_word_embeddings", True) is not False
        width = encoder.table_width
        last = Linear(decoder, width, encoder.vocab_size)
        return Head(
            "mask", Linear(dense, encoder.width, width), chosen, Norm(norm, width), encoder.epsilon, last,
            encoder.words if tied else f"{decoder}.weight", biases,
        )  # fmt: skip

    return make


_ROBERTA: dict[Kind, _Make] = {
    "text": _first("classifier.dense", "tanh", "classifier.out_proj"),
    "token": _each("classifier"),
    "span": _span,
    "mask": _masked("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", ("lm_head.bias", "lm_head.decoder.bias"), "gelu"),
}  # fmt: skip


def _modern(kind: Kind) -> _Make:
    """ModernBERT puts the same layer, activation and norm before every task's last layer."""

    def make(wanted: _Wanted) -> Head:
        said, encoder, where = wanted.document, wanted.encoder, wanted.where
        act = activation(where, "classifier_activation", str(said.get("classifier_activation", "gelu")))
        pooled = said.get("classifier_pooling", "cls")
        if pooled not in ("cls", "mean"):
            refuse(where, "classifier_pooling", repr(pooled), ["cls", "mean"])
        tied = kind == "mask" and said.get("tie_word_embeddings", True) is not False
        name = "decoder" if kind == "mask" else "classifier"
        biased: dict[Literal["dense", "norm", "out"], bool] = {
            "dense": said.get("classifier_bias", False) is True,
            "norm": said.get("norm_bias", False) is True,
            "out": kind != "mask" or said.get("decoder_bias", True) is True,
        }
        return Head(
            kind,
            Linear("head.dense", encoder.width, encoder.width),
            act,
            Norm("head.norm", encoder.width),
            encoder.epsilon,
            Linear(name, encoder.width, wanted.outputs),
            encoder.words if tied else f"{name}.weight",
            (f"{name}.bias",),
            pooled="mean" if kind == "text" and pooled == "mean" else "first",
            unbiased=tuple(layer for layer, has in biased.items() if not has),
        )

    return make


_FAMILIES: dict[str, dict[Kind, _Make]] = {
    "bert": {
        "text": _first("pooler.dense", "tanh", "classifier"),
        "token": _each("classifier"),
        "span": _span,
        "mask": _masked(
            "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder",
            ("cls.predictions.bias", "cls.predictions.decoder.bias"), None,
        ),
    },
    "distilbert": {
        "text": _first("pre_classifier", "relu", "classifier"),
        "token": _each("classifier"),
        "span": _span,
        "mask": _masked("vocab_transform", "vocab_layer_norm", "vocab_projector", ("vocab_projector.bias",), None),
    },
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _ROBERTA,
    "deberta-v2": {
        "text": _first("pooler.dense", None, "classifier"),
        "token": _each("classifier"),
        "span": _span,
        "mask": _masked(
            "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder",
            ("cls.predictions.bias", "cls.predictions.decoder.bias"), None,
        ),
    },
    "modernbert": {"text": _modern("text"), "token": _modern("token"), "span": _modern("span"), "mask": _modern("mask")},
    "vit": {"text": lambda wanted: _plain("text", "classifier", wanted)},
    "electra": {
        "text": _first("classifier.dense", "gelu", "classifier.out_proj"),
        "token": _each("classifier"),
        "span": _span,
        "mask": _masked(
            "generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head",
            ("generator_lm_head.bias",), "gelu",
        ),
    },
    "albert": {
        "text": _first("pooler", "tanh", "classifier"),
        "token": _each("classifier"),
        "span": _span,
        "mask": _masked(
            "predictions.dense", "predictions.LayerNorm", "predictions.decoder",
            ("predictions.bias", "predictions.decoder.bias"), None,
        ),
    },
}  # fmt: skip
"""By architecture. Names are those of transformers' checkpoints, the encoder's own prefix left out."""


def find_asked(graph: GraphBuilder, encoder: Encoder, mask_id: int, ids: str) -> tuple[str, str]:
    """(ids with the mask's in place of the mark, int64 [batch, 1] the place of the mark). Without a mark it is the first token."""
    mark = graph.constant("asked_id", np.array(asked_id(encoder), np.int32))
    here = graph.node("Equal", [ids, mark], "asked")
    plain = graph.node("Where", [here, graph.constant("mask_id", np.array(mask_id, np.int32)), ids], "plain_ids")
    place = graph.node("ArgMax", [graph.node("Cast", [here], "asked_int", to=INT32)], "asked_place", axis=1, keepdims=1)
    return plain, place


def asked_id(encoder: Encoder) -> int:
    """The mark: the first id that is no token's."""
    return encoder.vocab_size


def emit(graph: GraphBuilder, head: Head, encoder: Encoder, weights: Weights, hidden: str, place: str | None) -> str:
    """Writes the head behind `hidden`, float32 [batch, length, width]; returns [batch, outputs] or [batch, length, outputs].

    Of a head that is pooled by the mean, `hidden` is that mean, [batch, width]. `place` is what `find_asked` gave, for a head of kind mask.
    """
    shapes = head.tensors(weights)
    value = hidden
    match head.kind:
        case "text":
            if head.pooled == "first":
                first = graph.constant("head.first", np.array(0, np.int64))
                value = graph.node("Gather", [value, first], "head.token", axis=1)
        case "mask":
            if place is None:
                raise ValueError("a head of kind mask needs the place it is asked about")
            value = graph.node("GatherND", [value, place], "head.token", batch_dims=1)
        case "token" | "span":
            pass
        case _:
            assert_never(head.kind)
    if head.dense is not None:
        name = f"{head.dense.name}.weight"
        matrix = graph.constant("head.dense.weight", np.ascontiguousarray(take(weights, name, shapes[name]).T))
        value = graph.node("MatMul", [value, matrix], "head.product")
        if "dense" not in head.unbiased:
            name = f"{head.dense.name}.bias"
            bias = graph.constant("head.dense.bias", take(weights, name, shapes[name]))
            value = graph.node("Add", [value, bias], "head.dense")
    if head.activation is not None:
        value = _activate(graph, head.activation, value)
    if head.norm is not None:
        both = [
            graph.constant(f"head.norm.{part}", take(weights, f"{head.norm.name}.{part}", (head.norm.width,)))
            for part in ("weight", "bias")
            if f"{head.norm.name}.{part}" in shapes
        ]
        value = graph.node("LayerNormalization", [value, *both], "head.norm", axis=-1, epsilon=head.epsilon)
    biases: list[str] = []
    if "out" not in head.unbiased:
        name = head.bias(weights)
        biases.append(graph.constant("head.out.bias", take(weights, name, shapes[name])))
    if head.kind == "mask":  # the table of words is in the graph already: read it as it lies there
        words = "words" if head.out_weight == encoder.words else graph.constant(
            "head.out.weight", take(weights, head.out_weight, shapes[head.out_weight])
        )  # fmt: skip
        return graph.node("Gemm", [value, words, *biases], "head.out", transB=1)
    last = np.ascontiguousarray(take(weights, head.out_weight, shapes[head.out_weight]).T)
    value = graph.node("MatMul", [value, graph.constant("head.out.weight", last)], "head.out.product")
    return graph.node("Add", [value, *biases], "head.out") if biases else value


def _activate(graph: GraphBuilder, act: HeadActivation, value: str) -> str:
    match act:
        case "tanh":
            return graph.node("Tanh", [value], "head.active")
        case "relu":
            return graph.node("Relu", [value], "head.active")
        case "gelu":
            return graph.node("Gelu", [value], "head.active", domain="com.microsoft")
        case "gelu_tanh":
            return graph.node("FastGelu", [value], "head.active", domain="com.microsoft")
        case "silu":
            return graph.node("Mul", [value, graph.node("Sigmoid", [value], "head.gate")], "head.active")
        case _:
            assert_never(act)


def reference(
    head: Head, weights: Weights, rows: np.ndarray, place: int, act: Callable[[Activation, np.ndarray], np.ndarray]
) -> np.ndarray:
    """What the head should give for one text's rows [length, width], in numpy; `act` computes an activation by its name."""
    shapes = head.tensors(weights)

    def tensor(name: str) -> np.ndarray:
        return take(weights, name, shapes[name])

    def biased(value: np.ndarray, name: str) -> np.ndarray:
        return value + tensor(name) if name in shapes else value

    one = rows.mean(axis=0) if head.pooled == "mean" else rows[0 if head.kind == "text" else place]
    value = rows if head.per_token else one
    if head.dense is not None:
        value = biased(value @ tensor(f"{head.dense.name}.weight").T, f"{head.dense.name}.bias")
    if head.activation is not None:
        value = np.tanh(value) if head.activation == "tanh" else act(head.activation, value)
    if head.norm is not None:
        centred = value - value.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        value = centred / np.sqrt(variance + np.float32(head.epsilon))
        value = biased(value * tensor(f"{head.norm.name}.weight"), f"{head.norm.name}.bias")
    return biased(value @ tensor(head.out_weight).T, head.bias(weights))
