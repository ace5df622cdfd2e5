"""What is known of each form that a model can be served in: its size, its speed, how far its answers are from fp32's? Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from workers.spec import Artefact

STUDY_VERSION = 7
"""Part of the name of every study: count it up whenever a variant is made or measured differently."""

Precision = Literal["fp32", "bf16", "int8"]
Engine = Literal["onnxruntime", "openvino"]

LENGTHS = (16, 128, 384)
"""Tokens of the single texts that every variant is timed with."""

MIN_COSINE = 0.99
MOST_FLIPS = 0.005
"""The default bar: mean cosine to fp32, and the share of answers whose label changes."""


class Accuracy(msgspec.Struct, frozen=True):
    """Against the fp32 graph on onnxruntime, each text alone, on texts that were not calibrated on."""

    texts: int
    mean_cosine: float
    min_cosine: float
    """Over rows: one per text, or one per token where the model answers so."""
    rank_correlation: float | None
    """Spearman's, of the similarities of all pairs of texts, or of the scores where a row is one score. None: neither."""
    label_flips: float | None
    """Share of answers whose label is another, 0 to 1. None where answers are no labels."""
    largest_difference: float
    """Of a single float, relative to the largest float of its row in fp32."""
    mean_cosine_in_batches: float
    """The same as mean_cosine, in ragged batches of eight."""
    batch_difference: float
    """Between a text in a ragged batch and the same text alone, in this variant; relative likewise."""

    @property
    def changes_with_batch(self) -> bool:
        return self.batch_difference > 1e-3

    def shortfall(self, min_cosine: float) -> str | None:
        """Why this is not good enough; None if it is."""
        if not self.mean_cosine >= min_cosine:
            return f"mean cosine {self.mean_cosine:.4f} is under {min_cosine:g}"
        if not self.mean_cosine_in_batches >= min_cosine:
            return f"mean cosine {self.mean_cosine_in_batches:.4f} in ragged batches is under {min_cosine:g}"
        if self.label_flips is not None and not self.label_flips <= MOST_FLIPS:
            return f"{self.label_flips:.1%} of labels flip, allowed are {MOST_FLIPS:.1%}"
        return None


class Timing(msgspec.Struct, frozen=True):
    """One text of so many tokens on one thread, after a text of another length."""

    tokens: int
    milliseconds: float
    """CPU time of the process, median."""


class Variant(msgspec.Struct, frozen=True):
    precision: Precision
    engine: Engine
    graph: str
    """The ONNX file, relative to the cache."""
    bytes: int
    """Of graph and weights."""
    timings: list[Timing] = []
    accuracy: Accuracy | None = None
    """None: this is what the others are compared with."""
    problem: str | None = None
    """Why it cannot be used here."""

    @property
    def name(self) -> str:
        return f"{self.precision} on {self.engine}"

    def tokens_per_second(self) -> float:
        return max((1000 * one.tokens / one.milliseconds for one in self.timings), default=0.0)

    def milliseconds(self, tokens: int) -> float | None:
        return next((one.milliseconds for one in self.timings if one.tokens == tokens), None)

    def artefact(self, base: Artefact, root: str) -> Artefact:
        """What a worker loads: the fp32 artefact with this graph, engine and precision."""
        return msgspec.structs.replace(base, path=f"{root}/{self.graph}", engine=self.engine, precision=self.precision)


class Study(msgspec.Struct, frozen=True):
    """All variants of one model on one kind of CPU, fp32 on onnxruntime first."""

    version: int
    model: str
    cpu_features: list[str]
    tools: dict[str, str]
    calibration: str
    """sha256 of the calibration texts."""
    variants: list[Variant]
    seconds: float


class Task(msgspec.Struct, frozen=True):
    """What the process is told that makes a study."""

    cache: str
    base: str
    """The folder of the fp32 artefact, within the cache."""
    artefact: Artefact
    own_max_seqlen: int
    wanted: list[tuple[Precision, Engine]]
    """Beside fp32 on onnxruntime."""
    calibration: list[str] | None
    """None: the texts that come with the program."""
    tools: dict[str, str]
    """Versions of the engines that are installed."""


def encode(study: Study) -> bytes:
    return msgspec.json.format(msgspec.json.encode(study), indent=2) + b"\n"


def decode(data: bytes) -> Study:
    """msgspec.DecodeError if it is no study."""
    return msgspec.json.decode(data, type=Study)
