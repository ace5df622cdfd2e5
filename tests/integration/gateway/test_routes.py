"""Does a real gateway process, with a real tokenizer and a real ZeroMQ socket, answer as each ecosystem expects?"""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import openai
import pytest

from workers.spec import Recall, Recalled

INFERENCES = [("/embed", "inputs"), ("/predict", "inputs"), ("/", "inputs"), ("/v1/embeddings", "input")]
LIKE = [101, 1045, 2066, 2017, 1012, 102]
"""`I like you.` in the vocabulary of all-MiniLM-L6-v2."""


def close(answer: Any, rows: list[Any]) -> bool:
    return bool(np.allclose(np.array(answer, np.float32), np.array(rows), atol=1e-6))


def test_embed_gives_a_row_per_text_in_order(gateway: Any, router: Any, kit: Any) -> None:
    answer = gateway.post("/embed", {"inputs": ["I like you.", ""]})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert close(answer.json(), [kit.row_of(LIKE), kit.row_of([101, 102])])
    assert [list(one) for one in router.next().sequences] == [LIKE, [101, 102]]


def test_predict_gives_a_flat_vector_for_one_text(gateway: Any, kit: Any) -> None:
    assert close(gateway.post("/predict", {"inputs": "I like you."}).json(), kit.row_of(LIKE))
    assert close(gateway.post("/", {"inputs": ["I like you."]}).json(), [kit.row_of(LIKE)])


def test_token_ids_are_taken_as_they_are(gateway: Any, kit: Any) -> None:
    assert close(gateway.post("/embed", {"inputs": [[7, 8]]}).json(), [kit.row_of([7, 8])])


def test_the_openai_client_works_unchanged(gateway: Any, kit: Any) -> None:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="text-embedding-3-small", input=["I like you.", "I like you."])
        assert close([one.embedding for one in answer.data], [kit.row_of(LIKE)] * 2)
        assert [one.index for one in answer.data] == [0, 1]
        assert answer.usage.prompt_tokens == 2 * len(LIKE)
        assert answer.model == kit.MODEL.id
        floats = client.embeddings.create(model="x", input="I like you.", encoding_format="float", dimensions=8)
        short = kit.row_of(LIKE)[:8]
        assert close(floats.data[0].embedding, short / np.linalg.norm(short))
        assert [model.id for model in client.models.list()] == [kit.MODEL.id]
        assert client.models.retrieve(kit.MODEL.id).id == kit.MODEL.id
        with pytest.raises(openai.NotFoundError, match="is not served here"):
            client.models.retrieve("gpt")
        with pytest.raises(openai.UnprocessableEntityError, match="dimensions"):
            client.embeddings.create(model="x", input="a", dimensions=385)
        with pytest.raises(openai.APIStatusError, match="the limit is 256") as caught:
            client.embeddings.create(model="x", input="like " * 300)
        assert caught.value.status_code == 413
        assert caught.value.body["code"] == "too_long"  # type: ignore[index]


@pytest.mark.parametrize(("path", "field"), INFERENCES)
def test_every_inference_tells_where_it_went_and_how_long_it_took(gateway: Any, path: str, field: str) -> None:
    headers = gateway.post(path, {field: "I like you."}, {"x-request-id": "mine-1"}).headers
    assert headers["x-instance"] == "short-0"
    assert headers["x-bucket"] == "1-32"
    assert headers["x-batch-size"] == "1"
    assert headers["x-request-id"] == "mine-1"
    assert float(headers["x-compute-time"]) > 0
    timing = re.fullmatch(
        r"tokenize;dur=([\d.]+), queue;dur=([\d.]+), inference;dur=([\d.]+), post;dur=([\d.]+)",
        headers["server-timing"],
    )
    assert timing is not None
    assert (timing[2], timing[3]) == ("0.120", "2.500")
    assert headers["date"]


