"""What do the protocols make of the tasks: text-embeddings-inference, Jina, and bodies that fit no task?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from orchestrator.client.link import Answered
from orchestrator.client.texts import TextTooLong, Tokens
from orchestrator.gateway.apis import huggingface, jina, openai, tei
from orchestrator.gateway.apis.call import Parse
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.spec import Limits
from orchestrator.models import ModelError, prepare
from workers.wire import RequestId

Model = Callable[..., Any]
QUERY = "How old is it?"
TEXTS = ["It rained.", "It is nine years old.", "old", "A goal!"]


def pipeline_score(model: Any, query: str, text: str) -> float:
    """What transformers.pipeline's shape gives for the pair (compared with the real one in test_pipelines.py)."""
    (one,) = model.post({"inputs": {"text": query, "text_pair": text}, "parameters": {"top_k": None}})
    return float(one["score"])


def scores_of(answer: list[dict[str, Any]]) -> dict[str, float]:
    return {one["label"]: one["score"] for one in answer}


def test_rerank_of_text_embeddings_inference_sorts_by_the_score_of_each_pair(model: Model) -> None:
    ranker = model("bert-relevance")
    ranks = ranker.post({"query": QUERY, "texts": TEXTS}, tei.rerank)
    expected = {index: pipeline_score(ranker, QUERY, text) for index, text in enumerate(TEXTS)}
    assert [one["index"] for one in ranks] == sorted(expected, key=expected.__getitem__, reverse=True)
    assert {one["index"]: one["score"] for one in ranks} == pytest.approx(expected, abs=1e-5)
    assert all(set(one) == {"index", "score"} for one in ranks)


def test_raw_scores_are_logits_and_return_text_brings_the_text(model: Model) -> None:
    ranker = model("bert-relevance")
    body = {"query": QUERY, "texts": TEXTS}
    sure = ranker.post(body, tei.rerank)
    raw = ranker.post({**body, "raw_scores": True, "return_text": True}, tei.rerank)
    assert [one["text"] for one in raw] == [TEXTS[one["index"]] for one in sure]
    for logit, score in zip(raw, sure, strict=True):
        assert 1 / (1 + math.exp(-logit["score"])) == pytest.approx(score["score"], abs=1e-6)


def test_v1_rerank_gives_the_top_documents_with_their_relevance(model: Model) -> None:
    ranker = model("bert-relevance")
    documents: list[Any] = [TEXTS[0], {"text": TEXTS[1]}, *TEXTS[2:]]
    answer = ranker.post(
        {"model": "any", "query": QUERY, "documents": documents, "top_n": 2, "return_documents": True}, jina.rerank
    )
    best = ranker.post({"query": QUERY, "texts": TEXTS}, tei.rerank)[:2]
    assert [one["index"] for one in answer["results"]] == [one["index"] for one in best]
    assert [one["relevance_score"] for one in answer["results"]] == [one["score"] for one in best]
    assert [one["document"]["text"] for one in answer["results"]] == [TEXTS[one["index"]] for one in best]
    assert answer["usage"]["total_tokens"] > 4 * 3


def test_the_second_text_of_a_pair_is_told_by_its_token_types(model: Model) -> None:
    """Swapping the texts changes the score, and so does leaving the types out: the wire's split is what tells them apart."""
    ranker = model("bert-relevance")
    call = tei.rerank(json.dumps({"query": QUERY, "texts": ["It rained."]}).encode(), ranker.served)
    tokens = call.encode(ranker.encoder)
    ids = np.frombuffer(tokens.ids, np.int32).tolist()
    separator = ranker.encoder.tokenizer.token_to_id("[SEP]")
    assert tokens.splits == [ids.index(separator) + 1]
    with_types = ranker._infer(tokens).matrix()[0, 0]
    without = ranker._infer(Tokens(tokens.lengths, tokens.ids)).matrix()[0, 0]
    assert abs(with_types - without) > 1e-3


def test_predict_of_text_embeddings_inference_gives_all_labels_and_takes_two_strings_as_a_pair(model: Model) -> None:
    classes = model("bert-classes")
    all_labels = classes.post({"inputs": "rain", "parameters": {"top_k": None}})
    assert classes.post({"inputs": "rain", "raw_scores": False}) == all_labels
    assert scores_of(classes.post({"inputs": [["rain"], ["snow"]]})[0]) == pytest.approx(scores_of(all_labels))
    pair = classes.post({"inputs": {"text": "rain", "text_pair": "snow"}, "parameters": {"top_k": None}})
    assert scores_of(pair) != pytest.approx(scores_of(all_labels))
    assert classes.post({"inputs": ["rain", "snow"], "truncate": True}) == pair
    assert classes.post({"inputs": [["rain", "snow"]]}) == [pair]
    two = classes.post({"inputs": ["rain", "snow"]})
    assert [set(one) for one in two] == [{"label", "score"}] * 2


