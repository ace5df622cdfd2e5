"""The arithmetic of the tasks where a tiny model does not reach: extremes, ties, answers that are nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from orchestrator.client.link import Answered
from orchestrator.client.texts import TextEncoder, TextTooLong
from orchestrator.gateway.apis import huggingface
from orchestrator.gateway.apis.call import Served
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.spec import Limits
from orchestrator.gateway.tasks import answering, classification, filling, numbers, zero_shot
from orchestrator.models.synthetic import tokenizer_document
from orchestrator.status import HeadStatus, ModelStatus
from workers.wire import RequestId

LIMIT = 16


@pytest.fixture
def encoder(tmp_path: Path) -> TextEncoder:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_document()), encoding="utf-8")
    return TextEncoder(path, LIMIT)


def served(task: str, head: HeadStatus) -> Served:
    model = ModelStatus(
        id="tiny", task=task, architecture="bert", precision="fp32", engine="onnxruntime", max_seqlen=LIMIT, dimensions=2,
        digest="", artefact="", head=head,
    )  # fmt: skip
    return Served(model, Limits(), 6000)


def test_sigmoid_and_softmax_hold_at_both_ends_and_warn_of_nothing() -> None:
    ends = np.array([-1e4, -100, 0, 100, 1e4], np.float32)
    assert numbers.sigmoid(ends).tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)
    assert numbers.softmax(np.array([[1e4, -1e4], [3.0, 3.0]], np.float32)).tolist() == [[1, 0], [0.5, 0.5]]


def test_labels_of_equal_score_keep_the_order_of_their_ids() -> None:
    scores = np.array([0.2, 0.4, 0.2, 0.2], np.float32)
    assert [one["label"] for one in classification.ranked(scores, ["a", "b", "c", "d"], None)] == ["b", "a", "c", "d"]
    assert len(classification.ranked(scores, ["a", "b", "c", "d"], 2)) == 2


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 50])
def test_the_best_of_many_are_those_of_a_full_sort(most: int) -> None:
    scores = np.array([0.1, 0.3, 0.05, 0.3, 0.2, 0.01, 0.02, 0.02], np.float32)
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:most]
    found = filling.best_of(scores, most)
    assert [scores[i] for i in found] == [scores[i] for i in expected]
    assert len(set(found)) == len(found) == min(most, 8)


def test_a_label_against_its_contradiction_needs_no_other_label() -> None:
    logits = np.array([[2.0, 0.0, 1.0], [0.0, 5.0, 3.0]], np.float32)
    alone = zero_shot.scores(logits, 2, multi_label=True)
    assert alone.tolist() == pytest.approx([1 / (1 + np.e), 1 / (1 + np.exp(-3))], abs=1e-6)
    assert zero_shot.scores(logits, 2, multi_label=False).sum() == pytest.approx(1)
    # Entailment first: the contradiction is the last label.
    assert zero_shot.scores(logits[:1], 0, multi_label=False).tolist() == pytest.approx([np.e / (1 + np.e)], abs=1e-6)


def test_no_span_begins_behind_its_end_or_is_too_long_or_lies_in_the_question() -> None:
    logits = np.zeros((6, 2), np.float32)
    logits[1, 0] = logits[5, 1] = 9  # a start in the question, and an end five tokens behind it
    logits[3, 0] = logits[4, 1] = 5
    allowed = np.array([True, False, True, True, True, True])
    starts, ends, scores, _ = answering.spans(logits, allowed, 3, longest=2)
    assert (starts[0], ends[0]) == (3, 4)
    assert all(0 <= end - start < 2 for start, end in zip(starts, ends, strict=True))
    assert 1 not in starts
    assert scores == sorted(scores, reverse=True)


def answers(encoder: TextEncoder, windows: list[tuple[float, float]], **parameters: Any) -> Any:
    """Of a context in several windows, each with a logit for [CLS] and one for all other tokens."""
    body = {
        "inputs": {"question": "ba?", "context": "ba be bi bo bu da de di do du fa fe fi fo fu"},
        "parameters": {"max_seq_len": 12, "doc_stride": 2, **parameters},
    }
    model = served("question-answering", HeadStatus(cls_id=encoder.tokenizer.token_to_id("[CLS]")))
    call = huggingface.predict(json.dumps(body).encode(), model)
    assert call.encode is not None
    tokens = call.encode(encoder)
    assert len(tokens.lengths) == len(windows)
    rows = []
    for length, (cls, other) in zip(tokens.lengths, windows, strict=True):
        matrix = np.full((length, 2), other, np.float32)
        matrix[0] = cls
        rows.append(memoryview(matrix.tobytes()))
    return json.loads(call.render(Answered(RequestId(1), rows, 2, True, [], None), tokens))


def test_no_answer_counts_as_much_as_in_the_window_that_believes_in_it_least(encoder: TextEncoder) -> None:
    sure, doubtful = (20.0, 0.0), (2.0, 0.0)
    windows = [sure, doubtful, sure]
    (nothing,) = [
        one for one in answers(encoder, windows, handle_impossible_answer=True, top_k=100) if one["answer"] == ""
    ][:1]
    tokens_of_context = 7
    share = np.exp(2) / (np.exp(2) + tokens_of_context)
    assert nothing["score"] == pytest.approx(share**2, rel=1e-3)
    assert (nothing["start"], nothing["end"]) == (0, 0)
    best = answers(encoder, [sure] * 3, handle_impossible_answer=True)
    assert best["answer"] == ""
    assert best["score"] == pytest.approx(1, abs=1e-4)


def test_of_a_pair_that_is_too_long_the_longer_text_is_cut_or_only_the_first(encoder: TextEncoder) -> None:
    first, second = "ba be bi bo bu da de di", "fa fe fi fo fu ga ge"
    with pytest.raises(TextTooLong, match="18 tokens, the limit is 16"):
        encoder.encode_pairs([(first, second)])
    whole = encoder.encode_pairs([(first, second)], cut="right")
    only = encoder.encode_pairs([(first, second + " gi go gu ha he")], cut="right", strategy="only_first")
    assert whole.lengths == only.lengths == [LIMIT]
    assert (whole.splits, only.splits) == ([9], [3])
    with pytest.raises(TextTooLong, match="the limit is 16"):
        encoder.encode_pairs([(first, second * 3)], cut="right", strategy="only_first")


def test_a_text_alone_has_no_second_and_a_pair_says_where_it_begins(encoder: TextEncoder) -> None:
    assert encoder.encode_pairs(["ba be"]).splits is None
    assert encoder.encode_pairs(["ba be", ("ba", "be bi")]).splits == [0, 3]


def test_a_huge_text_in_a_pair_is_refused_without_tokenizing_all_of_it(encoder: TextEncoder) -> None:
    with pytest.raises(TextTooLong, match="more than 32 tokens"):
        encoder.encode_pairs([("ba", "ba be " * 100_000)])
    with pytest.raises(TextTooLong, match="more than 32 tokens"):
        encoder.encode_with_offsets(["ba be " * 100_000])


def test_masks_whose_rows_would_not_fit_are_refused_with_how_many_do(encoder: TextEncoder) -> None:
    mask = encoder.tokenizer.token_to_id("[MASK]")
    huge = served("fill-mask", HeadStatus(mask_id=mask, asked_id=6000))
    huge = msgspec.structs.replace(huge, model=msgspec.structs.replace(huge.model, dimensions=filling.MOST_FLOATS // 2))
    body = json.dumps({"inputs": ["[MASK] ba [MASK]", "[MASK]"]}).encode()
    call = huggingface.predict(body, huge)
    assert call.encode is not None
    with pytest.raises(Refusal, match="3 masks, with this vocabulary the limit is 2"):
        call.encode(encoder)


def test_an_artefact_that_says_nothing_of_its_mask_is_our_fault_and_not_the_clients() -> None:
    with pytest.raises(Refusal) as refused:
        huggingface.predict(b'{"inputs": "[MASK]"}', served("fill-mask", HeadStatus()))
    assert refused.value.kind == "internal"