def test_requests_without_an_id_get_different_ones_and_refusals_carry_theirs_too(gateway: Any) -> None:
    first, second = (gateway.post("/embed", {"inputs": "a"}).headers["x-request-id"] for _ in range(2))
    assert first != second
    assert gateway.post("/embed", b"{", {"x-request-id": "mine"}).headers["x-request-id"] == "mine"
    assert gateway.post("/embed", b"{", {"x-request-id": "a b"}).headers["x-request-id"] not in ("a b", "")


def test_a_batch_that_was_split_names_each_instance_and_bucket_and_is_put_in_order(
    gateway: Any, router: Any, kit: Any
) -> None:
    router.respond = lambda seen: [
        kit.part(seen, [2, 0], instance=b"long-0", bucket=(33, 256)),
        kit.part(seen, [1], instance=b"short-0", bucket=(1, 32)),
    ]
    answer = gateway.post("/embed", {"inputs": ["a", "b", "c"]})
    ids = [list(one) for one in router.next().sequences]
    assert close(answer.json(), [kit.row_of(one) for one in ids])
    assert answer.headers["x-instance"] == "long-0,short-0"
    assert answer.headers["x-bucket"] == "33-256,1-32"
    assert answer.headers["x-batch-size"] == "2"


def test_an_instance_without_a_bucket_is_for_every_length(gateway: Any, router: Any, kit: Any) -> None:
    router.respond = lambda seen: kit.answer(seen, bucket=(0, 0))
    assert gateway.post("/embed", {"inputs": "a"}).headers["x-bucket"] == "1-256"


def test_a_hostile_instance_name_cannot_write_headers(gateway: Any, router: Any, kit: Any) -> None:
    router.respond = lambda seen: kit.answer(seen, instance="é\r\nx-evil: 1\x7f".encode())
    answer = gateway.post("/embed", {"inputs": "a"})
    assert answer.status == 200
    assert answer.headers["x-evil"] is None
    assert answer.headers["x-instance"] == "???x-evil: 1?"


def test_priority_and_caller_go_to_the_router_and_an_unknown_priority_goes_nowhere(gateway: Any, router: Any) -> None:
    for headers in ({"x-priority": "bulk", "x-api-key": "a"}, {"x-priority": "interactive", "x-api-key": "b"}, {}):
        assert gateway.post("/embed", {"inputs": "hello"}, headers).status == 200
    seen = [router.next() for _ in range(3)]
    assert [one.priority for one in seen] == [2, 0, 1]
    assert len({one.tenant for one in seen}) == 3
    refused = gateway.post("/embed", {"inputs": "hello"}, {"x-priority": "now"})
    assert (refused.status, refused.json()["error_type"]) == (400, "malformed")
    assert "interactive, normal, bulk" in refused.json()["error"]


@pytest.mark.parametrize(("path", "field"), INFERENCES)
def test_a_text_over_the_limit_is_refused_with_the_limit_and_cut_where_asked(
    gateway: Any, router: Any, path: str, field: str
) -> None:
    refused = gateway.post(path, {field: "like " * 300})
    assert refused.status == 413
    assert b"302 tokens, the limit is 256" in refused.body
    option: dict[str, Any] = {"parameters": {"truncate": True}} if path in ("/", "/predict") else {"truncate": True}
    assert gateway.post(path, {field: "like " * 300, **option}).status == 200
    assert [len(one) for one in router.next().sequences] == [256]


def test_a_layout_that_cuts_does_so_without_being_asked(own_router: Any, start_gateway: Any, kit: Any) -> None:
    gateway = start_gateway(limits=kit.Limits(truncate=True))
    assert gateway.post("/embed", {"inputs": "like " * 300}).status == 200
    assert [len(one) for one in own_router.next().sequences] == [256]
    assert gateway.post("/embed", {"inputs": "like " * 300, "truncate": False}).status == 413


def test_tokenize_spells_the_tokens_with_their_places_in_the_text(gateway: Any) -> None:
    assert gateway.post("/tokenize", {"inputs": "Liké you"}).json() == [
        [
            {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None},
            {"id": 2066, "text": "Liké", "special": False, "start": 0, "stop": 4},
            {"id": 2017, "text": "you", "special": False, "start": 5, "stop": 8},
            {"id": 102, "text": "[SEP]", "special": True, "start": None, "stop": None},
        ]
    ]
    bare = gateway.post("/tokenize", {"inputs": ["a", "b"], "add_special_tokens": False}).json()
    assert [[token["text"] for token in one] for one in bare] == [["a"], ["b"]]


