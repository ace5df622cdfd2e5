"""Do bodies of each protocol become the right calls, and rows the right answers?"""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from orchestrator.client.link import Answered, Part
from orchestrator.client.texts import Tokens
from orchestrator.gateway.apis import huggingface, openai, tei
from orchestrator.gateway.apis.call import Call, Parse, Served
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.spec import Limits
from orchestrator.status import ModelStatus
from workers.wire import RequestId

MODEL = ModelStatus(
    id="org/tiny", task="sentence-embedding", architecture="bert", precision="fp32", engine="onnxruntime", max_seqlen=8,
    dimensions=4, digest="d", artefact="a",
)  # fmt: skip
SERVED = Served(MODEL, Limits(batch=3), vocabulary=100)
ROUTES: dict[str, tuple[Parse, str]] = {
    "/embed": (tei.embed, "inputs"),
    "/predict": (huggingface.predict, "inputs"),
    "/v1/embeddings": (openai.embeddings, "input"),
}


def answered(*rows: list[float]) -> Answered:
    matrix = np.array(rows, np.float32)
    views = [memoryview(row.tobytes()) for row in matrix]
    return Answered(RequestId(1), views, matrix.shape[1], False, [Part("i", (1, 8), 1, 0, 0, 1)], None)


def parse(route: str, body: Any, served: Served = SERVED) -> Call:
    return ROUTES[route][0](body if isinstance(body, bytes) else json.dumps(body).encode(), served)


def refusal(route: str, body: Any, served: Served = SERVED) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(route, body, served)
    return caught.value


@pytest.fixture(params=list(ROUTES))
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_one_text_and_several_and_ids_and_several_ids_are_all_inputs(route: str) -> None:
    field = ROUTES[route][1]
    assert parse(route, {field: "a"}).texts == ["a"]
    assert parse(route, {field: ["a", "b"]}).texts == ["a", "b"]
    assert parse(route, {field: [1, 2]}).sequences == [[1, 2]]
    assert parse(route, {field: [[1], [2, 3]]}).sequences == [[1], [2, 3]]


def test_an_empty_text_is_a_text(route: str) -> None:
    assert parse(route, {ROUTES[route][1]: ""}).texts == [""]


def test_nul_and_astral_characters_arrive_as_they_were_sent(route: str) -> None:
    body = b'{"%b": "a\\u0000\\ud83d\\ude00"}' % ROUTES[route][1].encode()
    assert parse(route, body).texts == ["a\0\U0001f600"]


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ([], "unprocessable"),
        ([[]], "unprocessable"),
        ([[1], []], "unprocessable"),
        ([100], "unprocessable"),
        ([-1], "unprocessable"),
        ([2**70], "unprocessable"),
        (["a", 1], "malformed"),
        (["a", ["b"]], "malformed"),
        (["a", None], "malformed"),
        ([1.5], "malformed"),
        ([True], "malformed"),
        (7, "malformed"),
        (None, "malformed"),
        ({}, "malformed"),
        (["a"] * 4, "batch_too_large"),
        ([[1]] * 4, "batch_too_large"),
        ([1] * 9, "too_long"),
        ([[1], [1] * 9], "too_long"),
    ],
    ids=repr,
)
def test_inputs_that_cannot_be_served_are_refused_by_what_is_wrong_with_them(
    route: str, inputs: Any, kind: str
) -> None:
    assert refusal(route, {ROUTES[route][1]: inputs}).kind == kind


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"a"', b"{}", b'{"inputs": "a", "input": "\xff"}', b"\xef\xbb\xbf{}",
        b'{"inputs": "\\ud800", "input": "\\ud800"}', b'{"inputs": "a" "input": 1}', b"[" * 100_000,
        b'{"inputs": ' + b"[" * 100_000, b'{"x": ' + b'{"x": ' * 100_000, b'{"inputs": "a"} x', b"\x00",
    ],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_a_body_that_is_no_json_of_the_right_shape_is_malformed(route: str, body: bytes) -> None:
    assert refusal(route, body).status == 400


def test_the_limit_is_in_the_message_of_each_refusal_over_a_limit(route: str) -> None:
    field = ROUTES[route][1]
    assert "4 inputs, the limit is 3" in refusal(route, {field: ["a"] * 4}).message
    assert "9 tokens, the limit is 8" in refusal(route, {field: [1] * 9}).message


@pytest.mark.parametrize(("direction", "kept"), [("right", list(range(8))), ("Left", list(range(2, 10)))])
def test_ids_over_the_limit_are_cut_where_asked(direction: str, kept: list[int]) -> None:
    call = parse("/embed", {"inputs": list(range(10)), "truncate": True, "truncation_direction": direction})
    assert call.sequences == [kept]


@pytest.mark.parametrize("by", ["limits", "model"])
def test_the_layout_may_cut_where_the_request_is_silent_and_not_where_it_says_no(route: str, by: str) -> None:
    served = (
        Served(MODEL, Limits(truncate=True), 100)
        if by == "limits"
        else Served(msgspec.structs.replace(MODEL, truncate=True), Limits(), 100)
    )
    field = ROUTES[route][1]
    assert parse(route, {field: "a"}, served).cut == "right"
    no: dict[str, Any] = {"parameters": {"truncate": False}} if route == "/predict" else {"truncate": False}
    assert parse(route, {field: "a", **no}, served).cut is None


def test_nothing_is_cut_unless_somebody_says_so(route: str) -> None:
    assert parse(route, {ROUTES[route][1]: "a"}).cut is None


def test_embed_answers_a_list_of_vectors_even_for_one_text() -> None:
    call = parse("/embed", {"inputs": "a"})
    assert json.loads(call.render(answered([1, 0, 0, 0]), Tokens([1], b""))) == [[1, 0, 0, 0]]


