"""What does a model directory say of itself: architecture, task, pooling, normalisation, longest text?

Reads the files of a Hugging Face directory, and those that sentence-transformers puts beside them:
modules.json (the steps after the encoder), 1_Pooling/config.json, sentence_bert_config.json (the longest text).
Field names of both the older and the newer releases of sentence-transformers are understood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec

from orchestrator.models import images
from orchestrator.models.build import albert, bert, deberta, distilbert, electra, heads, modernbert, mpnet, roberta, vit
from orchestrator.models.build.encoder import Encoder
from orchestrator.models.build.limits import EXPORT, Count
from orchestrator.models.card import card_task
from orchestrator.models.directory import LIMIT_FILES, Module, embeds_texts, encoder_directory, modules_of
from orchestrator.models.documents import convert, parse, read, read_bytes
from orchestrator.models.errors import ModelError, NotBuilt
from orchestrator.models.tasks import KINDS, Task, choose_task, read_head
from orchestrator.models.tokenizer import SpecialTokens
from orchestrator.status import HeadStatus, ImageStatus

ARCHITECTURES: dict[str, Callable[[dict[str, Any], str], Encoder]] = {
    "bert": bert.describe,
    "distilbert": distilbert.describe,
    "roberta": roberta.describe,
    "xlm-roberta": roberta.describe_xlm,
    "camembert": roberta.describe_camembert,
    "albert": albert.describe,
    "electra": electra.describe,
    "mpnet": mpnet.describe,
    "deberta-v2": deberta.describe,
    "modernbert": modernbert.describe,
    "vit": vit.describe,
}
"""By `model_type` of config.json."""

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "lasttoken"]
POOLING_MODES: tuple[PoolingMode, ...] = ("cls", "max", "mean", "mean_sqrt_len_tokens", "lasttoken")
"""In the order in which sentence-transformers concatenates them."""

_OLD_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class Pool(msgspec.Struct, frozen=True, tag="pool"):
    """Token rows → one row; several modes are concatenated."""

    modes: tuple[PoolingMode, ...]


class Project(msgspec.Struct, frozen=True, tag="project"):
    """A dense layer on the pooled row. Its tensors are linear.weight [outputs, inputs] and linear.bias in the directory's safetensors."""

    directory: str
    inputs: int
    outputs: int
    bias: bool
    activation: Literal["identity", "tanh"]


class Normalise(msgspec.Struct, frozen=True, tag="normalise"):
    """To length 1."""


Step = Pool | Project | Normalise


class Settings(msgspec.Struct, frozen=True):
    task: Task
    encoder: Encoder
    steps: tuple[Step, ...]
    """What follows the encoder; none where the answer is a row per token."""
    own_max_seqlen: int
    """The longest text in tokens, special tokens included, that the model is meant for."""
    lowercase: bool
    """Whether texts are lowercased before the tokenizer's own rules."""
    pad_id: int
    head: heads.Head | None = None
    head_status: HeadStatus | None = None
    """Both or none: a task that needs a head behind the encoder."""
    image: ImageStatus | None = None
    """Of a model of images: what becomes of one before the model reads it."""

    @property
    def width(self) -> int:
        """Floats per row of the answer."""
        if self.head is not None:
            return self.head.out.outputs
        width = self.encoder.width
        for step in self.steps:
            if isinstance(step, Pool):
                width *= len(step.modes)
            elif isinstance(step, Project):
                width = step.outputs
        return width

    @property
    def per_token(self) -> bool:
        return not self.steps if self.head is None else self.head.per_token

    @property
    def token_types(self) -> bool:
        """Whether the graph is told which text of a pair a token belongs to."""
        paired = self.head is not None and self.head.pairs
        return paired and self.encoder.types is not None and self.encoder.type_vocab_size > 1


class LimitConfig(msgspec.Struct, frozen=True):
    """sentence_bert_config.json"""

    max_seq_length: Count | None = None
    do_lower_case: bool = False


class DenseConfig(msgspec.Struct, frozen=True):
    in_features: Count
    out_features: Count
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False


class PromptConfig(msgspec.Struct, frozen=True):
    """config_sentence_transformers.json"""

    default_prompt_name: str | None = None
    prompts: dict[str, str] = {}


def read_config(directory: Path) -> tuple[dict[str, Any], Path]:
    """config.json, parsed, and where it lies. ModelError if it is not there or no JSON object."""
    path = encoder_directory(directory) / "config.json"
    return parse(read_bytes(path, "the configuration"), dict[str, Any], path, "the configuration"), path


