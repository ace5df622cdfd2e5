"""Is the chosen variant the fastest that is accurate, and is it said why?"""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.models.choose import NoVariantError, Wish, choose, why_not
from orchestrator.models.variants import Accuracy, Study, Timing, Variant

CLOSE = Accuracy(
    texts=50, mean_cosine=0.998, min_cosine=0.99, rank_correlation=0.997, label_flips=None, largest_difference=0.1,
    mean_cosine_in_batches=0.9975, batch_difference=0.1,
)  # fmt: skip
EXACT = msgspec.structs.replace(CLOSE, mean_cosine=0.99999, min_cosine=0.9999, mean_cosine_in_batches=0.99999)


def variant(precision: str, engine: str, times: tuple[float, float, float], accuracy: Accuracy | None) -> Variant:
    timings = [Timing(tokens, time) for tokens, time in zip((16, 128, 384), times, strict=True)]
    return Variant(precision, engine, f"{precision}-{engine}/model.onnx", 1, timings, accuracy)  # type: ignore[arg-type]


FP32 = variant("fp32", "onnxruntime", (3.0, 22.0, 72.0), None)
INT8 = variant("int8", "onnxruntime", (1.0, 6.3, 29.0), CLOSE)
BF16 = variant("bf16", "openvino", (1.5, 6.0, 21.0), EXACT)


def study(*variants: Variant) -> Study:
    return Study(1, "org/tiny", [], {}, "", list(variants), 0.0)


ALL = study(FP32, INT8, BF16)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(1, 32, "int8"), (33, 200, "bf16"), (129, 512, "bf16"), (1, 8, "int8"), (600, 900, "bf16")],
)
def test_each_range_of_lengths_gets_the_fastest_by_the_times_measured_there(low: int, high: int, expected: str) -> None:
    assert choose(ALL, Wish(), low, high).variant.precision == expected


def test_between_two_measured_lengths_the_time_in_the_middle_of_the_range_decides() -> None:
    """At 128 tokens int8 is the faster by a tenth, at 384 bf16 by a third: they meet near 170."""
    bf16 = variant("bf16", "openvino", (2.5, 7.0, 21.0), EXACT)
    both = study(FP32, INT8, bf16)
    assert choose(both, Wish(), 100, 130).variant.precision == "int8"
    assert choose(both, Wish(), 129, 145).variant.precision == "int8"
    assert choose(both, Wish(), 129, 256).variant.precision == "bf16"
    assert choose(both, Wish(), 300, 380).variant.precision == "bf16"
    twice = choose(study(FP32, variant("int8", "onnxruntime", (1.0, 8.0, 72.0), CLOSE)), Wish(), 192, 256)
    # From 128 to 384 tokens 8 becomes 72: with the square of the length. √(192 · 256) is 221.7 tokens, 24 ms; fp32's 22 become 39.8.
    assert "1.7 × as fast" in twice.reason


def test_of_two_that_are_as_fast_the_more_exact_one_is_taken() -> None:
    assert (
        choose(
            study(FP32, INT8, variant("bf16", "openvino", (1.07, 6.3, 29.0), EXACT)), Wish(), 1, 32
        ).variant.precision
        == "bf16"
    )
    assert (
        choose(
            study(FP32, INT8, variant("bf16", "openvino", (1.09, 6.3, 29.0), EXACT)), Wish(), 1, 32
        ).variant.precision
        == "int8"
    )
    assert (
        choose(study(FP32, variant("int8", "onnxruntime", (2.9, 21.5, 70.0), CLOSE)), Wish(), 1, 512).variant.name
        == FP32.name
    )


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ({"mean_cosine": 0.98}, "mean cosine 0.9800 is under 0.99"),
        ({"mean_cosine": float("nan")}, "is under 0.99"),
        ({"mean_cosine_in_batches": 0.985}, "in ragged batches is under 0.99"),
        ({"label_flips": 0.02}, "2.0% of labels flip, allowed are 0.5%"),
    ],
)
def test_a_variant_under_the_bar_is_never_chosen_by_auto_and_warned_of_by_name(
    harm: dict[str, float], words: str
) -> None:
    bad = variant("int8", "onnxruntime", (0.1, 0.1, 0.1), msgspec.structs.replace(CLOSE, **harm))
    chosen = choose(study(FP32, bad), Wish(), 1, 512)
    assert chosen.variant.name == FP32.name
    assert words in why_not(study(FP32, bad), [FP32], Wish())[bad.name]
    named = choose(study(FP32, bad), Wish(precision="int8"), 1, 512)
    assert named.variant.precision == "int8"
    assert words in named.warnings[0]


def test_the_bar_is_where_the_operator_puts_it() -> None:
    assert choose(ALL, Wish(min_cosine=0.999), 1, 32).variant.precision == "bf16"
    assert choose(ALL, Wish(min_cosine=1.0), 1, 512).variant.name == FP32.name


def test_what_was_asked_for_is_what_is_served_or_it_is_said_why_not() -> None:
    assert choose(ALL, Wish(engine="onnxruntime"), 200, 512).variant.precision == "int8"
    assert choose(ALL, Wish(precision="fp32"), 1, 32).variant.name == FP32.name
    broken = msgspec.structs.replace(BF16, problem="openvino is not installed")
    with pytest.raises(NoVariantError, match="bf16 on openvino: openvino is not installed"):
        choose(study(FP32, broken), Wish(precision="bf16"), 1, 32)
    assert choose(study(FP32, broken), Wish(), 1, 32).variant.name == FP32.name
    with pytest.raises(NoVariantError, match="no int8 on openvino"):
        choose(ALL, Wish(precision="int8", engine="openvino"), 1, 32)


def test_the_reason_names_the_gain_and_the_accuracy() -> None:
    reason = choose(ALL, Wish(), 1, 32).reason
    assert "3.0 × as fast as fp32 on onnxruntime at 1 to 32 tokens" in reason
    assert "mean cosine 0.9980" in reason
    assert "0.9975 in ragged batches" in reason
    assert why_not(ALL, [INT8], Wish()) == {FP32.name: "slower", BF16.name: "slower"}
