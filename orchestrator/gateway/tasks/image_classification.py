"""Which label has an image? As transformers.pipeline("image-classification") answers it. Pure, but for decoding, which is done later.

`{"inputs": IMAGE}` or a list of them, each base64, plain or as a data: URL; or the image itself as the body, with its content type.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any

import msgspec

from orchestrator.client.link import Answered
from orchestrator.client.texts import Tokens
from orchestrator.gateway import images
from orchestrator.gateway.apis.call import Call, Render, Served, decode, dumps
from orchestrator.gateway.apis.options import at_least_one, within_batch
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.tasks import numbers
from orchestrator.gateway.tasks.classification import activation, function, labels_of, ranked

NAMES = ("image-classification",)

TOP_K = 5
MOST_BYTES = 64 << 20
"""Of the pixels of a request, once they are what the model reads: 111 images of 224 × 224."""


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    top_k: int = TOP_K
    function_to_apply: str | None = None


class ImageClassificationRequest(msgspec.Struct):
    inputs: str | list[str]
    parameters: Parameters | None = None


_predict = msgspec.json.Decoder(ImageClassificationRequest)


def predict(body: bytes, served: Served) -> Call:
    """POST /predict and POST / of a model that classifies images."""
    request = decode(_predict, body)
    single = isinstance(request.inputs, str)
    inputs = [request.inputs] if isinstance(request.inputs, str) else request.inputs
    within_batch(len(inputs), "inputs", served)
    fields = ["inputs"] if single else [f"inputs[{position}]" for position in range(len(inputs))]
    return _call(
        [(field, of_base64(text, field)) for field, text in zip(fields, inputs, strict=True)],
        single,
        request.parameters or Parameters(),
        served,
    )


def raw(body: bytes, served: Served) -> Call:
    """The same routes with an image as their body."""
    if not body:
        raise Refusal("malformed", "body is empty, expected an image")
    return _call([("body", body)], True, Parameters(), served)


def _call(found: list[tuple[str, bytes]], single: bool, parameters: Parameters, served: Served) -> Call:
    at_least_one(parameters.top_k, "parameters.top_k")
    chosen = activation(served) if parameters.function_to_apply is None else function(parameters.function_to_apply)
    labels = labels_of(served)

    def render(answer: Answered, _: Tokens) -> bytes:
        listed: list[Any] = [
            ranked(row, labels, parameters.top_k) for row in numbers.apply(chosen, numbers.rows(answer))
        ]
        return dumps(listed[0] if single else listed)

    return reading(found, "inputs", served, render)


def reading(found: list[tuple[str, bytes]], field: str, served: Served, render: Render) -> Call:
    """`render` makes the answer of one row of logits per image. `found`: files of images, each with the name of its field."""
    wanted = served.model.image
    if wanted is None:
        raise Refusal("internal", "the artefact does not say how images are prepared")
    most = max(1, MOST_BYTES // (12 * wanted.height * wanted.width))
    if len(found) > most:
        raise Refusal(
            "batch_too_large", f"{field}: {len(found)} images, of this size the limit is {most}; send several requests"
        )
    return Call(None, None, None, render, decode=lambda: images.tokens_of(found, wanted))


def of_base64(text: str, field: str) -> bytes:
    """Of base64, plain or in a data: URL. Refusal (400) for anything else: addresses are not fetched."""
    if text.startswith(("http://", "https://")):
        raise Refusal("unprocessable", f"{field}: images are not fetched from addresses; send their bytes as base64")
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise Refusal("malformed", f"{field}: a data: URL that is not data:image/…;base64,…")
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal("malformed", f"{field}: not base64: {error}") from None
    if not data:
        raise Refusal("unprocessable", f"{field}: is empty; send an image")
    return data
