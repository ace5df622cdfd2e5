"""Do ids that a client has padded become sequences of their real lengths, and rows per token a tensor again?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.client.texts import Side
from orchestrator.gateway.apis import padded
from orchestrator.gateway.apis.call import Served
from orchestrator.gateway.apis.tensors import Tensor
from orchestrator.gateway.errors import Refusal
from orchestrator.gateway.spec import Limits
from orchestrator.status import ModelStatus

MODEL = ModelStatus(
    id="org/tiny", task="sentence-embedding", architecture="bert", precision="fp32", engine="onnxruntime", max_seqlen=4,
    dimensions=4, digest="d", artefact="a",
)  # fmt: skip
SERVED = Served(MODEL, Limits(batch=3), vocabulary=100)


def tensor(name: str, rows: Any, datatype: str = "INT64") -> Tensor:
    array = np.array(rows, np.int64 if datatype == "INT64" else np.int32)
    return Tensor(name, datatype, array.shape, {}, b"", memoryview(array.tobytes()))


def read(
    ids: Any, mask: Any = None, types: Any = None, cut: Side | None = None, datatype: str = "INT64"
) -> padded.Padded:
    named = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    inputs = {name: tensor(name, rows, datatype) for name, rows in named.items() if rows is not None}
    return padded.padded(inputs, cut, SERVED)


def refusal(*given: Any, cut: Side | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(*given, cut=cut)
    return caught.value


def sequences(found: padded.Padded) -> list[list[int]]:
    tokens = found.tokens
    flat = np.frombuffer(tokens.ids, "<i4").tolist()
    ends = np.cumsum(tokens.lengths).tolist()
    return [flat[end - length : end] for end, length in zip(ends, tokens.lengths, strict=True)]


@pytest.mark.parametrize("datatype", ["INT64", "INT32"])
@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        ([[5, 6, 0, 0], [7, 8, 9, 0]], [[1, 1, 0, 0], [1, 1, 1, 0]]),
        ([[0, 0, 5, 6], [0, 7, 8, 9]], [[0, 0, 1, 1], [0, 1, 1, 1]]),
        ([[0, 5, 6, 0], [7, 8, 9, 0]], [[0, 1, 1, 0], [1, 1, 1, 0]]),
    ],
)
def test_padding_on_either_side_is_taken_away(ids: Any, mask: Any, datatype: str) -> None:
    assert sequences(read(ids, mask, datatype=datatype)) == [[5, 6], [7, 8, 9]]


def test_without_a_mask_every_id_is_read_and_zero_is_an_id() -> None:
    assert sequences(read([[0, 5, 0]])) == [[0, 5, 0]]


def test_the_second_text_is_found_by_its_types_without_counting_padding() -> None:
    found = read([[0, 5, 6, 7], [5, 6, 7, 0], [5, 6, 0, 0]], [[0, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]],
                 [[0, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]])  # fmt: skip
    assert found.splits == [2, 1, 0]
    assert found.tokens.splits == [2, 1, 0]
    assert read([[5, 6]], None, [[0, 0]]).splits is None


@pytest.mark.parametrize(("cut", "kept"), [("right", [[1, 2, 3, 4], [7]]), ("left", [[2, 3, 4, 5], [7]])])
def test_what_is_too_long_is_cut_where_it_may_be_and_only_that(cut: Side, kept: list[list[int]]) -> None:
    ids, mask = [[1, 2, 3, 4, 5], [0, 7, 0, 0, 0]], [[1] * 5, [0, 1, 0, 0, 0]]
    assert sequences(read(ids, mask, cut=cut)) == kept
    assert read(ids, mask, [[0, 0, 1, 1, 1], [0] * 5], cut=cut).splits == [2 if cut == "right" else 1, 0]
    refused = refusal(ids, mask)
    assert (refused.kind, "sequence 0 has 5 tokens, the limit is 4" in refused.message) == ("too_long", True)


def test_padding_does_not_count_for_the_limit() -> None:
    assert sequences(read([[1, 2] + [0] * 20], [[1, 1] + [0] * 20])) == [[1, 2]]


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (([[1, 2]], [[1, 0, 0]]), "unprocessable", "attention_mask: the shape [1, 3], input_ids has [1, 2]"),
        (([[1, 2]], [[1, 2]]), "unprocessable", "other numbers than 0 and 1"),
        (([[1, 2]], [[1, -1]]), "unprocessable", "other numbers than 0 and 1"),
        (([[1], [2]], [[1], [0]]), "unprocessable", "sequence 1 has no token"),
        (([[1, 2, 3]], [[1, 0, 1]]), "unprocessable", "sequence 0 has zeros between ones"),
        (([[1, 2, 3]], None, [[0, 1, 0]]), "unprocessable", "sequence 0 has a 1 before a 0"),
        (([[1, 2, 3]], None, [[1, 1, 1]]), "unprocessable", "sequence 0 has no token of type 0"),
        (([[1, 100]],), "unprocessable", "0 to 99"),
        (([[1, -1]],), "unprocessable", "0 to 99"),
        (([1, 2],), "unprocessable", "expected [sequences, tokens]"),
        (([[]],), "unprocessable", "sequence 0 has no token"),
        ((np.zeros((0, 4)),), "unprocessable", "is empty"),
        (([[1]] * 4,), "batch_too_large", "4 sequences, the limit is 3"),
    ],
    ids=repr,
)
def test_what_the_model_cannot_read_is_refused_by_sequence(given: Any, kind: str, says: str) -> None:
    refused = refusal(*given)
    assert refused.kind == kind
    assert says in refused.message


def test_an_id_that_is_padding_may_be_beyond_the_vocabulary() -> None:
    assert sequences(read([[1, -100]], [[1, 0]])) == [[1]]


def test_rows_per_token_stand_where_their_ids_stood_and_zeros_elsewhere() -> None:
    kept = read([[0, 5, 6], [7, 0, 0]], [[0, 1, 1], [1, 0, 0]]).kept
    rows = [np.array([[1, 2], [3, 4]], np.float32), np.array([[5, 6]], np.float32)]
    assert padded.spread(rows, kept).tolist() == [[[0, 0], [1, 2], [3, 4]], [[5, 6], [0, 0], [0, 0]]]
    assert padded.mask_of([1, 3]).tolist() == [[True, False, False], [True, True, True]]


def test_a_tensor_that_padding_makes_huge_is_refused_before_it_is_made() -> None:
    padded.within_floats(2, 4, padded.MOST_FLOATS // 8, "x")
    with pytest.raises(Refusal, match="send several requests") as caught:
        padded.within_floats(2, 4, padded.MOST_FLOATS // 8 + 1, "x")
    assert caught.value.status == 413