def test_raw_scores_of_a_classifier_are_its_logits(model: Model) -> None:
    classes = model("bert-classes")
    raw = classes.post({"inputs": "rain", "raw_scores": True})
    assert raw == classes.post({"inputs": "rain", "parameters": {"function_to_apply": "none", "top_k": None}})
    assert sum(one["score"] for one in raw) != pytest.approx(1)


def test_info_names_the_task_and_its_labels(model: Model) -> None:
    assert json.loads(tei.info(model("bert-relevance").served))["model_type"] == {
        "reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    }
    info = json.loads(tei.info(model("bert-classes").served))
    assert info["task"] == "text-classification"
    assert info["model_type"]["classifier"]["id2label"] == {"0": "poor", "1": "fair", "2": "good"}
    assert json.loads(tei.info(model("bert-mask").served))["model_type"] == {"fill-mask": {}}


@pytest.mark.parametrize(
    ("name", "parse", "body", "words"),
    [
        ("bert-classes", tei.rerank, {"query": "a", "texts": ["b"]}, ["task is text-classification", "ranks nothing"]),
        ("bert-mask", jina.rerank, {"query": "a", "documents": ["b"]}, ["task is fill-mask"]),
        ("bert-classes", tei.embed, {"inputs": "a"}, ["task is text-classification", "/predict"]),
        ("bert-relevance", openai.embeddings, {"input": "a"}, ["task is reranking", "/predict"]),
    ],
)
def test_a_route_for_another_task_is_refused_and_names_the_models_own(
    model: Model, name: str, parse: Parse, body: Any, words: list[str]
) -> None:
    with pytest.raises(Refusal) as refused:
        model(name).post(body, parse)
    assert refused.value.status == 422
    assert all(word in refused.value.message for word in words), refused.value.message


@pytest.mark.parametrize(
    ("name", "body", "status", "words"),
    [
        ("bert-classes", {"inputs": []}, 422, "inputs: is empty"),
        ("bert-classes", {"inputs": 5}, 400, "$.inputs"),
        ("bert-classes", {"inputs": [1, 2]}, 400, "$.inputs[0]"),
        ("bert-classes", {"inputs": "a", "parameters": {"topk": 2}}, 400, "topk"),
        ("bert-classes", {"inputs": "a", "parameters": {"top_k": 0}}, 422, "top_k: 0"),
        ("bert-classes", {"inputs": "a", "parameters": {"function_to_apply": "relu"}}, 422, "'relu' is unknown"),
        ("bert-classes", {"inputs": [["a", "b", "c"]]}, 422, "3 texts together"),
        ("bert-classes", {"inputs": "a", "raw_scores": True, "parameters": {}}, 422, "raw_scores"),
        ("bert-classes", {"inputs": "a", "parameters": {"candidate_labels": ["x"]}}, 422, "entailment"),
        ("bert-entailment", {"inputs": "a", "parameters": {"candidate_labels": []}}, 422, "candidate_labels: is empty"),
        (
            "bert-entailment",
            {"inputs": "a", "parameters": {"candidate_labels": "x", "hypothesis_template": "It is {0.__class__}"}},
            422,
            "hypothesis_template",
        ),
        (
            "bert-entailment",
            {"inputs": "a", "parameters": {"candidate_labels": "x", "hypothesis_template": "{:>999999999}{}"}},
            422,
            "hypothesis_template",
        ),
        (
            "bert-entailment",
            {"inputs": [{"text": "a"}], "parameters": {"candidate_labels": "x"}},
            422,
            "a text or a list of texts",
        ),
        ("bert-entities", {"inputs": "a", "parameters": {"aggregation_strategy": "best"}}, 400, "aggregation_strategy"),
        ("bert-entities", {"inputs": "a", "parameters": {"stride": 4}}, 422, "stride"),
        *(
            (
                "bert-entities",
                {"inputs": "a", "parameters": {"stride": stride, "aggregation_strategy": "simple"}},
                422,
                "expected 0 to 47",
            )
            for stride in (-1, 48, 10**20)
        ),
        (
            "bert-entities",
            {"inputs": "a " * 90, "parameters": {"stride": 46, "aggregation_strategy": "simple"}},
            422,
            "leave no room",
        ),
        ("bert-mask", {"inputs": "no mask here"}, 422, "inputs[0]: has no mask, write [MASK]"),
        ("bert-mask", {"inputs": "[MASK]", "parameters": {"targets": []}}, 422, "targets"),
        ("bert-mask", {"inputs": "[MASK]", "parameters": {"top_k": 0}}, 422, "top_k"),
        ("bert-answers", {"inputs": "Who?"}, 400, "$.inputs"),
        ("bert-answers", {"inputs": {"question": "Who?", "context": ""}}, 422, "inputs[0].context: is empty"),
        ("bert-answers", {"inputs": []}, 422, "inputs: is empty"),
        (
            "bert-answers",
            {"inputs": {"question": "Who?", "context": "a b"}, "parameters": {"max_seq_len": 49}},
            422,
            "max_seq_len: 49, this model takes 1 to 48",
        ),
        (
            "bert-answers",
            {"inputs": {"question": "who " * 60, "context": "Ada"}},
            422,
            "leave no room",
        ),
    ],
)
def test_a_body_that_fits_the_task_not_is_refused_with_its_field(
    model: Model, name: str, body: Any, status: int, words: str
) -> None:
    with pytest.raises(Refusal) as refused:
        model(name).post(body)
    assert refused.value.status == status
    assert words in refused.value.message, refused.value.message


def test_a_text_that_is_too_long_is_refused_unless_the_request_lets_it_be_cut(model: Model) -> None:
    classes = model("bert-classes")
    pair = {"text": "word " * 40, "text_pair": "other " * 40}
    with pytest.raises(TextTooLong, match="the limit is 48"):
        classes.post({"inputs": pair})
    assert classes.post({"inputs": pair, "parameters": {"truncation": True}})["label"] in ("poor", "fair", "good")
    for name, body in (("bert-entities", "word " * 60), ("bert-mask", "[MASK] " + "word " * 60)):
        with pytest.raises(TextTooLong, match="the limit is 48"):
            model(name).post({"inputs": body})
        assert model(name).post({"inputs": body, "parameters": {"truncate": True}}) is not None


def test_more_sequences_than_the_batch_limit_are_refused_with_413(model: Model) -> None:
    few = Limits(batch=3)
    bodies = {
        "bert-classes": {"inputs": ["a", "b", "c", "d"]},
        "bert-entailment": {"inputs": ["a", "b"], "parameters": {"candidate_labels": ["x", "y"]}},
        "bert-mask": {"inputs": ["[MASK] [MASK]", "[MASK] [MASK]"]},
        "bert-answers": {"inputs": {"question": "Who?", "context": "word " * 200}},
    }
    for name, body in bodies.items():
        with pytest.raises(Refusal) as refused:
            model(name, limits=few).post(body)
        assert refused.value.kind == "batch_too_large"
        assert "the limit is 3" in refused.value.message


def test_a_masked_text_brings_back_one_row_of_the_vocabulary_per_mask_and_not_one_per_token(model: Model) -> None:
    masks = model("bert-mask")
    masks.post({"inputs": ["The river rose in the [MASK].", "It is a [MASK] and a [MASK]."]})
    assert masks.shapes[-1] == (3, 6000)


def test_answers_that_are_not_finite_are_refused_and_never_shown(model: Model) -> None:
    for name, body in (("bert-classes", {"inputs": "a"}), ("bert-entities", {"inputs": "a"})):
        one = model(name)
        call = huggingface_call(one, body)
        tokens = one.encoder.encode(call.texts) if call.texts is not None else call.encode(one.encoder)
        width, per_token = one.prepared.artefact.width, one.prepared.artefact.per_token
        count = width * (sum(tokens.lengths) if per_token else 1)
        row = np.full(count, np.nan, np.float32).tobytes()
        answer = Answered(RequestId(1), [memoryview(row)], width, per_token, [], None)
        with pytest.raises(Refusal, match="not finite"):
            call.render(answer, tokens)


def huggingface_call(model: Any, body: Any) -> Any:
    return huggingface.predict(json.dumps(body).encode(), model.served)


def test_zero_shot_can_be_the_task_itself_and_then_wants_labels(model: Model) -> None:
    judge = model("bert-entailment", task="zero-shot-classification")
    assert judge.served.model.task == "zero-shot-classification"
    with pytest.raises(Refusal, match="candidate_labels: is empty"):
        judge.post({"inputs": "rain"})
    labels = {"candidate_labels": ["weather", "sport"]}
    assert judge.post({"inputs": "rain", "parameters": labels})["sequence"] == "rain"


def test_a_cross_encoder_as_sentence_transformers_saves_it_is_a_ranker(
    model: Model, tiny_tasks: ModuleType, tmp_path: Path
) -> None:
    """Since release 6 it has a modules.json, with a Transformer in it and nothing else."""
    directory = tiny_tasks.write(tmp_path / "model", "bert-relevance")
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    (directory / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": kind}]))
    settings = {"model_type": "CrossEncoder", "activation_fn": "torch.nn.modules.activation.Sigmoid"}
    path = directory / "config_sentence_transformers.json"
    path.write_text(json.dumps({**settings, "default_prompt_name": None, "prompts": {}}))
    prepared = prepare(str(directory), cache=tmp_path / "cache")
    assert prepared.status.task == "reranking"
    assert prepared.status.head == model("bert-relevance").prepared.status.head
    path.write_text(json.dumps({**settings, "default_prompt_name": "query", "prompts": {"query": "Find: "}}))
    with pytest.raises(ModelError, match="default prompts are not supported"):
        prepare(str(directory), cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["top_k", "max_answer_len"])
def test_more_answers_or_longer_ones_than_there_can_be_are_all_that_there_are(model: Model, name: str) -> None:
    asked = {"inputs": {"question": "Who?", "context": "Ada Lovelace met Charles Babbage."}}
    answers = [model("bert-answers").post({**asked, "parameters": {name: most}}) for most in (1000, 10**30)]
    assert answers[0] == answers[1]