def test_info_says_what_is_served(gateway: Any, kit: Any) -> None:
    info = gateway.get("/info").json()
    assert (info["model_id"], info["model_dtype"], info["max_input_length"]) == (kit.MODEL.id, "float32", 256)
    assert info["max_client_batch_size"] == 256


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/embed", 405, "POST"),
        ("DELETE", "/health", 405, "GET, HEAD"),
        ("PUT", "/", 405, "GET, HEAD, POST"),
        ("GET", "/nowhere", 404, None),
        ("POST", "/embed/", 404, None),
        ("GET", "/dashboard/nowhere.js", 404, None),
        ("GET", "/dashboard/../secret", 404, None),
    ],
)
def test_a_wrong_path_or_method_says_so(gateway: Any, method: str, path: str, status: int, allow: str | None) -> None:
    answer = gateway.call(method, path)
    assert (answer.status, answer.headers["allow"]) == (status, allow)
    assert set(answer.json()) == {"error", "error_type"}


def test_errors_under_v1_are_openai_error_objects(gateway: Any) -> None:
    error = gateway.post("/v1/embeddings", b"{").json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "malformed", None)
    assert gateway.get("/v1/nowhere").json()["error"]["code"] == "not_found"


def test_a_query_string_and_an_absolute_target_lead_to_the_same_route(gateway: Any) -> None:
    assert gateway.get("/health?verbose=1").status == 200
    assert gateway.get(f"http://127.0.0.1:{gateway.port}/health?x").status == 200


def test_head_is_get_without_its_body(gateway: Any) -> None:
    head, whole = gateway.call("HEAD", "/info"), gateway.get("/info")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))


def test_health_wants_a_router_that_answers_and_an_instance_that_is_ready(own_router: Any, start_gateway: Any) -> None:
    gateway = start_gateway()
    assert gateway.get("/health").status == 503
    gateway.state({"short-0": "starting"})
    gateway.seen_state({"short-0": "starting"})
    answer = gateway.get("/health")
    assert (answer.status, answer.json()["error"]) == (503, "no instance is ready")
    assert int(answer.headers["retry-after"]) >= 1
    gateway.state({"short-0": "ready", "long-0": "starting"})
    gateway.status_when(lambda _: gateway.get("/health").status == 200)
    assert gateway.get("/v2/health/ready").status == 200
    assert gateway.get("/v2/health/live").json() == {"live": True}
    own_router.answers_pings = False
    gateway.status_when(lambda _: gateway.get("/health").status == 503)
    assert gateway.get("/health").json()["error"] == "the router does not answer"
    assert gateway.get("/v2/health/live").status == 200


def test_state_and_metrics_are_those_of_the_newest_document(gateway: Any, kit: Any) -> None:
    document = msgspec.json.encode(kit.status_document({"short-0": "ready"}))
    assert gateway.get("/api/state").body == document
    metrics = gateway.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'orchestrator_router_rejected_total{reason="queue_full"} 3.0' in metrics.body
    gateway.state({"short-0": "backoff"})
    newer = b'orchestrator_instance_state{instance="short-0",state="backoff"} 1.0'
    gateway.status_when(lambda _: newer in gateway.get("/metrics").body)


def test_before_the_first_document_there_is_no_state_and_no_metrics(own_router: Any, start_gateway: Any) -> None:
    gateway = start_gateway()
    assert gateway.get("/api/state").status == 503
    assert gateway.get("/metrics").status == 503