def read_settings(directory: Path, task: str | None, given: Encoder | None = None) -> Settings:
    """Everything but weights and tokenizer. ModelError names the file and what is supported.

    `given` is the outline of an encoder that is a graph already: its head is in that graph too, and config.json may be missing.
    """
    modules = modules_of(directory)
    home = encoder_directory(directory)
    document: dict[str, Any] = {}
    path = home / "config.json"
    if given is None or path.is_file():
        document, path = read_config(directory)
    chosen = choose_task(task, document, embeds_texts(directory), str(path), card_task(directory))
    encoder = given or read_encoder(document, str(path))
    _images_have_their_own_task(chosen, encoder, str(path))
    limit = _limit(home)
    own = encoder.positions
    if limit.max_seq_length is not None:
        own = min(limit.max_seq_length, encoder.positions)
    head, status = _head(document, chosen, encoder, str(path), given is not None)
    if chosen == "reranking":
        _refuse_default_prompt(directory)
    if chosen != "sentence-embedding":
        steps: tuple[Step, ...] = ()
    elif modules:
        _refuse_default_prompt(directory)
        steps = _steps(directory, modules, encoder.width)
    else:
        steps = (Pool(("mean",)),)  # what sentence-transformers does with a bare encoder
    image = None
    if isinstance(encoder, vit.Vit):
        image = images.read_image(home, encoder.image, encoder.positions)
    return Settings(
        chosen, encoder, steps, own, limit.do_lower_case, _pad_id(document, encoder.vocab_size), head, status, image
    )


def _images_have_their_own_task(task: Task, encoder: Encoder, where: str) -> None:
    if isinstance(encoder, vit.Vit) != (task == "image-classification"):
        raise ModelError(
            f"this model is not for {task}",
            where=where,
            why=f"it is a {encoder.architecture}, and image-classification is for models of images and for nothing else",
            remedy="leave --task out, or name another model; a ViT without a classifier is not served",
        )


def _head(
    document: dict[str, Any], task: Task, encoder: Encoder, where: str, in_graph: bool
) -> tuple[heads.Head | None, HeadStatus | None]:
    kind = KINDS.get(task)
    if kind is None:
        return None, None
    status = read_head(document, task, where)
    outputs = {"span": 2, "mask": encoder.vocab_size}.get(kind, len(status.labels))
    if in_graph:
        return heads.outline(kind, encoder.width, outputs), status
    return heads.describe(document, encoder, kind, outputs, where), status


def with_special_tokens(settings: Settings, special: SpecialTokens, where: str) -> Settings:
    """The settings of a model with a head, with what its task needs of the tokenizer. ModelError where it has no mask to fill."""
    head, status = settings.head, settings.head_status
    if head is None or status is None:
        return settings
    status = msgspec.structs.replace(status, cls_id=special.cls, pad_id=special.pad, unk_id=special.unk)
    if head.kind == "mask":
        if special.mask is None:
            raise ModelError(
                "this tokenizer has no mask token",
                where=where,
                why="neither tokenizer_config.json nor special_tokens_map.json names one that the vocabulary has",
                remedy="use the tokenizer that came with the model, or pass --task feature-extraction",
            )
        head = replace(head, mask_id=special.mask)
        asked = heads.asked_id(settings.encoder)
        status = msgspec.structs.replace(status, mask_id=special.mask, asked_id=asked)
    return msgspec.structs.replace(settings, head=head, head_status=status)


def read_encoder(document: dict[str, Any], where: str) -> Encoder:
    """The encoder of a parsed config.json; ModelError for an architecture that is not built here."""
    kind = document.get("model_type")
    describe = ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    if describe is None:
        raise NotBuilt(
            "this architecture cannot be built",
            where=where,
            why=f"model_type is {kind!r}, supported: {', '.join(ARCHITECTURES)}",
            remedy=f"name a model of one of these, or {EXPORT}",
        )
    return describe(document, where)


def _limit(home: Path) -> LimitConfig:
    for name in LIMIT_FILES:
        if (home / name).is_file():
            return read(home / name, LimitConfig, "the limits of the model")
    return LimitConfig()


def _pad_id(document: dict[str, Any], vocab_size: int) -> int:
    """A valid id to fill up with; which one does not matter to the answer, the mask hides it."""
    pad = document.get("pad_token_id")
    return pad if isinstance(pad, int) and 0 <= pad < vocab_size else 0


def _refuse_default_prompt(directory: Path) -> None:
    path = directory / "config_sentence_transformers.json"
    if not path.is_file():
        return
    config = read(path, PromptConfig, "the settings of sentence-transformers")
    prompt = config.prompts.get(config.default_prompt_name or "", "")
    if prompt:
        raise ModelError(
            "default prompts are not supported",
            where=str(path),
            why=f"it puts {prompt!r} before every text (default_prompt_name is {config.default_prompt_name!r}), and answers without "
            "it would differ",
            remedy="set default_prompt_name to null in that file and put the prompt before the texts in your client",
        )


