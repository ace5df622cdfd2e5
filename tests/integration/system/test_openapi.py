"""Are the answers of a running system what its own /openapi.json says they are?"""

from __future__ import annotations

import http.client
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

check: Any = runpy.run_path(str(Path(__file__).parents[2] / "support" / "schemas.py"))["check"]

TENSOR = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["rain"]}
BODIES: dict[str, list[Any]] = {
    "/": [{"inputs": "rain"}],
    "/predict": [{"inputs": "rain"}, {"inputs": ["rain"]}, {"inputs": {"source_sentence": "a", "sentences": ["b"]}}],
    "/embed": [{"inputs": "rain"}, {"inputs": [[101, 102]]}],
    "/tokenize": [{"inputs": ["rain", "snow"]}],
    "/rerank": [{"query": "a", "texts": ["b"]}],
    "/v1/embeddings": [{"input": "rain"}, {"input": ["rain"], "encoding_format": "base64"}],
    "/v1/rerank": [{"query": "a", "documents": ["b"]}],
    "/v2/models/{model}/infer": [{"inputs": [TENSOR], "id": "7"}],
    "/v2/models/{model}/versions/{version}/infer": [{"inputs": [TENSOR]}],
}
"""What each route that reads a body is asked."""
REFUSED = {"/rerank": 422, "/v1/rerank": 422}
"""What a model of vectors cannot do."""
NAMES = {"{model}": "all-MiniLM-L6-v2", "{version}": "1", "{file}": "main.js"}


def ask(system: Any, method: str, path: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
    for name, value in NAMES.items():
        path = path.replace(name, "sentence-transformers/all-MiniLM-L6-v2" if path == "/v1/models/{model}" else value)
    connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=60)
    try:
        connection.request(method, path, body, {"content-type": "application/json"} if body is not None else {})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if headers.get("content-type") == "text/event-stream":
            while not (line := answer.fp.readline()).startswith(b"data: "):
                pass
            return answer.status, headers, line.removeprefix(b"data: ")
        return answer.status, headers, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def document(shared_system: Any) -> dict[str, Any]:
    status, raw = shared_system.get("/openapi.json")
    assert status == 200
    found: dict[str, Any] = json.loads(raw)
    return found


def test_every_route_that_is_described_answers_as_it_is_described(shared_system: Any, document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    asked = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            bodies = [json.dumps(one).encode() for one in BODIES[path]] if method == "post" else [None]
            for body in bodies:
                status, headers, raw = ask(shared_system, method.upper(), path, body)
                here = f"{method} {path}: {status} {raw[:200]!r}"
                wanted = REFUSED.get(path, 200 if "200" in operation["responses"] else 302)
                assert status == wanted, here
                described = operation["responses"][str(status)]
                assert {name.lower() for name in described.get("headers", {})} - headers.keys() <= {
                    "inference-header-content-length"
                }, here
                content = described.get("content", {})
                assert headers["content-type"] in content or "*/*" in content or not content, here
                schema = content.get(headers["content-type"], {}).get("schema")
                assert (schema is not None) == (headers["content-type"] == "application/json"), here
                if schema is not None:
                    check(json.loads(raw), schema, components)
                asked += 1
    assert asked >= sum(map(len, document["paths"].values()))


def test_a_stream_and_its_document_are_a_status(shared_system: Any, document: dict[str, Any]) -> None:
    _, _, line = ask(shared_system, "GET", "/api/stream", None)
    check(json.loads(line), {"$ref": "#/components/schemas/Status"}, document["components"]["schemas"])


@pytest.mark.parametrize("path", [path for path in BODIES if path not in REFUSED])
def test_what_is_refused_is_refused_as_it_is_described(shared_system: Any, document: dict[str, Any], path: str) -> None:
    operation = document["paths"][path]["post"]
    for body, status in ((b"{", 400), (b"[]", 400), (b"x" * 9_000_000, 413)):
        answered, headers, raw = ask(shared_system, "POST", path, body)
        assert answered == status
        schema = operation["responses"][str(status)]["content"][headers["content-type"]]["schema"]
        check(json.loads(raw), schema, document["components"]["schemas"])
