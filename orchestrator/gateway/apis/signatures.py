"""Which tensors does a model of each task take and give over the Open Inference Protocol? Pure.

Theory of operation. A model takes one of two *forms*: texts (or images) as they are, read by the gateway as on every other route; or
what a client has prepared itself, token ids or pixels. The first dimension is always the request's batch, and row i answers input i.
Where an answer is rectangular it is tensors: vectors, or labels with their scores, the best first, and beside them the logits in the
model's own order, from which a client can compute what it likes. Where it is ragged (entities, words for masks, answers to questions) it
is BYTES [n], each element the JSON that POST /predict gives for that input, as MLServer's runtime for Hugging Face models does it. Who
brings token ids has no text that entities or answers could be cut from, and gets the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

from orchestrator.gateway.apis import tensor_tasks
from orchestrator.gateway.apis.call import Call, Served
from orchestrator.gateway.apis.tensor_tasks import Finish
from orchestrator.gateway.apis.tensors import Asked
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import classification


class Spec(NamedTuple):
    """A tensor as the metadata of the model describes it; -1: any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """One way to ask a model."""

    required: tuple[Spec, ...]
    optional: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    call: Callable[[Asked, Served, Finish], Call]

    @cached_property
    def takes(self) -> frozenset[str]:
        """The names of its inputs."""
        return frozenset(spec.name for spec in (*self.required, *self.optional))


_IDS = (Spec("input_ids", "INT64", (-1, -1)),)
_BESIDE = (Spec("attention_mask", "INT64", (-1, -1)), Spec("token_type_ids", "INT64", (-1, -1)))
_TEXT = (Spec("text", "BYTES", (-1,)),)


def forms(served: Served) -> tuple[Form, ...]:
    """How this model may be asked; the first is how it is asked most simply."""
    model = served.model
    size = None if model.image is None else (model.image.height, model.image.width)
    judges = model.head is not None and model.head.entailment is not None
    return _forms(model.task, model.dimensions, len(classification.labels_of(served)), judges, size)


@cache
def _forms(task: str, width: int, labels: int, judges: bool, size: tuple[int, int] | None) -> tuple[Form, ...]:
    """`judges`: whether it has a label for entailment. `size`: height and width of its images."""
    ranking = (
        Spec("labels", "BYTES", (-1, -1)),
        Spec("scores", "FP32", (-1, -1)),
        Spec("logits", "FP32", (-1, labels)),
    )
    per_token = (Spec("logits", "FP32", (-1, -1, width)),)
    if size is not None:
        pixels = Spec("pixel_values", "FP32", (-1, 3, *size))
        return (
            Form((Spec("image", "BYTES", (-1,)),), (), ranking, tensor_tasks.images),
            Form((pixels,), (), ranking, tensor_tasks.images),
        )
    match task:
        case "feature-extraction":
            found = Spec("features", "FP32", (-1, -1, width))
            mask = Spec("attention_mask", "INT64", (-1, -1))
            return Form(_TEXT, (), (found, mask), tensor_tasks.features), Form(
                _IDS, _BESIDE, (found,), tensor_tasks.features
            )
        case "token-classification":
            entities = (Spec("entities", "BYTES", (-1,)),)
            return Form(_TEXT, (), entities, tensor_tasks.entities), Form(
                _IDS, _BESIDE, per_token, tensor_tasks.entities
            )
        case "fill-mask":
            fills, logits = (Spec("fills", "BYTES", (-1,)),), (Spec("logits", "FP32", (-1, width)),)
            return Form(_TEXT, (), fills, tensor_tasks.fills), Form(_IDS, _BESIDE, logits, tensor_tasks.fills)
        case "question-answering":
            both = (Spec("question", "BYTES", (-1,)), Spec("context", "BYTES", (-1,)))
            answers = (Spec("answers", "BYTES", (-1,)),)
            return Form(both, (), answers, tensor_tasks.answers), Form(_IDS, _BESIDE, per_token, tensor_tasks.answers)
        case _ if task in classification.NAMES:
            beside = [Spec("text_pair", "BYTES", (-1,))]
            if labels == 1:
                beside.append(Spec("query", "BYTES", (-1,)))
            if judges:
                beside.append(Spec("candidate_labels", "BYTES", (-1,)))
            return Form(_TEXT, tuple(beside), ranking, tensor_tasks.classify), Form(
                _IDS, _BESIDE, ranking, tensor_tasks.classify
            )
    vectors = (Spec("embedding", "FP32", (-1, width)),)
    return Form(_TEXT, (), vectors, tensor_tasks.embed), Form(_IDS, _BESIDE, vectors, tensor_tasks.embed)


def form_of(asked: Asked, served: Served) -> Form:
    """The form of the request. Refusal (422) where an input or output is none of it, or one is missing."""
    every = forms(served)
    form = next((one for one in every if any(spec.name in asked.inputs for spec in one.required)), every[0])
    for name in asked.inputs:
        if not any(name in one.takes for one in every):
            raise Refusal("unprocessable", f"inputs.{name}: is unknown; this model takes {_listed(every)}")
        if name not in form.takes:
            raise Refusal(
                "unprocessable",
                f"inputs.{name}: does not go with {form.required[0].name}; this model takes {_listed(every)}",
            )
    for spec in form.required:
        if spec.name not in asked.inputs:
            raise Refusal("unprocessable", f"inputs: {spec.name} is missing; this model takes {_listed(every)}")
    seen: set[str] = set()
    for wish in asked.outputs:
        if all(wish.name != spec.name for spec in form.outputs):
            gives = ", ".join(spec.name for spec in form.outputs)
            raise Refusal(
                "unprocessable",
                f"outputs.{wish.name[:80]}: is not given for {form.required[0].name}; there are {gives}",
            )
        if wish.name in seen:
            raise Refusal("malformed", f"outputs.{wish.name}: is there twice")
        seen.add(wish.name)
    return form


def _listed(every: tuple[Form, ...]) -> str:
    said = []
    for form in every:
        beside = "".join(f" [{spec.name}]" for spec in form.optional)
        said.append(" and ".join(f"{spec.name} ({spec.datatype})" for spec in form.required) + beside)
    return ", or ".join(said)
