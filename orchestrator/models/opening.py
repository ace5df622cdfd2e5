"""What is an artefact made from, and by which way: written here from tensors, or wrapped around somebody's graph?

Tensors of an architecture that is built here are written as our graph. Otherwise a graph is needed: an ONNX file that lies in the
directory, or one that torch exports, if it is installed. Both ways end in a graph with the same inputs and output, and in a check.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.models import settings as reading
from orchestrator.models import synthetic, tokenizer, torch_side, wrap
from orchestrator.models import verify as checking
from orchestrator.models.build.assemble import assemble
from orchestrator.models.build.encoder import Encoder
from orchestrator.models.build.vit import Vit
from orchestrator.models.card import card_task
from orchestrator.models.directory import embeds_texts, encoder_directory, graph_in, weight_files, weights_of
from orchestrator.models.documents import read
from orchestrator.models.errors import ModelError, NotBuilt
from orchestrator.models.manifest import GRAPH, Verification
from orchestrator.models.resolve import Directory, Source, Synthetic
from orchestrator.models.settings import Project, Settings
from orchestrator.models.tasks import Task, choose_task
from orchestrator.models.weights import Checkpoint, Weights, check

log = logging.getLogger(__name__)

MOST_POSITIONS = 1 << 20
"""tokenizer_config.json says 10^30 where nobody said anything."""
_ANY_VOCABULARY = 1 << 24


@dataclass(frozen=True, slots=True)
class Opened:
    settings: Settings
    tokens: tokenizer.Prepared | None
    """None: the model reads images."""
    write: Callable[[Path], None]
    """Writes the graph and its data file into a folder."""
    verify: Callable[[Path], Verification]
    """Checks what was written."""


def open_source(source: Source, task: str | None, stack: ExitStack) -> Opened:
    """Reads everything but the tensors themselves. ModelError for whatever cannot be served. Temporary files live as long as `stack`."""
    if isinstance(source, Synthetic):
        settings = reading.synthetic_settings(synthetic.CONFIGURATIONS[source.shape], task, source.id)
        if isinstance(settings.encoder, Vit) and settings.head is not None:
            bare = synthetic.SyntheticWeights(settings.encoder)
            more = settings.head.tensors(bare)
            return _written(settings, None, synthetic.SyntheticWeights(settings.encoder, more=more), {})
        vocab_size = settings.encoder.vocab_size
        made = tokenizer.finish(synthetic.tokenizer_document(), Path(source.id), vocab_size=vocab_size, lowercase=False)
        return _written(settings, made, synthetic.SyntheticWeights(settings.encoder), {})
    found = weights_of(source.root, source.graph)
    if found.form == "onnx":
        return _wrapped(source, task, found.files)
    try:
        settings = reading.read_settings(source.root, task)
    except NotBuilt as error:
        if not torch_side.installed():
            graph = graph_in(source.root)
            if graph is None:
                raise
            raise NotBuilt(
                error.what, where=error.where, why=error.why, remedy=f"serve its graph: --model {graph}"
            ) from None
        log.info("model=%s is exported by torch, because %s", source.id, error)
        exported = torch_side.export(
            encoder_directory(source.root), _task(source.root, task), _temporary(stack) / "model.onnx"
        )
        return _wrapped(source, task, [exported])
    tokens: tokenizer.Prepared | None = None
    if settings.image is None:
        tokens = _tokens(source.root, settings)
        settings = _with_special_tokens(source.root, settings, tokens)
    files = found.files
    if found.form == "pickled":
        files = [torch_side.convert(files, _temporary(stack) / "model.safetensors")]
    return _written(settings, tokens, Checkpoint(files), _projections(source.root, settings))


def _written(
    settings: Settings, tokens: tokenizer.Prepared | None, weights: Weights, projections: dict[str, Weights]
) -> Opened:
    encoder = settings.encoder
    needed = encoder.tensors() | (settings.head.tensors(weights) if settings.head is not None else {})
    check(weights, needed, encoder.layer_prefix, encoder.stored_layers)
    return Opened(
        settings,
        tokens,
        lambda folder: assemble(folder, settings, weights, projections),
        lambda folder: (
            checking.verify_images(folder / GRAPH, settings, encoder, weights)
            if isinstance(encoder, Vit)
            else checking.verify(folder / GRAPH, settings, weights, projections)
        ),
    )


def _wrapped(source: Directory, task: str | None, files: list[Path]) -> Opened:
    if _task(source.root, task) == "image-classification":
        raise ModelError(
            "an ONNX file of a model of images is not served",
            where=str(files[0]),
            why="of these models only the safetensors are read, from which the graph is built",
            remedy="put model.safetensors beside config.json",
        )
    foreign = wrap.read_graph(files, _task(source.root, task))
    settings = reading.read_settings(source.root, task, _outline(source.root, foreign))
    tokens = _tokens(source.root, settings)
    settings = _with_special_tokens(source.root, settings, tokens)
    projections = _projections(source.root, settings)
    return Opened(
        settings,
        tokens,
        lambda folder: wrap.write(folder, foreign, settings, projections),
        lambda folder: wrap.verify(folder / GRAPH, foreign, settings, projections),
    )


def _outline(root: Path, foreign: wrap.Foreign) -> Encoder:
    """Vocabulary and positions: what config.json says, else what the tokenizer says. ModelError where nobody says it."""
    home = encoder_directory(root)
    document: dict[str, Any] = {}
    if (home / "config.json").is_file():
        document, _ = reading.read_config(root)
    try:
        known = reading.read_encoder(document, str(home / "config.json"))
        return wrap.outline(foreign, known.architecture, known.vocab_size, known.positions)
    except ModelError as error:
        log.debug("%s: the configuration describes nothing that is built here: %s", foreign.path, error)
    vocab_size, positions = document.get("vocab_size"), document.get("max_position_embeddings")
    if not isinstance(vocab_size, int) or vocab_size < 1:
        data = tokenizer.prepare_tokenizer(home, vocab_size=_ANY_VOCABULARY, lowercase=False).data
        vocab_size = tokenizer.vocabulary_size(data)
    if not isinstance(positions, int):
        config = home / "tokenizer_config.json"
        said = read(config, dict[str, Any], "the configuration of the tokenizer") if config.is_file() else {}
        positions = said.get("model_max_length")
    if not isinstance(positions, int) or not 1 <= positions <= MOST_POSITIONS:
        raise ModelError(
            "nobody says how long a text the graph can take",
            where=str(home),
            why="neither config.json (max_position_embeddings) nor tokenizer_config.json (model_max_length) does",
            remedy='put a config.json beside it with at least {"max_position_embeddings": …}',
        )
    kind = document.get("model_type")
    return wrap.outline(foreign, kind if isinstance(kind, str) else "onnx", vocab_size, positions)


def _task(root: Path, task: str | None) -> Task:
    home = encoder_directory(root)
    document: dict[str, Any] = {}
    if (home / "config.json").is_file():
        document, _ = reading.read_config(root)
    return choose_task(task, document, embeds_texts(root), str(home / "config.json"), card_task(root))


def _tokens(root: Path, settings: Settings) -> tokenizer.Prepared:
    """ModelError if there is no tokenizer, if it does not fit the model, or if it cannot pad."""
    home = encoder_directory(root)
    tokens = tokenizer.prepare_tokenizer(home, vocab_size=settings.encoder.vocab_size, lowercase=settings.lowercase)
    if tokenizer.special_tokens(home, tokens.data).pad is None:
        raise ModelError(
            "this tokenizer has no padding token",
            where=str(home),
            why="the vocabulary has neither [PAD] nor <pad>, nor what tokenizer_config.json or special_tokens_map.json name",
            remedy='name one of its tokens as "pad_token" in tokenizer_config.json, or use the tokenizer that came with the model',
        )
    return tokens


def _with_special_tokens(root: Path, settings: Settings, tokens: tokenizer.Prepared) -> Settings:
    if settings.head is None:
        return settings
    home = encoder_directory(root)
    return reading.with_special_tokens(settings, tokenizer.special_tokens(home, tokens.data), str(home))


def _projections(root: Path, settings: Settings) -> dict[str, Weights]:
    return {
        step.directory: Checkpoint(weight_files(root / step.directory), prefixed=False)
        for step in settings.steps
        if isinstance(step, Project)
    }


def _temporary(stack: ExitStack) -> Path:
    return Path(stack.enter_context(TemporaryDirectory(prefix="orchestrator-")))