def _steps(directory: Path, modules: list[Module], width: int) -> tuple[Step, ...]:
    steps: list[Step] = []
    where = str(directory / "modules.json")
    for number, module in enumerate(modules):
        config = directory / module.path / "config.json"
        if number == 0:
            if module.kind != "Transformer":
                _unsupported_module(where, module, "the first is Transformer")
        elif module.kind == "Pooling" and not steps:
            pool = _pooling(config, width)
            width *= len(pool.modes)
            steps.append(pool)
        elif module.kind == "Dense" and steps:
            dense = _dense(config, module.path, width)
            width = dense.outputs
            steps.append(dense)
        elif module.kind == "Normalize" and steps:
            steps.append(Normalise())
        elif module.kind != "Dropout":  # does nothing outside training
            _unsupported_module(where, module, "after Transformer come Pooling, then Dense and Normalize")
    if not steps:
        raise ModelError(
            "the list of modules has no Pooling",
            where=where,
            why="without it there is no row per text",
            remedy="pass --task feature-extraction for a row per token",
        )
    return tuple(steps)


def _unsupported_module(where: str, module: Module, supported: str) -> NoReturn:
    raise ModelError(
        "a module of this model cannot be built",
        where=where,
        why=f"{module.type} (path {module.path!r}); supported: {supported}",
        remedy="pass --task feature-extraction for the encoder alone, or name another model",
    )


def _pooling(path: Path, width: int) -> Pool:
    document: dict[str, Any] = read(path, dict[str, Any], "the pooling")
    dimension = document.get("embedding_dimension", document.get("word_embedding_dimension", width))
    if dimension != width:
        raise ModelError(
            "the pooling does not fit the encoder",
            where=str(path),
            why=f"it is for rows of {dimension}, the encoder gives {width}",
            remedy="mend the file, or download the model again",
        )
    if "pooling_mode" in document:
        modes = document["pooling_mode"]
        named = [modes] if isinstance(modes, str) else modes
    else:
        named = [mode for flag, mode in _OLD_POOLING_FLAGS.items() if document.get(flag) is True] or ["mean"]
    try:
        return convert({"modes": named, "type": "pool"}, Pool, str(path), "the pooling")
    except ModelError:
        raise ModelError(
            "this pooling cannot be built",
            where=str(path),
            why=f"its mode is {named!r}, supported: {', '.join(POOLING_MODES)}",
            remedy="pass --task feature-extraction for a row per token, or name another model",
        ) from None


def _dense(path: Path, directory: str, width: int) -> Project:
    config = read(path, DenseConfig, "a dense layer")
    name = config.activation_function.rsplit(".", 1)[-1].lower()
    if name not in ("identity", "tanh") or config.use_residual:
        raise ModelError(
            "this dense layer cannot be built",
            where=str(path),
            why=f"activation_function is {config.activation_function}, use_residual {config.use_residual}; supported: Identity and "
            "Tanh, without a residual",
            remedy="name another model",
        )
    if config.in_features != width:
        raise ModelError(
            "a dense layer does not fit what comes before it",
            where=str(path),
            why=f"in_features is {config.in_features}, what comes before it gives {width}",
            remedy="mend the file, or download the model again",
        )
    return Project(
        directory, config.in_features, config.out_features, config.bias, "tanh" if name == "tanh" else "identity"
    )


def synthetic_settings(document: dict[str, Any], task: str | None, where: str) -> Settings:
    """Of a synthetic model: one normalised mean row per text unless rows per token are asked for."""
    encoder = read_encoder(document, where)
    if isinstance(encoder, vit.Vit):
        chosen = choose_task(task or "image-classification", document, False, where)
        _images_have_their_own_task(chosen, encoder, where)
        head, status = _head(document, chosen, encoder, where, False)
        image = images.plain(encoder.image, encoder.positions)
        return Settings(chosen, encoder, (), encoder.positions, False, 0, head, status, image)
    chosen = choose_task(task, document, True, where)
    if chosen in KINDS:
        raise ModelError(
            f"a synthetic model has no head for {chosen}",
            where=where,
            why="its weights are those of an encoder",
            remedy="choose --task feature-extraction or sentence-embedding, or name a model that was made for this task",
        )
    steps: tuple[Step, ...] = () if chosen == "feature-extraction" else (Pool(("mean",)), Normalise())
    return Settings(chosen, encoder, steps, encoder.positions, False, _pad_id(document, encoder.vocab_size))