def test_predict_answers_as_it_was_asked_one_vector_or_several() -> None:
    one = parse("/predict", {"inputs": "a"}).render(answered([1, 0, 0, 0]), Tokens([1], b""))
    assert json.loads(one) == [1, 0, 0, 0]
    several = parse("/predict", {"inputs": ["a"]}).render(answered([1, 0, 0, 0]), Tokens([1], b""))
    assert json.loads(several) == [[1, 0, 0, 0]]


def test_predict_compares_a_sentence_with_others() -> None:
    call = parse("/predict", {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}})
    assert call.texts == ["a", "b", "c"]
    assert json.loads(call.render(answered([1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 1, 0, 0]), Tokens([1] * 3, b""))) == [
        pytest.approx(0.6),
        0,
    ]
    assert refusal("/predict", {"inputs": {"source_sentence": "a", "sentences": []}}).status == 422
    assert refusal("/predict", {"inputs": {"source_sentence": "a"}}).status == 400


@pytest.mark.parametrize(
    ("truncation", "cut"), [(True, "right"), (False, None), ("longest_first", "right"), ("do_not_truncate", None)]
)
def test_predict_knows_the_truncation_of_transformers(truncation: Any, cut: str | None) -> None:
    assert parse("/predict", {"inputs": "a", "parameters": {"truncation": truncation}}).cut == cut


def test_predict_refuses_a_truncation_that_nobody_knows() -> None:
    assert refusal("/predict", {"inputs": "a", "parameters": {"truncation": "sideways"}}).status == 422


def test_predict_gives_features_nested_as_the_pipeline_nests_them() -> None:
    served = Served(msgspec.structs.replace(MODEL, task="feature-extraction"), Limits(), 100)
    rows = [
        memoryview(np.array([[1, 2], [3, 4]], np.float32).tobytes()),
        memoryview(np.array([[5, 6]], np.float32).tobytes()),
    ]
    answer = Answered(RequestId(1), rows, 2, True, [Part("i", (1, 8), 1, 0, 0, 1)], None)
    several = parse("/predict", {"inputs": ["a", "b"]}, served).render(answer, Tokens([2, 1], b""))
    assert json.loads(several) == [[[[1, 2], [3, 4]]], [[[5, 6]]]]
    one = Answered(RequestId(1), rows[:1], 2, True, answer.parts, None)
    assert json.loads(parse("/predict", {"inputs": "a"}, served).render(one, Tokens([2], b""))) == [[[1, 2], [3, 4]]]


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_routes_for_vectors_refuse_a_model_that_gives_features(path: str) -> None:
    served = Served(msgspec.structs.replace(MODEL, task="feature-extraction"), Limits(), 100)
    assert refusal(path, {ROUTES[path][1]: "a"}, served).status == 422


def test_openai_answers_name_the_model_and_count_the_tokens() -> None:
    call = parse("/v1/embeddings", {"input": ["a", "b"], "model": "anything", "user": "x", "new_field": 1})
    body = json.loads(call.render(answered([1, 0, 0, 0], [0, 1, 0, 0]), Tokens([3, 5], b"")))
    assert body == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1, 0, 0, 0]},
            {"object": "embedding", "index": 1, "embedding": [0, 1, 0, 0]},
        ],
        "model": "org/tiny",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }


def test_openai_base64_holds_the_same_floats() -> None:
    call = parse("/v1/embeddings", {"input": "a", "encoding_format": "base64"})
    row = [0.1, -0.2, 0.3, 0.9]
    data = json.loads(call.render(answered(row), Tokens([1], b"")))["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(data), "<f4").tolist() == np.array(row, np.float32).tolist()


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_fewer_dimensions_are_the_first_ones_at_length_one_again(path: str) -> None:
    call = parse(path, {ROUTES[path][1]: "a", "dimensions": 2})
    body = json.loads(call.render(answered([0.3, 0.4, 0.5, 0.7]), Tokens([1], b"")))
    row = body[0] if path == "/embed" else body["data"][0]["embedding"]
    assert row == pytest.approx([0.6, 0.8])


def test_a_vector_whose_first_dimensions_are_all_zero_stays_zero() -> None:
    call = parse("/embed", {"inputs": "a", "dimensions": 2})
    assert json.loads(call.render(answered([0, 0, 0.6, 0.8]), Tokens([1], b""))) == [[0, 0]]


@pytest.mark.parametrize(
    "option", [{"dimensions": 0}, {"dimensions": 5}, {"dimensions": -1}, {"normalize": False}, {"prompt_name": "query"}]
)
def test_what_the_model_cannot_do_is_refused_and_not_left_out_in_silence(option: dict[str, Any]) -> None:
    assert refusal("/embed", {"inputs": "a", **option}).status == 422
    assert refusal("/predict", {"inputs": "a", "parameters": option}).status == 422


def test_an_encoding_that_openai_does_not_have_is_a_wrong_type() -> None:
    assert refusal("/v1/embeddings", {"input": "a", "encoding_format": "hex"}).status == 400


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_no_number_is_a_fault_of_the_model_and_never_an_answer(route: str, number: float) -> None:
    call = parse(route, {ROUTES[route][1]: "a"})
    with pytest.raises(Refusal) as caught:
        call.render(answered([1, number, 0, 0]), Tokens([1], b""))
    assert caught.value.status == 424


def test_floats_are_written_with_as_many_digits_as_read_back_the_same() -> None:
    row = np.array([1 / 3, 1e-8, -0.1, 1.0], np.float32)
    body = parse("/embed", {"inputs": "a"}).render(answered(row.tolist()), Tokens([1], b""))
    assert np.array(json.loads(body), np.float32)[0].tolist() == row.tolist()
    assert b"0.33333334," in body
