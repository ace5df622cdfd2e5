"""Which files of a directory make the model? The layout of Hugging Face, and of sentence-transformers on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from orchestrator.models import tokenizer
from orchestrator.models.build import ARCHITECTURE_NAMES
from orchestrator.models.documents import read
from orchestrator.models.errors import ModelError

LIMIT_FILES = ("sentence_bert_config.json", "sentence_distilbert_config.json")
CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
"""What becomes of an image before a model reads it."""
SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
GRAPHS = ("onnx/model.onnx", "model.onnx")
"""Where an ONNX file of a whole model lies, by the conventions of the hub."""


class Module(msgspec.Struct, frozen=True):
    """One entry of modules.json."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """The class: the package around it changed between releases."""
        return self.type.rsplit(".", 1)[-1]


class Found(msgspec.Struct, frozen=True):
    """The weights of a directory, in the form that will be used."""

    form: Literal["safetensors", "pickled", "onnx"]
    files: list[Path]
    """Of `onnx` the graph first, then the files beside it that may hold its weights."""


class ShardIndex(msgspec.Struct, frozen=True):
    """model.safetensors.index.json"""

    weight_map: dict[str, str]


def modules_of(directory: Path) -> list[Module]:
    """The steps of modules.json, none where there is no such file. ModelError if one lies outside the directory."""
    path = directory / "modules.json"
    if not path.is_file():
        return []
    modules = read(path, list[Module], "the list of modules")
    for module in modules:
        if Path(module.path).is_absolute() or ".." in Path(module.path).parts:
            raise ModelError(
                "cannot use the list of modules",
                where=str(path),
                why=f"path {module.path!r} leads out of the directory",
                remedy="download the model again",
            )
    return modules


class SentenceTransformersConfig(msgspec.Struct, frozen=True):
    """config_sentence_transformers.json"""

    model_type: str | None = None


def embeds_texts(directory: Path) -> bool:
    """Whether sentence-transformers made the directory for a vector per text. A CrossEncoder has modules as well, since its release 6."""
    path = directory / "config_sentence_transformers.json"
    if not modules_of(directory):
        return False
    made_for = read(path, SentenceTransformersConfig, "what the model is made for") if path.is_file() else None
    return made_for is None or made_for.model_type != "CrossEncoder"


def encoder_directory(directory: Path) -> Path:
    """Where config.json, the weights and the tokenizer lie: the directory itself, or the folder of its Transformer module."""
    modules = modules_of(directory)
    return directory / modules[0].path if modules and modules[0].kind == "Transformer" else directory


def weight_files(directory: Path) -> list[Path]:
    """The safetensors of a directory: one file, or the shards that the index names, in order. ModelError if there is none."""
    single = directory / SAFETENSORS
    if single.is_file():
        return [single]
    index = directory / SAFETENSORS_INDEX
    if index.is_file():
        shards = sorted(set(read(index, ShardIndex, "the index of the weights").weight_map.values()))
        for shard in shards:
            if shard != Path(shard).name or not shard.endswith(".safetensors"):
                raise ModelError(
                    "cannot use the index of the weights",
                    where=str(index),
                    why=f"{shard!r} is not the name of a safetensors file in the same directory",
                    remedy="download the model again",
                )
            if not (directory / shard).is_file():
                raise ModelError(
                    "the weights are incomplete",
                    where=str(index),
                    why=f"it names {shard}, and there is no such file",
                    remedy="download the model again",
                )
        if shards:
            return [directory / shard for shard in shards]
    others = sorted(path.name for path in directory.glob("*.bin")) + (
        ["onnx/"] if (directory / "onnx").is_dir() else []
    )
    raise ModelError(
        "no weights",
        where=str(directory),
        why="there is no model.safetensors" + (f" (found {', '.join(others)})" if others else ""),
        remedy="weights must be in the safetensors format: convert them (save_pretrained of transformers writes it), or name a "
        "model that has them",
    )


def weights_of(directory: Path, graph: str | None = None) -> Found:
    """Which weights serve a model, best first: safetensors of an architecture that is built here; an ONNX file; other safetensors;
    a pickle. `graph` names an ONNX file in the directory that was asked for. ModelError if there is nothing.
    """
    if graph is not None:
        return Found("onnx", _with_data(directory / graph))
    home = encoder_directory(directory)
    safetensors = (home / SAFETENSORS).is_file() or (home / SAFETENSORS_INDEX).is_file()
    lying = graph_in(directory)
    if lying is not None and not (safetensors and _is_built(home)):
        return Found("onnx", _with_data(lying))
    if not safetensors:
        pickled = _pickles(home)
        if pickled:
            return Found("pickled", pickled)
    return Found("safetensors", weight_files(home))


def graph_in(directory: Path) -> Path | None:
    """The ONNX file of a directory, where it has one."""
    home = encoder_directory(directory)
    places = (*(home / name for name in GRAPHS), directory / GRAPHS[0])
    return next((place for place in places if place.is_file()), None)


def _is_built(home: Path) -> bool:
    path = home / CONFIG
    if not path.is_file():
        return False
    return read(path, dict[str, Any], "the configuration").get("model_type") in ARCHITECTURE_NAMES


def _with_data(graph: Path) -> list[Path]:
    """An ONNX file and those beside it that hold tensors of it, by the names that exporters give them."""
    if not graph.is_file():
        raise ModelError(
            "cannot read the graph", where=str(graph), why="there is no such file", remedy="name an ONNX file"
        )
    beside = sorted(
        path
        for path in graph.parent.iterdir()
        if path != graph and path.is_file() and (path.name.startswith(graph.name) or path.suffix == ".data")
    )
    return [graph, *beside]


def _pickles(home: Path) -> list[Path]:
    if (home / PICKLED).is_file():
        return [home / PICKLED]
    if not (home / PICKLED_INDEX).is_file():
        return []
    shards = set(read(home / PICKLED_INDEX, ShardIndex, "the index of the weights").weight_map.values())
    return [home / shard for shard in sorted(shards) if shard == Path(shard).name and (home / shard).is_file()]


def source_files(directory: Path, graph: str | None = None) -> list[Path]:
    """Every file that the artefact is made from, in a fixed order; ModelError where configuration or weights are missing.

    What is read is what is listed: a README that changes does not make another model. `graph` as in `weights_of`: with it, the
    configuration may be missing.
    """
    modules = modules_of(directory)
    home = encoder_directory(directory)
    if (home / CONFIG).is_file():
        files = [home / CONFIG]
    elif graph is not None:
        files = []
    else:
        raise ModelError(
            "this is no model directory",
            where=str(home),
            why=f"there is no {CONFIG}",
            remedy="name the directory that holds it, or download the model again",
        )
    files += weights_of(directory, graph).files
    optional = [directory / "modules.json", directory / "config_sentence_transformers.json"]
    optional += [home / SAFETENSORS_INDEX, home / PICKLED_INDEX, home / PREPROCESSOR]
    optional += [home / name for name in (*LIMIT_FILES, *tokenizer.FILES)]
    for module in modules[1:]:
        optional += [directory / module.path / "config.json", directory / module.path / SAFETENSORS]
    for path in optional:
        if path not in files and path.is_file():
            files.append(path)
    return files
