"""What are a model's tensors, whatever file they lie in?

Names are without the prefix that a task model puts before its encoder (`bert.`, `distilbert.`), and with `weight` and `bias` where old
checkpoints say `gamma` and `beta`. Everything is handed out as float32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from orchestrator.models.errors import ModelError

ANCHORS = (
    "embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight",
    "embeddings.patch_embeddings.projection.weight",
)  # fmt: skip
"""The tensors by which the prefix is found: every architecture that is built here has one of them."""

_FLOATS = {"F64", "F32", "F16", "BF16"}


class Weights(Protocol):
    def shape(self, name: str) -> tuple[int, ...] | None:
        """None where there is no such tensor."""

    def read(self, name: str) -> np.ndarray:
        """float32, a copy or read-only."""

    def names(self) -> Iterable[str]: ...

    def where(self, name: str) -> str:
        """The file that holds it, or should hold it, for messages."""


def take(weights: Weights, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor, checked: present, of this shape, and without a NaN or an infinity. ModelError otherwise."""
    problem = _misfit(weights, name, shape)
    if problem is not None:
        raise _unusable(weights.where(name), [problem])
    tensor = weights.read(name)
    # min and max carry a NaN or an infinity through without a temporary array of the tensor's size.
    if tensor.size and not (np.isfinite(tensor.min()) and np.isfinite(tensor.max())):
        count = int(tensor.size - np.count_nonzero(np.isfinite(tensor)))
        raise _unusable(weights.where(name), [f"tensor {name} holds {count} values that are NaN or infinite"])
    return tensor


def check(weights: Weights, shapes: Mapping[str, tuple[int, ...]], layer_prefix: str, layers: int) -> None:
    """Every problem of names and shapes at once, before anything is read. ModelError names each tensor (the first ten)."""
    problems = [problem for name, shape in shapes.items() if (problem := _misfit(weights, name, shape))]
    numbered = re.compile(re.escape(layer_prefix) + r"(\d+)\.")
    beyond = {int(found[1]) for name in weights.names() if (found := numbered.match(name)) and int(found[1]) >= layers}
    if beyond:
        problems.append(f"there are tensors of layer {max(beyond)}, config.json says {layers} layers")
    if problems:
        raise _unusable(weights.where(next(iter(shapes))), problems)


def _misfit(weights: Weights, name: str, shape: tuple[int, ...]) -> str | None:
    found = weights.shape(name)
    if found is None:
        return f"tensor {name} {list(shape)} is missing"
    if found != shape:
        return f"tensor {name} has shape {list(found)}, config.json asks for {list(shape)}"
    return None


def _unusable(where: str, problems: list[str]) -> ModelError:
    shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
    return ModelError(
        "cannot use these weights",
        where=where,
        why=shown,
        remedy="download the model again, and check that config.json belongs to these weights",
    )


class Checkpoint:
    """The tensors of one or more safetensors files; mapped, read one at a time."""

    def __init__(self, files: list[Path], *, prefixed: bool = True) -> None:
        self._files: dict[str, Path] = {}
        self._stored: dict[str, str] = {}
        self._open: dict[Path, Any] = {}
        self._first = files[0]
        for path in files:
            self._open[path] = opened = _open(path)
            for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                self._files[name] = path
        prefix = _prefix(self._files, self._first) if prefixed else ""
        for name in self._files:
            if name.startswith(prefix):
                self._stored[_modern(name.removeprefix(prefix))] = name
        for name in self._files:  # those of a task's head stand beside the encoder's
            if not name.startswith(prefix):
                self._stored.setdefault(_modern(name), name)

    def names(self) -> Iterable[str]:
        return self._stored

    def where(self, name: str) -> str:
        stored = self._stored.get(name)
        return str(self._first if stored is None else self._files[stored])

    def shape(self, name: str) -> tuple[int, ...] | None:
        stored = self._stored.get(name)
        return None if stored is None else tuple(self._slice(stored).get_shape())

    def read(self, name: str) -> np.ndarray:
        stored = self._stored[name]
        kind = self._slice(stored).get_dtype()
        if kind not in _FLOATS:
            raise _unusable(self.where(name), [f"tensor {name} is of type {kind}, expected one of {sorted(_FLOATS)}"])
        if kind == "BF16":
            import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy; a dependency of onnx
        tensor: np.ndarray = self._open[self._files[stored]].get_tensor(stored)
        return tensor.astype(np.float32, copy=False)

    def _slice(self, stored: str) -> Any:
        return self._open[self._files[stored]].get_slice(stored)


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(path), framework="np")
    except SafetensorError as error:
        raise ModelError(
            "cannot read the weights",
            where=str(path),
            why=f"{error} ({path.stat().st_size} bytes: truncated, or no safetensors file)",
            remedy="download the file again",
        ) from None
    except OSError as error:
        raise ModelError(
            "cannot read the weights", where=str(path), why=str(error), remedy="make the file readable"
        ) from None


def _prefix(names: Iterable[str], where: Path) -> str:
    """What stands before the encoder's names. ModelError if there are two encoders in one checkpoint."""
    found = sorted(name.removesuffix(anchor) for name in names for anchor in ANCHORS if name.endswith(anchor))
    if len(found) > 1:
        raise ModelError(
            "cannot use these weights",
            where=str(where),
            why=f"they hold {len(found)} encoders, with the prefixes {found}",
            remedy="name a model with one encoder",
        )
    return found[0] if found else ""


def _modern(name: str) -> str:
    if name.endswith("LayerNorm.gamma"):
        return name.removesuffix("gamma") + "weight"
    if name.endswith("LayerNorm.beta"):
        return name.removesuffix("beta") + "bias"
    return name
