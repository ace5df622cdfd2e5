"""Does a real gateway speak the Open Inference Protocol as its clients do: paths, headers, bytes behind the JSON?"""

from __future__ import annotations

import gzip
import json
import struct
from typing import Any

import numpy as np
import pytest

ID = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = "/v2/models/all-MiniLM-L6-v2"
LIKE = [101, 1045, 2066, 2017, 1012, 102]
"""`I like you.` in the vocabulary of all-MiniLM-L6-v2."""
BINARY = {"content-type": "application/octet-stream"}


def texts(*given: str) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": [len(given)], "data": list(given)}


def rows_of(answer: Any) -> np.ndarray:
    """The embedding of an answer, wherever its bytes are."""
    length = answer.headers["inference-header-content-length"]
    assert (answer.headers["content-type"] == "application/octet-stream") == (length is not None)
    head = json.loads(answer.body[: None if length is None else int(length)])
    (output,) = head["outputs"]
    assert (output["name"], output["datatype"]) == ("embedding", "FP32")
    if length is None:
        return np.array(output["data"], np.float32).reshape(output["shape"])
    rest = answer.body[int(length) :]
    assert output["parameters"]["binary_data_size"] == len(rest)
    return np.frombuffer(rest, "<f4").reshape(output["shape"])


def test_the_server_and_its_model_are_described(gateway: Any) -> None:
    assert gateway.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    for path in (MODEL, f"/v2/models/{ID}", f"/v2/models/{ID.replace('/', '%2F')}", f"{MODEL}/versions/1"):
        answer = gateway.get(path).json()
        assert (answer["name"], answer["versions"], answer["platform"]) == (ID, ["1"], "onnxruntime_onnx")
        assert answer["inputs"][0] == {"name": "text", "datatype": "BYTES", "shape": [-1]}
        assert answer["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 384]}]


def test_the_model_is_ready_when_an_instance_is(gateway: Any) -> None:
    assert gateway.get(f"{MODEL}/ready").json() == {"name": ID, "ready": True}
    assert gateway.get(f"{MODEL}/versions/1/ready").status == 200
    gateway.state({"short-0": "starting"})
    gateway.seen_state({"short-0": "starting"})
    refused = gateway.get(f"{MODEL}/ready")
    assert (refused.status, refused.json()["error"]) == (503, "no instance is ready")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v2/models/other", "model 'other' is not served here"),
        ("/v2/models/wrong/all-MiniLM-L6-v2", "is not served here"),
        (f"{MODEL}/versions/2", "version '2'"),
        (f"{MODEL}/versions/", "no such route"),
        ("/v2/models/", "no such route"),
        ("/v2/models//ready", "no such route"),
        (f"{MODEL}/config", "is not served here"),
        ("/v2/repository/index", "no such route"),
    ],
)
def test_another_model_or_version_is_not_found(gateway: Any, router: Any, path: str, says: str) -> None:
    refused = gateway.get(path)
    assert (refused.status, refused.json()["error_type"]) == (404, "not_found")
    assert says in refused.json()["error"]
    if "repository" not in path:
        assert gateway.post(f"{path}/infer", {"inputs": [texts("a")]}).status == 404
    assert router.submitted.empty()


def test_get_and_post_are_told_apart_with_what_each_path_takes(gateway: Any) -> None:
    assert gateway.get(f"{MODEL}/infer").headers["allow"] == "POST"
    assert gateway.post(MODEL, {}).headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", [f"{MODEL}/infer", f"{MODEL}/versions/1/infer", f"/v2/models/{ID}/infer"])
def test_texts_give_a_row_each_and_the_headers_of_every_inference(gateway: Any, kit: Any, path: str) -> None:
    answer = gateway.post(path, {"id": "42", "inputs": [texts("I like you.", "")]}, {"x-request-id": "mine-1"})
    assert (rows_of(answer) == [kit.row_of(LIKE), kit.row_of([101, 102])]).all()
    assert (answer.json()["id"], answer.json()["model_name"], answer.json()["model_version"]) == ("42", ID, "1")
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.headers["x-instance"] == "short-0"
    assert answer.headers["server-timing"].startswith("tokenize;dur=")
    assert float(answer.headers["x-compute-time"]) > 0


