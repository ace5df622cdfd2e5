"""Does /openapi.json describe the routes that there are, and no others, whatever the model's task?"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.gateway import errors
from orchestrator.gateway.apis import huggingface
from orchestrator.gateway.apis.call import Served
from orchestrator.gateway.routes import Routes
from orchestrator.gateway.spec import Limits
from orchestrator.status import HeadStatus, ImageStatus, ModelStatus

schemas: Any = runpy.run_path(str(Path(__file__).parents[2] / "support" / "schemas.py"))
METHODS = {"get", "post"}


class Anything:
    """In place of pages, which are not called here."""

    def __getattr__(self, name: str) -> str:
        return name


def served(task: str) -> Served:
    image = ImageStatus(32, 32, 17, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) if task == "image-classification" else None
    model = ModelStatus(
        id="org/tiny", task=task, architecture="bert", precision="fp32", engine="onnxruntime", max_seqlen=77, dimensions=4,
        digest="d", artefact="a", head=HeadStatus(labels=["x"]), image=image,
    )  # fmt: skip
    return Served(model, Limits(batch=33, body_bytes=4444), 100)


def routes(task: str = "sentence-embedding", *, keyed: bool = False) -> Routes:
    return Routes(Anything(), "stream", "tokenize", served(task), keyed=keyed)  # type: ignore[arg-type]


async def document(task: str = "sentence-embedding", *, keyed: bool = False) -> dict[str, Any]:
    reply = await routes(task, keyed=keyed)._openapi(None)  # type: ignore[arg-type]
    found: dict[str, Any] = json.loads(reply.content)
    return found


def operations(found: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), pattern, one) for pattern, methods in found["paths"].items() for method, one in methods.items()
    ]


async def test_every_route_is_described_and_every_description_has_its_route() -> None:
    table = routes()
    described = {(method, pattern) for method, pattern, _ in operations(await document())}
    assert described == {(route.method, route.pattern) for route in table.all}
    for method, pattern in described:
        path = pattern.format(model="org/tiny", version="1", file="main.js")
        assert table.find(path, method).pattern == pattern


@pytest.mark.parametrize("task", huggingface.KINDS)
async def test_every_reference_leads_somewhere_and_every_name_is_used_once(task: str) -> None:
    found = await document(task)

    def references(value: Any) -> Any:
        if isinstance(value, dict):
            for key, one in value.items():
                if key == "$ref":
                    yield one
                else:
                    yield from references(one)
        elif isinstance(value, list):
            for one in value:
                yield from references(one)

    for reference in references(found):
        at: Any = found
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]
    names = [one["operationId"] for _, _, one in operations(found)]
    assert len(set(names)) == len(names)
    assert not [name for name in found["components"]["schemas"] if name.startswith("_") or "." in name]
    for methods in found["paths"].values():
        assert set(methods) <= METHODS


@pytest.mark.parametrize("task", huggingface.KINDS)
async def test_the_body_of_predict_is_the_one_that_it_is_read_by(task: str) -> None:
    found = await document(task)
    body = found["paths"]["/predict"]["post"]["requestBody"]["content"]
    kind = huggingface.KINDS[task]
    assert body["application/json"]["schema"]["$ref"].endswith(f"/{kind.body.__name__}")
    fields = {one.encode_name for one in msgspec.structs.fields(kind.body)}
    assert set(found["components"]["schemas"][kind.body.__name__]["properties"]) == fields
    assert ("image/png" in body) == (task == "image-classification")


async def test_every_way_to_refuse_an_inference_is_described_with_its_kinds() -> None:
    for _, _, one in operations(await document(keyed=True)):
        if "Server-Timing" not in one["responses"].get("200", {}).get("headers", {}):
            continue
        told = {int(status) for status in one["responses"]} - {200, 404}
        assert told == set(errors.STATUS.values()) - {404, 405}
        assert "batch_too_large" in one["responses"]["413"]["description"]
        assert "Retry-After" in one["responses"]["429"]["headers"]
        assert "headers" not in one["responses"]["422"]


async def test_keys_are_wanted_where_they_are_set_and_not_for_how_the_service_is() -> None:
    for _, pattern, one in operations(await document()):
        assert "security" not in one, pattern
    found = await document(keyed=True)
    guarded = {pattern for _, pattern, one in operations(found) if "security" in one}
    assert {"/embed", "/info", "/v2/models/{model}/infer", "/v1/models", "/tokenize"} <= guarded
    assert not guarded & {"/health", "/metrics", "/openapi.json", "/v2/models/{model}/ready"}
    for _, _, one in operations(found):
        assert ("security" in one) == ("401" in one["responses"])
    assert set(found["components"]["securitySchemes"]) == {"bearer", "key"}


async def test_limits_are_those_of_the_model_and_the_layout() -> None:
    found = await document()
    assert found["x-limits"] == {
        "max_input_tokens": 77, "max_batch": 33, "max_body_bytes": 4444, "default_timeout_ms": 60_000,
    }  # fmt: skip
    assert all(number in found["info"]["description"] for number in ("77", "33", "4444"))
    assert "tokens" not in (await document("image-classification"))["info"]["description"]


async def test_it_is_made_once() -> None:
    table = routes()
    first, second = [await table._openapi(None) for _ in range(2)]  # type: ignore[arg-type]
    assert first.content is second.content


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        (True, {"type": "integer"}), (1.5, {"type": "integer"}), ("x", {"enum": ["y"]}), ({}, {"required": ["a"]}),
        ({"b": 1}, {"type": "object", "properties": {"a": {}}}), ([1, "x"], {"items": {"type": "integer"}}),
        ([[1], ["x"]], {"anyOf": [{"items": {"items": {"type": "integer"}}}, {"type": "string"}]}),
        ({"a": "x"}, {"additionalProperties": {"type": "integer"}}), ([1], {"minItems": 2}), ([1, 2], {"maxItems": 1}),
        (["x"], {"prefixItems": [{"type": "integer"}]}), ({"a": None}, {"$ref": "#/components/schemas/A"}),
    ],
    ids=repr,
)  # fmt: skip
def test_the_checker_that_tests_use_finds_what_does_not_fit(value: Any, schema: dict[str, Any]) -> None:
    components = {"A": {"type": "object", "properties": {"a": {"type": "string"}}}}
    with pytest.raises(schemas["Unfit"]):
        schemas["check"](value, schema, components)
    with pytest.raises(NotImplementedError):
        schemas["check"](value, {"oneOf": []}, components)