def test_the_dashboard_is_served_with_its_headers_and_its_tag(gateway: Any) -> None:
    page = gateway.get("/dashboard")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html")
    for name in re.findall(rb'(?:src|href)="(?:/?dashboard/)([\w.-]+)"', page.body):
        assert gateway.get(f"/dashboard/{name.decode()}").status == 200
    fresh = gateway.get("/dashboard", {"if-none-match": page.headers["etag"]})
    assert (fresh.status, fresh.body) == (304, b"")
    assert gateway.get("/dashboard/").headers["location"] == "../dashboard"
    assert gateway.get("/").headers["location"] == "dashboard"


def test_a_stream_gives_the_newest_document_at_once_and_each_that_comes(gateway: Any, kit: Any) -> None:
    with gateway.connect() as stream:
        stream.sendall(b"GET /api/stream HTTP/1.0\r\n\r\n")
        reader = stream.makefile("rb")
        lines = iter(reader.readline, b"")

        def event() -> bytes:
            return next(line for line in lines if line.startswith(b"data: "))

        assert event() == b"data: " + msgspec.json.encode(kit.status_document({"short-0": "ready"})) + b"\n"
        gateway.state({"short-0": "draining"})
        assert event() == b"data: " + msgspec.json.encode(kit.status_document({"short-0": "draining"})) + b"\n"
        reader.close()


def test_what_was_before_it_a_gateway_asks_the_supervisor_once_for_all_who_wait(
    own_router: Any, start_gateway: Any, kit: Any
) -> None:
    gateway = start_gateway({"short-0": "ready"})
    with ThreadPoolExecutor(3) as crowd:
        asked = [crowd.submit(gateway.get, "/api/history") for _ in range(3)]
        assert gateway.expect(Recall) == Recall(2)
        gateway.tell(Recalled(2, msgspec.Raw(b'{"points": [1.0]}')))
        answers = [one.result(kit.PATIENCE) for one in asked]
    assert [(one.status, one.json()) for one in answers] == [(200, {"points": [1.0]})] * 3
    assert answers[0].headers["cache-control"] == "no-store"
    with ThreadPoolExecutor(1) as crowd:
        hours = crowd.submit(gateway.get, "/api/history?step=60")
        assert gateway.expect(Recall) == Recall(60)  # none was asked for in between
        gateway.tell(Recalled(60, msgspec.Raw(b'{"points": []}')))
        assert hours.result(kit.PATIENCE).json() == {"points": []}
    for wrong in ("0", "", "2.0", "60%20", "x" * 99):
        refused = gateway.get(f"/api/history?step={wrong}")
        assert refused.status == 400
        assert "expected 2 or 60, the seconds between two points" in refused.json()["error"]


def test_the_gateway_reports_what_it_did(own_router: Any, start_gateway: Any) -> None:
    gateway = start_gateway({"short-0": "ready"})
    gateway.post("/embed", {"inputs": "a"})
    gateway.post("/embed", b"{")
    gateway.get("/nowhere-in-particular")
    report = gateway.status_when(lambda status: "other 404" in status.responses)
    assert report.responses["/embed 200"] == 1
    assert report.responses["/embed 400"] == 1
    assert report.responses["other 404"] == 1
    assert report.latency_buckets[-1] == 1
    assert report.latency_ms.p50 > 0
    assert report.in_flight == 0
    assert report.pid == gateway.process.pid
    assert report.rss_bytes > 1 << 20
    assert report.cpu_seconds > 0
    assert report.tokenize_seconds > 0


def test_a_gateway_does_not_interrupt_workers_that_share_its_cores(gateway: Any) -> None:
    assert os.sched_getscheduler(gateway.process.pid) == os.SCHED_BATCH


def test_one_connection_serves_many_requests_and_pipelined_ones_in_order(gateway: Any, kit: Any) -> None:
    body = b'{"inputs": [[%d]]}'
    with gateway.connect() as connection:
        for number in (7, 8):
            sent = body % number
            connection.sendall(b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(sent), sent))
        reader = connection.makefile("rb")
        for number in (7, 8):
            length = 0
            assert reader.readline() == b"HTTP/1.1 200 OK\r\n"
            while (line := reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert close(msgspec.json.decode(reader.read(length)), [kit.row_of([number])])
        reader.close()
