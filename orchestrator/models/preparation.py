"""How does a model become an artefact that a worker can load?

Theory of operation. The source files are hashed (through an index, so that 90 MB are read once and not at each start). Their digest,
the task, the precision, the engine and the version of the builder name a folder of the cache. If that folder is there and unharmed, its
manifest answers everything, and neither numpy nor an engine is imported: a warm start takes milliseconds. If not, one process makes it
under a lock: graph and data file from the weights (opening.py says how), a cleaned tokenizer.json, a check against an independent
computation, the manifest.
"""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import msgspec

from orchestrator.models import manifest as manifests
from orchestrator.models.build import BUILDER_VERSION, OPSET
from orchestrator.models.cache import Cache
from orchestrator.models.card import card_task
from orchestrator.models.digest import DigestIndex, SourceFile, combined, digest_files
from orchestrator.models.directory import source_files
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import Manifest
from orchestrator.models.resolve import Source, Synthetic, resolve
from orchestrator.status import ModelStatus
from workers.spec import Artefact

log = logging.getLogger(__name__)

ENGINES = ("onnxruntime",)
PRECISIONS = ("auto", "fp32")

_TOOLS = ("orchestrator", "onnx", "onnxruntime", "numpy", "safetensors", "tokenizers")
_NOTED_FEATURES = (
    "avx2", "fma", "avx512f", "avx512bw", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "sve", "sve2", "i8mm", "bf16", "sme",
)  # fmt: skip


class Prepared(msgspec.Struct, frozen=True):
    artefact: Artefact
    status: ModelStatus
    tokenizer: str
    """Path of the tokenizer.json in the artefact's folder, without truncation and padding; empty where the model reads images."""
    special_tokens: int
    """How many tokens the tokenizer adds to one text."""
    built: bool
    """False: it came from the cache."""
    seconds: float


def prepare(
    model: str | None,
    *,
    task: str | None = None,
    precision: str = "auto",
    engine: str = "onnxruntime",
    max_seqlen: int | None = None,
    cache: Path,
) -> Prepared:
    """From what the user wrote to an artefact on the disk, made now or found in the cache.

    `model` is a directory, a hub id, `synthetic:NAME`, or None for the default. `max_seqlen` is the longest text in tokens, special
    tokens included; None takes the model's own limit. Raises ModelError.
    """
    started = time.perf_counter()
    _check_options(precision, engine)
    source = resolve(model)
    store = Cache(cache)
    files = _source_files(source, store.index)
    digest = combined(files)
    # Of the card only its claim counts: prose that changes does not make another model.
    hint = None if task is not None or isinstance(source, Synthetic) else card_task(source.root)
    asked = task or (hint and f"card:{hint}")
    name = f"{source.name}-{_key(digest, asked, engine)[:12]}-fp32-{engine}"
    manifest = store.find(name)
    built = False
    if manifest is None:
        store.prepare()
        with store.locked(name):
            manifest = store.find(name)  # another process may have made it while this one waited
            if manifest is None:
                manifest = _make(store, name, source, files, digest, task)
                built = True
    store.index.save()
    folder = (cache / name).absolute()
    limit = _limit(manifest, max_seqlen)
    seconds = time.perf_counter() - started
    log.info("model=%s artefact=%s %s after=%.2fs", source.id, folder, "built" if built else "cached", seconds)
    return Prepared(
        artefact=Artefact(
            path=str(folder / manifests.GRAPH),
            engine=manifest.engine,
            precision=manifest.precision,
            width=manifest.dimensions,
            vocab_size=manifest.vocab_size,
            positions=manifest.positions,
            per_token=manifest.per_token,
            token_types=manifest.token_types,
            pad_id=manifest.pad_id,
            pixels=None if manifest.image is None else (3, manifest.image.height, manifest.image.width),
        ),
        status=ModelStatus(
            id=source.id,
            task=manifest.task,
            architecture=manifest.architecture,
            precision=manifest.precision,
            engine=manifest.engine,
            max_seqlen=limit,
            dimensions=manifest.dimensions,
            digest=manifest.digest,
            artefact=str(folder),
            head=manifest.head,
            image=manifest.image,
        ),
        tokenizer="" if manifest.image is not None else str(folder / manifests.TOKENIZER),
        special_tokens=manifest.special_tokens,
        built=built,
        seconds=seconds,
    )


def _check_options(precision: str, engine: str) -> None:
    for option, value, known in (("--precision", precision, PRECISIONS), ("--engine", engine, ENGINES)):
        if value not in known:
            raise ModelError(
                f"{option} {value} is not available",
                why=f"this version builds {', '.join(known)}",
                remedy=f"choose one of these, or leave {option} out",
            )


