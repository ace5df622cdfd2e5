"""Which files of a directory make the model? The layout of Hugging Face, and of sentence-transformers on top of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from orchestrator.models import tokenizer
from orchestrator.models.documents import read
from orchestrator.models.errors import ModelError

LIMIT_FILES = ("sentence_bert_config.json", "sentence_distilbert_config.json")
CONFIG = "config.json"
SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"


class Module(msgspec.Struct, frozen=True):
    """One entry of modules.json."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """The class: the package around it changed between releases."""
        return self.type.rsplit(".", 1)[-1]


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


def source_files(directory: Path) -> list[Path]:
    """Every file that the artefact is made from, in a fixed order; ModelError where configuration or weights are missing.

    What is read is what is listed: a README that changes does not make another model.
    """
    modules = modules_of(directory)
    home = encoder_directory(directory)
    if not (home / CONFIG).is_file():
        raise ModelError(
            "this is no model directory",
            where=str(home),
            why=f"there is no {CONFIG}",
            remedy="name the directory that holds it, or download the model again",
        )
    files = [home / CONFIG, *weight_files(home)]
    optional = [directory / "modules.json", directory / "config_sentence_transformers.json", home / SAFETENSORS_INDEX]
    optional += [home / name for name in (*LIMIT_FILES, *tokenizer.FILES)]
    for module in modules[1:]:
        optional += [directory / module.path / "config.json", directory / module.path / SAFETENSORS]
    for path in optional:
        if path not in files and path.is_file():
            files.append(path)
    return files
