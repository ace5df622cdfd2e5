"""What does GET /openapi.json say? OpenAPI 3.1, made of the routes and of the types by which bodies are read and written. Pure.

Theory of operation. Each route of the table says what it takes and gives as types; msgspec knows their schemas. What all inference
routes share (headers, refusals) is here once. The document describes this gateway with its model: its task, its limits, and keys where
they are set. Sources: https://spec.openapis.org/oas/v3.1.1 and https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Union, get_args, get_origin

import msgspec

from orchestrator import __version__
from orchestrator.gateway import errors
from orchestrator.gateway.apis import tensors
from orchestrator.gateway.apis.call import Served, dumps
from workers.wire import PRIORITIES

JSON: Final = "application/json"
BYTES: Final = bytes
"""Stands for a body that is no JSON."""

INFERENCE: Final = (400, 408, 413, 415, 422, 424, 429, 500, 503, 504)
"""How an inference may be refused, beside 401 where keys are set."""
READING: Final = (400, 408, 413, 415, 422, 429, 500, 503)
"""How a request with a body may be refused that no model computes."""


@dataclass(frozen=True, slots=True)
class Says:
    """What one route takes and gives."""

    summary: str
    answer: Any
    """Type of the body with status 200; BYTES for one that is no JSON, None for none at all."""
    body: Any = None
    """Type of the request's body; None for none."""
    refuses: tuple[int, ...] = ()
    media: tuple[str, ...] = (JSON,)
    """Of the answer."""
    takes: tuple[str, ...] = (JSON,)
    """Media types of the request's body; what is not JSON is bytes."""
    query: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Parameters of the address with the numbers that they may have."""
    other: tuple[tuple[int, str], ...] = ()
    """Further statuses without a body, and when they come."""


class Operation(NamedTuple):
    method: str
    pattern: str
    says: Says
    infers: bool
    public: bool


_PATH: Final = {
    "model": "Id of the model, or the last part of it. Slashes may be percent-encoded.",
    "version": "Version of the model.",
    "file": "A file of the dashboard.",
}
_REQUEST_HEADERS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "x-request-id": (
        {"type": "string", "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$"},
        "Comes back with the answer, and is in the logs where the request failed. One is made up where none is sent.",
    ),
    "x-request-timeout-ms": (
        {"type": "integer", "minimum": 1},
        "Deadline, from arrival. A request that can no longer meet it is refused and not computed.",
    ),
    "x-priority": ({"enum": list(PRIORITIES), "default": "normal"}, "How urgent it is."),
}
_HEADER_LENGTH: Final = (
    {"type": "integer", "minimum": 1},
    "Length of the JSON in bytes, where bytes of tensors follow it.",
)
_ANSWER_HEADERS: Final[dict[str, tuple[str, str]]] = {
    "x-compute-time": ("number", "Milliseconds of the whole pipeline."),
    "Server-Timing": ("string", "Milliseconds of tokenize, queue, inference and post."),
    "x-instance": ("string", "Who computed it; several with commas between them, `cache` for the answer cache."),
    "x-bucket": ("string", "The range of lengths of that instance."),
    "x-batch-size": ("integer", "Sequences in the batch."),
    "x-request-id": ("string", "As sent, or made up."),
}


def document(operations: Iterable[Operation], served: Served, *, keyed: bool) -> bytes:
    """`keyed`: whether routes that are not public want a key."""
    listed = list(operations)
    schemas = _Schemas(
        [errors.ErrorBody, errors.OpenAIErrorBody, *(one for each in listed for one in _types(each.says))]
    )
    paths: dict[str, dict[str, Any]] = {}
    for each in listed:
        paths.setdefault(each.pattern, {})[each.method.lower()] = _operation(each, schemas, keyed=keyed)
    components: dict[str, Any] = {
        "schemas": schemas.components,
        "parameters": {
            name: {"name": name, "in": "header", "schema": schema, "description": why}
            for name, (schema, why) in (*_REQUEST_HEADERS.items(), (tensors.HEADER_LENGTH, _HEADER_LENGTH))
        },
        "headers": {
            **{name: {"schema": {"type": kind}, "description": why} for name, (kind, why) in _ANSWER_HEADERS.items()},
            tensors.HEADER_LENGTH: {"schema": _HEADER_LENGTH[0], "description": _HEADER_LENGTH[1]},
            "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."},
        },
    }
    if keyed:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
    return dumps(
        {
            "openapi": "3.1.1",
            "info": {"title": "orchestrator", "version": __version__, "description": _about(served)},
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": components,
            "x-limits": limits(served),
        }
    )


def limits(served: Served) -> dict[str, int]:
    """What one request may have at most."""
    return {
        "max_input_tokens": served.model.max_seqlen,
        "max_batch": served.limits.batch,
        "max_body_bytes": served.limits.body_bytes,
        "default_timeout_ms": served.limits.default_timeout_ms,
    }


def _about(served: Served) -> str:
    model, most = served.model, served.limits
    said = [f"{model.id} ({model.task}), {model.precision} on {model.engine}."]
    if model.image is None:
        cut = (
            "is cut" if most.truncate or model.truncate else 'is refused (413) unless the request says "truncate": true'
        )
        said.append(f"A text has at most {model.max_seqlen} tokens; a longer one {cut}.")
    said.append(f"A request has at most {most.batch} inputs and {most.body_bytes} bytes.")
    return " ".join(said)


def _operation(each: Operation, schemas: _Schemas, *, keyed: bool) -> dict[str, Any]:
    says, guarded = each.says, keyed and not each.public
    found: dict[str, Any] = {
        "summary": says.summary,
        "operationId": "_".join([each.method.lower(), *_words(each.pattern)]),
        "tags": [_words(each.pattern)[0] if _words(each.pattern) else "root"],
    }
    if guarded:
        found["security"] = [{"bearer": []}, {"key": []}]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": _PATH[name]}
        for name in _PATH
        if f"{{{name}}}" in each.pattern
    ]
    parameters += [
        {"name": name, "in": "query", "schema": {"enum": list(known), "default": known[0]}}
        for name, known in says.query
    ]
    if each.infers:
        parameters += [{"$ref": f"#/components/parameters/{name}"} for name in _REQUEST_HEADERS]
    binary = tensors.BINARY in says.takes
    if binary:
        parameters.append({"$ref": f"#/components/parameters/{tensors.HEADER_LENGTH}"})
    if parameters:
        found["parameters"] = parameters
    if says.body is not None:
        content = {media: {"schema": schemas.of(says.body)} if media == JSON else {} for media in says.takes}
        found["requestBody"] = {"required": True, "content": content}
    found["responses"] = _responses(each, schemas, guarded=guarded, binary=binary)
    return found


def _responses(each: Operation, schemas: _Schemas, *, guarded: bool, binary: bool) -> dict[str, Any]:
    says = each.says
    responses: dict[str, Any] = {}
    if says.answer is not None:
        answer: dict[str, Any] = {
            "description": "As asked.",
            "content": {
                media: {} if says.answer is BYTES or media != JSON else {"schema": schemas.of(says.answer)}
                for media in says.media
            },
        }
        headers = [*(_ANSWER_HEADERS if each.infers else ()), *((tensors.HEADER_LENGTH,) if binary else ())]
        if headers:
            answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
        responses["200"] = answer
    for status, why in says.other:
        responses[str(status)] = {"description": why}
    error = errors.OpenAIErrorBody if each.pattern.startswith("/v1/") else errors.ErrorBody
    for status in sorted({*says.refuses, *((401,) if guarded else ())}):
        refused: dict[str, Any] = {
            "description": f"{errors.REASON[status]}: {', '.join(errors.kinds(status))}",
            "content": {JSON: {"schema": schemas.of(error)}},
        }
        if set(errors.kinds(status)) & errors.RETRIED:
            refused["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
        responses[str(status)] = refused
    return responses


def _words(pattern: str) -> list[str]:
    return [part.strip("{}").replace(".", "_") for part in pattern.split("/") if part]


# ---- types


def _types(says: Says) -> list[Any]:
    return [leaf for kind in (says.body, says.answer) if kind not in (None, BYTES) for leaf in _leaves(kind)]


def _leaves(kind: Any) -> list[Any]:
    """The types of which lists and choices are made."""
    if get_origin(kind) in (list, Union, types.UnionType):
        return [leaf for one in get_args(kind) for leaf in _leaves(one)]
    return [kind]


class _Schemas:
    """The schemas of some types, each under `components.schemas` if it has a name."""

    def __init__(self, leaves: Iterable[Any]) -> None:
        kinds = list(dict.fromkeys(leaves))
        found, self.components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
        self._known = dict(zip(kinds, found, strict=True))
        self.components["ErrorBody"]["properties"]["error_type"]["enum"] = sorted(errors.STATUS)

    def of(self, kind: Any) -> dict[str, Any]:
        """msgspec knows no choice between lists, so lists and choices are put together here."""
        origin = get_origin(kind)
        if origin is list:
            return {"type": "array", "items": self.of(get_args(kind)[0])}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(one) for one in get_args(kind)]}
        found: dict[str, Any] = self._known[kind]
        return found