def _source_files(source: Source, index: DigestIndex) -> list[SourceFile]:
    if isinstance(source, Synthetic):
        from orchestrator.models import synthetic

        description = synthetic.describe_bytes(source.shape)
        return [SourceFile("synthetic.json", len(description), hashlib.sha256(description).hexdigest())]
    return digest_files(source.root, source_files(source.root, source.graph), index)


def _key(digest: str, task: str | None, engine: str) -> str:
    """What the content of an artefact depends on."""
    parts = [digest, BUILDER_VERSION, manifests.FORMAT, task or "auto", "fp32", engine, _major(engine)]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _major(package: str) -> str:
    return _version(package).partition(".")[0]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _limit(manifest: Manifest, max_seqlen: int | None) -> int:
    """The longest text that is served."""
    if manifest.image is not None and max_seqlen not in (None, manifest.positions):
        raise ModelError(
            f"--max-seqlen {max_seqlen} does not go with images",
            where=manifest.id,
            why=f"each counts as {manifest.positions} tokens, no more and no less",
            remedy="leave --max-seqlen out, and max_seqlen out of the instances of the layout",
        )
    if max_seqlen is None:
        return manifest.own_max_seqlen
    if max_seqlen > manifest.positions:
        raise ModelError(
            f"--max-seqlen {max_seqlen} is more than the model can take",
            where=manifest.id,
            why=f"it has {manifest.positions} positions",
            remedy=f"choose at most {manifest.positions}",
        )
    if max_seqlen <= manifest.special_tokens:
        raise ModelError(
            f"--max-seqlen {max_seqlen} leaves no room for text",
            where=manifest.id,
            why=f"the tokenizer adds {manifest.special_tokens} special tokens to each text",
            remedy=f"choose at least {manifest.special_tokens + 1}; the model's own limit is {manifest.own_max_seqlen}",
        )
    return max_seqlen


def _make(store: Cache, name: str, source: Source, files: list[SourceFile], digest: str, task: str | None) -> Manifest:
    from orchestrator.models.build.graph import ONNX_VERSION
    from orchestrator.models.opening import open_source

    started = time.perf_counter()
    log.info("model=%s artefact=%s absent->building", source.id, name)
    with ExitStack() as stack, store.making(name) as folder:
        opened = open_source(source, task, stack)
        settings, tokens, encoder = opened.settings, opened.tokens, opened.settings.encoder
        parts = [folder / part for part in (manifests.GRAPH, manifests.DATA)]
        if tokens is not None:
            (folder / manifests.TOKENIZER).write_bytes(tokens.data)
            parts.append(folder / manifests.TOKENIZER)
        opened.write(folder)
        verification = opened.verify(folder)
        if not isinstance(source, Synthetic) and combined(_source_files(source, store.index)) != digest:
            raise ModelError(
                "the model was changed while it was read",
                where=str(source.root),
                why="its files are not those that were there at the start",
                remedy="wait until they are complete and start again",
                unworkable=False,
            )
        manifest = Manifest(
            format=manifests.FORMAT,
            builder=BUILDER_VERSION,
            id=source.id,
            digest=digest,
            sources=files,
            task=settings.task,
            architecture=encoder.architecture,
            precision="fp32",
            engine="onnxruntime",
            opset=OPSET,
            tools={tool: _version(tool) for tool in _TOOLS} | {"onnx": ONNX_VERSION},
            cpu_features=cpu_features(),
            dimensions=settings.width,
            vocab_size=encoder.vocab_size,
            positions=encoder.positions,
            own_max_seqlen=settings.own_max_seqlen,
            special_tokens=0 if tokens is None else tokens.special_tokens,
            pad_id=settings.pad_id,
            per_token=settings.per_token,
            token_types=settings.token_types,
            head=settings.head_status,
            image=settings.image,
            steps=[_in_words(step) for step in settings.steps],
            files=digest_files(folder, parts, store.index),
            verification=verification,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            build_seconds=round(time.perf_counter() - started, 3),
        )
        manifests.path_of(folder).write_bytes(manifests.encode(manifest))
    return manifest


def _in_words(step: object) -> str:
    from orchestrator.models.settings import Pool, Project

    if isinstance(step, Pool):
        return "+".join(step.modes)
    return f"dense {step.outputs}" if isinstance(step, Project) else "normalise"


def cpu_features(path: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The instruction sets that matter to an engine, as the kernel names them; none where it does not say."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        log.info("%s cannot be read, the manifest names no CPU features: %s", path, error)
        return []
    for line in text.splitlines():
        key, _, flags = line.partition(":")
        if key.strip() in ("flags", "Features"):
            present = set(flags.split())
            return [feature for feature in _NOTED_FEATURES if feature in present]
    return []
