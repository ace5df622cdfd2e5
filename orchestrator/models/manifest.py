"""What does an artefact say of itself: where it came from, what it is, how it was made and proven?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from orchestrator.models.digest import SourceFile
from orchestrator.models.variants import Accuracy
from orchestrator.status import HeadStatus, ImageStatus

FORMAT = 1
"""Of manifest.json. Another number is another cache entry's business: such an artefact is made anew."""

MANIFEST = "manifest.json"
GRAPH = "model.onnx"
DATA = "model.onnx.data"
TOKENIZER = "tokenizer.json"


class Verification(msgspec.Struct, frozen=True):
    """What the engine gave for a batch of random ids, against an independent computation in numpy from the same weights."""

    sequences: int
    tokens: int
    largest_difference: float
    """Between the engine's rows and numpy's, relative to the largest float of the row; the largest over all floats."""
    smallest_cosine: float
    padding_difference: float
    """Between a row computed in a ragged batch and the same row computed alone, relative likewise."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    builder: int
    id: str
    """What was asked for: a hub id, a path, or `synthetic:…`."""
    digest: str
    """sha256 over names and contents of the source files."""
    sources: list[SourceFile]
    task: str
    architecture: str
    precision: Literal["fp32", "bf16", "int8"]
    engine: Literal["onnxruntime", "openvino"]
    parent: str | None = None
    """The folder of the fp32 artefact that this one was made from."""
    accuracy: Accuracy | None = None
    """Against the parent."""
    opset: int
    tools: dict[str, str]
    """Versions of what made it."""
    cpu_features: list[str]
    """Of the machine it was made and verified on. An fp32 graph depends on none of them."""
    dimensions: int
    vocab_size: int
    positions: int
    """The longest sequence the graph can take."""
    own_max_seqlen: int
    """The longest text the model is meant for, special tokens included."""
    special_tokens: int
    pad_id: int
    per_token: bool
    token_types: bool = False
    head: HeadStatus | None = None
    """Of a task that has a head behind the encoder."""
    image: ImageStatus | None = None
    """Of a model of images: what becomes of one before the model reads it."""
    steps: list[str]
    """What follows the encoder, for people: `mean`, `normalise`."""
    files: list[SourceFile]
    """Of the artefact itself, but for this manifest."""
    verification: Verification
    created: str
    """UTC, ISO 8601."""
    build_seconds: float


def encode(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(data: bytes) -> Manifest:
    """msgspec.DecodeError if it is no manifest."""
    return msgspec.json.decode(data, type=Manifest)


def steps_for_people(manifest: Manifest) -> str:
    return " → ".join(["per token", *manifest.steps] if manifest.per_token else manifest.steps)


def path_of(folder: Path) -> Path:
    return folder / MANIFEST
