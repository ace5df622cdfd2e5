"""Does the Open Inference Protocol give, as tensors, the numbers that the other routes give? With tiny models of every task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.gateway.apis import openinference, tei
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.spec import Limits

Model = Callable[..., Any]
REFERENCE = json.loads((Path(__file__).parents[2] / "data" / "tasks" / "reference.json").read_text(encoding="utf-8"))
RAGGED = {"token-classification": "entities", "fill-mask": "fills", "question-answering": "answers"}
KINDS: dict[str, Any] = {"FP32": np.float32, "INT64": np.int64, "BYTES": object}


def infer(
    model: Any, inputs: dict[str, Any], parameters: Any = None, outputs: list[str] | None = None
) -> dict[str, Any]:
    """By name the tensors of the answer; texts are columns, numbers INT64 or FP32."""
    listed = []
    for name, value in inputs.items():
        array = np.array(value, None if isinstance(value, np.ndarray) else object)
        kind = "BYTES" if array.dtype == object else "INT64"
        listed.append({"name": name, "datatype": kind, "shape": array.shape, "data": array.ravel().tolist()})
    body: dict[str, Any] = {"inputs": listed, "parameters": parameters}
    if outputs is not None:
        body["outputs"] = [{"name": name} for name in outputs]
    answer = json.loads(model.answer(openinference.infer(json.dumps(body).encode(), model.served, None)))
    assert answer["model_name"] == model.served.model.id
    return {
        one["name"]: np.array(one["data"], KINDS[one["datatype"]]).reshape(one["shape"]) for one in answer["outputs"]
    }


def refusal(model: Any, *asked: Any, **more: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        infer(model, *asked, **more)
    return caught.value


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def as_tensors(request: dict[str, Any]) -> dict[str, Any] | None:
    """The inputs of a body of /predict; None where texts and pairs are mixed."""
    inputs = listed(request["inputs"])
    if all(isinstance(one, str) for one in inputs):
        return {"text": inputs}
    if all(isinstance(one, dict) for one in inputs) and len({frozenset(one) for one in inputs}) == 1:
        return {name: [one[name] for one in inputs] for name in inputs[0]}
    return None


def ids_of(model: Any, texts: Any, side: str = "right") -> dict[str, np.ndarray]:
    """As a client that tokenizes itself: padded to one length with zeros."""
    encodings = model.encoder.tokenizer.encode_batch(texts)
    length = max(len(one.ids) for one in encodings) + 2
    rows: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "token_type_ids": []}
    for one in encodings:
        padding = [0] * (length - len(one.ids))
        for name, row in zip(rows, (one.ids, [1] * len(one.ids), one.type_ids), strict=True):
            rows[name].append(row + padding if side == "right" else padding + row)
    return {name: np.array(value, np.int64) for name, value in rows.items()}


@pytest.mark.parametrize("key", REFERENCE)
def test_the_tensors_hold_what_predict_gives_for_the_same_inputs(model: Model, key: str) -> None:
    one, request = model(key.split("/")[0]), REFERENCE[key]["request"]
    inputs = as_tensors(request)
    if inputs is None:
        return  # texts and pairs in one request are no rectangle; the two kinds are tried alone
    body = {name: value for name, value in request.items() if name != "pipeline"}
    predicted = one.post(body)
    found = infer(one, inputs, request.get("parameters"))
    task = one.served.model.task
    if task in RAGGED:
        (documents,) = found.values()
        single = not isinstance(request["inputs"], list) or (task != "token-classification" and len(documents) == 1)
        assert [json.loads(document) for document in documents] == ([predicted] if single else predicted)
        assert list(found) == [RAGGED[task]]
        return
    if "candidate_labels" in request.get("parameters", {}):
        for row, answer in enumerate(listed(predicted)):
            assert found["labels"][row].tolist() == answer["labels"]
            assert found["scores"][row].tolist() == np.array(answer["scores"], np.float32).tolist()
        return
    rows = predicted if isinstance(request["inputs"], list) else [predicted]
    for row, answer in enumerate(rows):
        ranked = answer if isinstance(answer, list) else [answer]
        count = len(ranked)
        assert found["labels"][row].tolist()[:count] == [label["label"] for label in ranked]
        scores = np.array([label["score"] for label in ranked], np.float32)
        assert found["scores"][row].tolist()[:count] == scores.tolist()
    assert found["logits"].shape == (len(rows), len(one.served.model.head.labels))


def test_a_query_with_each_text_gives_the_scores_of_rerank(model: Model) -> None:
    ranker, texts = model("bert-relevance"), ["It rained.", "It is nine years old.", "old"]
    ranks = ranker.post({"query": "How old is it?", "texts": texts}, tei.rerank)
    expected = [one["score"] for one in sorted(ranks, key=lambda one: one["index"])]
    found = infer(ranker, {"query": ["How old is it?"], "text": texts}, outputs=["scores"])
    assert found["scores"].ravel().tolist() == np.array(expected, np.float32).tolist()
    each = infer(ranker, {"query": ["How old is it?"] * 3, "text": texts}, outputs=["scores"])
    assert each["scores"].tolist() == found["scores"].tolist()
    raw = ranker.post({"query": "How old is it?", "texts": texts, "raw_scores": True}, tei.rerank)
    logits = infer(ranker, {"query": ["How old is it?"], "text": texts})["logits"].ravel()
    assert {one["index"]: np.float32(one["score"]) for one in raw} == dict(enumerate(logits))


def test_labels_of_the_clients_own_may_be_a_tensor_too(model: Model) -> None:
    nli = model("bert-entailment")
    by_tensor = infer(nli, {"text": ["rain", "A goal!"], "candidate_labels": ["weather", "sport"]})
    by_parameter = infer(nli, {"text": ["rain", "A goal!"]}, {"candidate_labels": "weather, sport"})
    assert {name: value.tolist() for name, value in by_tensor.items()} == {
        name: value.tolist() for name, value in by_parameter.items()
    }
    assert by_tensor["labels"].shape == (2, 2)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    "name", ["bert-classes", "distilbert-sentiment", "roberta-classes", "bert-relevance", "modern-classes"]
)
def test_ids_of_the_clients_own_give_what_their_texts_give(model: Model, name: str, side: str) -> None:
    one = model(name)
    texts = ["rain", "The river rose in the night."]
    by_text, by_ids = infer(one, {"text": texts}), infer(one, ids_of(one, texts, side))
    assert {key: value.tolist() for key, value in by_ids.items()} == {
        key: value.tolist() for key, value in by_text.items()
    }


def test_token_types_tell_the_texts_of_a_pair_apart(model: Model) -> None:
    one, pairs = model("bert-relevance"), [("How old is it?", "It rained."), ("rain", "It is nine years old.")]
    ids = ids_of(one, pairs)
    by_text = infer(one, {"text": [a for a, _ in pairs], "text_pair": [b for _, b in pairs]})
    assert infer(one, ids)["logits"].tolist() == by_text["logits"].tolist()
    del ids["token_type_ids"]
    assert infer(one, ids)["logits"].tolist() != by_text["logits"].tolist()


def test_the_logits_of_each_token_stand_where_its_id_stood(model: Model) -> None:
    one = model("bert-entities")
    texts = ["Ada Lovelace met him.", "a"]
    ids = ids_of(one, texts, "left")
    logits = infer(one, ids)["logits"]
    assert logits.shape == (*ids["input_ids"].shape, 5)
    assert not logits[ids["attention_mask"] == 0].any()
    scores = np.exp(logits[0] - logits[0].max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    (document, _) = infer(one, {"text": texts}, {"ignore_labels": []})["entities"]
    padding = int((ids["attention_mask"][0] == 0).sum())
    for entity in json.loads(document):
        place = padding + entity["index"]
        assert one.served.model.head.labels[int(logits[0, place].argmax())] == entity["entity"]
        assert scores[place].max() == pytest.approx(entity["score"], abs=1e-6)


def test_ids_with_a_mask_give_the_row_of_the_vocabulary_for_it(model: Model) -> None:
    one = model("bert-mask")
    ids = ids_of(one, ["The river [MASK] in the night.", "[MASK]"])
    logits = infer(one, ids)["logits"]
    assert logits.shape == (2, one.served.model.dimensions)
    documents = infer(one, {"text": ["The river [MASK] in the night.", "[MASK]"]}, {"top_k": 1})["fills"]
    assert [int(row.argmax()) for row in logits] == [json.loads(document)[0]["token"] for document in documents]
    two = refusal(one, ids_of(one, ["[MASK] and [MASK]"]))
    assert (two.status, "has 2 masks" in two.message) == (422, True)
    assert "has 0 masks" in refusal(one, ids_of(one, ["rain"])).message


def test_the_start_and_end_of_an_answer_come_as_logits_for_ids(model: Model) -> None:
    one = model("bert-answers")
    ids = ids_of(one, [("Who met Babbage?", "Ada Lovelace met Charles Babbage.")])
    logits = infer(one, ids)["logits"]
    assert logits.shape == (*ids["input_ids"].shape, 2)
    del ids["token_type_ids"]
    assert infer(one, ids)["logits"].tolist() != logits.tolist()


def test_features_come_padded_with_the_mask_that_says_where(model: Model) -> None:
    one = model("bert-classes", "feature-extraction")
    texts = ["rain", "The river rose in the night."]
    nested = one.post({"inputs": texts})
    found = infer(one, {"text": texts})
    for row, (matrix,) in enumerate(nested):
        count = len(matrix)
        assert found["attention_mask"][row].tolist() == [1] * count + [0] * (found["features"].shape[1] - count)
        assert found["features"][row, :count].tolist() == np.array(matrix, np.float32).tolist()
        assert not found["features"][row, count:].any()
    ids = ids_of(one, texts)
    by_ids = infer(one, ids)
    assert list(by_ids) == ["features"]
    assert (
        by_ids["features"][ids["attention_mask"] == 1].tolist()
        == found["features"][found["attention_mask"] == 1].tolist()
    )


@pytest.mark.parametrize(
    ("name", "inputs", "parameters", "status", "says"),
    [
        ("bert-classes", {"words": ["a"]}, None, 422, "inputs.words: is unknown; this model takes text (BYTES) [text_pair], or"),
        ("bert-classes", {}, None, 422, "text is missing"),
        ("bert-classes", {"text_pair": ["a"]}, None, 422, "text is missing"),
        ("bert-classes", {"attention_mask": np.array([[1]])}, None, 422, "does not go with text"),
        ("bert-classes", {"text": ["a"], "input_ids": np.array([[1]])}, None, 422, "inputs.input_ids: does not go with text"),
        ("bert-classes", {"text": ["a"], "query": ["b"]}, None, 422, "inputs.query: is unknown"),
        ("bert-classes", {"text": ["a", "b"], "text_pair": ["b"]}, None, 422, "text_pair: 2 and 1 texts"),
        ("bert-classes", {"text": np.array([1])}, None, 422, "inputs.text: is INT64, expected BYTES"),
        ("bert-classes", {"input_ids": [["a"]]}, None, 422, "inputs.input_ids: is BYTES, expected INT64 or INT32"),
        ("bert-classes", {"text": [["a", "b"]]}, None, 422, "the shape [1, 2], expected [n] or [n, 1]"),
        ("bert-classes", {"text": []}, None, 422, "inputs.text: is empty"),
        ("bert-classes", {"text": ["a"] * 257}, None, 413, "257 texts, the limit is 256"),
        ("bert-classes", {"text": ["a"]}, {"topk": 2}, 400, "parameters: Object contains unknown field `topk`"),
        ("bert-classes", {"text": ["a"]}, {"top_k": 0}, 422, "top_k: 0"),
        ("bert-classes", {"text": ["a"]}, {"sequence_id": 5}, 400, "sequence_id"),
        ("bert-classes", {"text": ["a"]}, {"timeout": -1}, 400, "parameters.timeout"),
        ("bert-classes", {"text": ["a"]}, {"timeout": "5"}, 400, "parameters.timeout"),
        ("bert-classes", {"text": ["a"]}, {"priority": 4}, 422, "1 (interactive), 2 (normal), 3 (bulk)"),
        ("bert-classes", {"text": ["a"]}, {"candidate_labels": "b"}, 422, "entailment"),
        ("bert-relevance", {"text": ["a"], "query": ["b"], "text_pair": ["c"]}, None, 422, "does not go with text_pair"),
        ("bert-relevance", {"text": ["a"] * 3, "query": ["b"] * 2}, None, 422, "one query, or one for each text"),
        ("bert-entailment", {"text": ["a"], "text_pair": ["b"], "candidate_labels": ["c"]}, None, 422, "inputs.text_pair"),
        ("bert-entailment", {"text": ["a"], "candidate_labels": ["c"]}, {"candidate_labels": "c"}, 422, "send one of them"),
        ("bert-entailment", {"input_ids": np.array([[1]])}, {"candidate_labels": "c"}, 422, "inputs.input_ids"),
        ("bert-mask", {"text": ["no mask"]}, None, 422, "inputs.text[0]: has no mask"),
        ("bert-entities", {"text": ["a"]}, {"stride": 4}, 422, "stride"),
        ("bert-entities", {"input_ids": np.array([[1]])}, {"aggregation_strategy": "simple"}, 400, "aggregation_strategy"),
        ("bert-answers", {"question": ["a"]}, None, 422, "context is missing"),
        ("bert-answers", {"question": ["a", "b"], "context": ["c"]}, None, 422, "2 and 1 contexts"),
        ("bert-answers", {"question": [""], "context": ["c"]}, None, 422, "inputs[0].question: is empty"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_task_is_refused_by_the_name_of_its_tensor(
    model: Model, name: str, inputs: dict[str, Any], parameters: Any, status: int, says: str
) -> None:
    refused = refusal(model(name), inputs, parameters)
    assert refused.status == status
    assert says in refused.message


def test_a_text_that_says_it_is_encoded_is_not_taken_for_what_it_is_not(model: Model) -> None:
    one = model("bert-classes")
    tensor = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [1],
        "data": ["cmFpbg=="],
        "parameters": {"content_type": "base64"},
    }
    with pytest.raises(Refusal, match="content_type"):
        openinference.infer(json.dumps({"inputs": [tensor]}).encode(), one.served, None)
    tensor["parameters"] = {"content_type": "str", "headers": None}
    openinference.infer(json.dumps({"inputs": [tensor]}).encode(), one.served, None)


def test_outputs_are_those_that_are_named_and_no_others(model: Model) -> None:
    one = model("bert-classes")
    assert list(infer(one, {"text": ["a"]}, outputs=["logits", "labels"])) == ["logits", "labels"]
    assert list(infer(one, {"text": ["a"]}, outputs=[])) == ["labels", "scores", "logits"]
    assert "there are labels, scores, logits" in refusal(one, {"text": ["a"]}, outputs=["embedding"]).message
    assert refusal(one, {"text": ["a"]}, outputs=["labels", "labels"]).status == 400
    entities = model("bert-entities")
    assert refusal(entities, {"input_ids": np.array([[5]])}, outputs=["entities"]).status == 422
    nli = model("bert-entailment")
    assert refusal(nli, {"text": ["a"], "candidate_labels": ["b"]}, outputs=["logits"]).status == 422


def test_a_tensor_that_padding_would_make_huge_is_refused_after_it_is_tokenized(model: Model) -> None:
    one = model("bert-classes", "feature-extraction", Limits(batch=100_000))
    many = {"text": ["a"] * 20_000 + ["The river rose in the night. " * 3]}
    refused = refusal(one, many)
    assert (refused.kind, "padded to" in refused.message) == ("batch_too_large", True)


@pytest.mark.parametrize(
    "name", ["bert-classes", "bert-relevance", "bert-entailment", "bert-entities", "bert-mask", "bert-answers"]
)
def test_the_metadata_names_every_tensor_that_is_given_with_its_shape(model: Model, name: str) -> None:
    one = model(name)
    metadata = json.loads(openinference.metadata(one.served))
    inputs: dict[str, Any] = {"text": ["[MASK]"]} if name == "bert-mask" else {"text": ["a"]}
    if name == "bert-answers":
        inputs = {"question": ["Who?"], "context": ["Ada."]}
    required = [tensor["name"] for tensor in metadata["inputs"] if "parameters" not in tensor]
    assert required == list(inputs)
    ids = ids_of(one, list(zip(*inputs.values(), strict=True)) if len(inputs) > 1 else inputs["text"])
    assert set(ids) <= {tensor["name"] for tensor in metadata["inputs"]}
    described = {tensor["name"]: tensor for tensor in metadata["outputs"]}
    for found in (infer(one, inputs), infer(one, ids)):
        for key, tensor in found.items():
            shape = described[key]["shape"]
            assert len(shape) == tensor.ndim
            assert all(wanted in (-1, size) for wanted, size in zip(shape, tensor.shape, strict=True))
            assert KINDS[described[key]["datatype"]] == tensor.dtype
