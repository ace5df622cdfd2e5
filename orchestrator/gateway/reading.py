"""What of a request besides its body decides how the body is read? Its content type, its path, and where its JSON ends."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from orchestrator.gateway import limits
from orchestrator.gateway.apis import huggingface, openinference, tensors
from orchestrator.gateway.apis.call import Call, Parse, Served
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.pages import path_of
from orchestrator.gateway.tasks import image_classification

Reading = Callable[[web.BaseRequest, Served], Parse]
"""Before the body is read. Refusal where it need not be."""


def json(parse: Parse) -> Reading:
    def reading(request: web.BaseRequest, _: Served) -> Parse:
        limits.require_json(request)
        return parse

    return reading


def json_or_image(request: web.BaseRequest, served: Served) -> Parse:
    """For a model that reads images the body may be one."""
    if served.model.image is not None and limits.is_image(request):
        return image_classification.raw
    limits.require_json(request)
    return huggingface.predict


def json_and_tensors(request: web.BaseRequest, served: Served) -> Parse:
    """JSON, with the elements of tensors behind it if the header says where it ends."""
    openinference.require(openinference.place(path_of(request)), served.model)
    limits.require_json(request, tensors.BINARY)
    sent = request.headers.get(tensors.HEADER_LENGTH)
    if sent is None:
        length = None
    elif sent.isascii() and sent.isdigit() and len(sent) <= 10:
        length = int(sent)
    else:
        raise Refusal("malformed", f"{tensors.HEADER_LENGTH}: {sent!r:.40}, expected the length of the JSON in bytes")

    def parse(body: bytes, served: Served) -> Call:
        return openinference.infer(body, served, length)

    return parse