def test_bytes_go_in_and_come_out_behind_the_json(gateway: Any, kit: Any) -> None:
    element = b"I like you."
    blob = struct.pack("<I", len(element)) + element
    one = {"name": "text", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
    headers = {**BINARY, "Inference-Header-Content-Length": str(len(head))}
    answer = gateway.call("POST", f"{MODEL}/infer", head + blob, headers)
    assert (rows_of(answer) == [kit.row_of(LIKE)]).all()
    packed = gateway.call("POST", f"{MODEL}/infer", gzip.compress(head + blob), {**headers, "content-encoding": "gzip"})
    assert (rows_of(packed) == rows_of(answer)).all()


def test_a_body_that_is_all_json_may_be_called_bytes(gateway: Any) -> None:
    body = json.dumps({"inputs": [texts("a")]}).encode()
    assert gateway.call("POST", f"{MODEL}/infer", body, BINARY).status == 200
    refused = gateway.call("POST", f"{MODEL}/infer", body, {"content-type": "text/plain"})
    assert (refused.status, "application/json or application/octet-stream" in refused.json()["error"]) == (415, True)


def test_ids_reach_the_router_without_their_padding(gateway: Any, router: Any, kit: Any) -> None:
    ids, mask = np.zeros((2, 200), np.int32), np.zeros((2, 200), np.int64)
    ids[0, :6], mask[0, :6] = LIKE, 1
    ids[1, -3:], mask[1, -3:] = [101, 7, 102], 1
    parts = [ids.tobytes(), mask.tobytes()]
    inputs = [
        {"name": name, "datatype": kind, "shape": [2, 200], "parameters": {"binary_data_size": len(part)}}
        for name, kind, part in zip(("input_ids", "attention_mask"), ("INT32", "INT64"), parts, strict=True)
    ]
    head = json.dumps(
        {"inputs": inputs, "outputs": [{"name": "embedding", "parameters": {"binary_data": True}}]}
    ).encode()
    headers = {**BINARY, "Inference-Header-Content-Length": str(len(head))}
    answer = gateway.call("POST", f"{MODEL}/infer", head + b"".join(parts), headers)
    assert (rows_of(answer) == [kit.row_of(LIKE), kit.row_of([101, 7, 102])]).all()
    assert [list(one) for one in router.next().sequences] == [LIKE, [101, 7, 102]]


def test_what_tritons_clients_say_of_priority_and_deadline_is_kept(gateway: Any, router: Any) -> None:
    asked = {"inputs": [texts("a")], "parameters": {"priority": 1, "timeout": 2_000_000}}
    assert gateway.post(f"{MODEL}/infer", asked, {"x-priority": "bulk", "x-request-timeout-ms": "50000"}).status == 200
    seen = router.next()
    assert (seen.priority, 0 < seen.timeout_ms <= 2000) == (0, True)
    asked["parameters"] = {"priority": 0, "timeout": 60_000_000}
    assert gateway.post(f"{MODEL}/infer", asked, {"x-priority": "bulk", "x-request-timeout-ms": "500"}).status == 200
    seen = router.next()
    assert (seen.priority, 0 < seen.timeout_ms <= 500) == (2, True)


def test_a_deadline_of_a_microsecond_has_passed(gateway: Any, router: Any) -> None:
    refused = gateway.post(f"{MODEL}/infer", {"inputs": [texts("a")], "parameters": {"timeout": 1}})
    assert (refused.status, refused.json()["error_type"]) == (504, "deadline")
    assert router.submitted.empty()


def test_a_text_over_the_limit_is_refused_and_cut_where_asked(gateway: Any, router: Any) -> None:
    asked: dict[str, Any] = {"inputs": [texts("like " * 300)]}
    refused = gateway.post(f"{MODEL}/infer", asked)
    assert (refused.status, "302 tokens, the limit is 256" in refused.json()["error"]) == (413, True)
    asked["parameters"] = {"truncate": True}
    assert gateway.post(f"{MODEL}/infer", asked).status == 200
    assert [len(one) for one in router.next().sequences] == [256]


def test_what_a_model_of_vectors_cannot_do_is_refused(gateway: Any) -> None:
    for parameters, status in (({"normalize": False}, 422), ({"dimensions": 385}, 422), ({"top_k": 3}, 400)):
        assert gateway.post(f"{MODEL}/infer", {"inputs": [texts("a")], "parameters": parameters}).status == status
    short = gateway.post(f"{MODEL}/infer", {"inputs": [texts("a")], "parameters": {"dimensions": 8}})
    assert rows_of(short).shape == (1, 8)
