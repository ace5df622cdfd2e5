"""How does one get the study of a model: from the cache, or made now in a process of its own?

Theory of operation. A study depends on the fp32 artefact, on the CPU's instruction sets, on the versions of the engines and on the
calibration texts; these name its file in the cache. A warm start reads that file and imports neither numpy nor an engine. The variants
are artefacts of their own, made one by one: a study that was interrupted finds those that were finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from orchestrator.allocators import without_allocators
from orchestrator.models import progress, variants
from orchestrator.models.cache import Cache
from orchestrator.models.choose import Choice, NoVariantError, Wish, choose
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import GRAPH
from orchestrator.models.preparation import Prepared, cpu_features
from orchestrator.models.progress import Show, unseen
from orchestrator.models.variants import Engine, Precision, Study, Task, Variant
from workers.engines.installed import installed

log = logging.getLogger(__name__)

STUDY_SECONDS = 1800.0
_BF16 = {"avx512_bf16", "amx_bf16"}
_ORDER: tuple[tuple[Precision, Engine], ...] = (("int8", "onnxruntime"), ("bf16", "openvino"), ("fp32", "openvino"))
"""In which variants are made; part of what names a study."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tuned:
    """A prepared model, and what is known of its variants."""

    prepared: Prepared
    study: Study
    wish: Wish
    root: Path
    """The cache."""
    notes: tuple[str, ...] = ()

    def choose(
        self, low: int, high: int, *, openvino: bool = True, precision: str | None = None, engine: str | None = None
    ) -> Choice:
        """For texts of `low` to `high` tokens. ModelError if nothing that was asked for can be used.

        `openvino` False: leave it out, as for a process with another allocator. `precision` and `engine`: asked for here instead of
        what was wished for all; the study must have been made with that wish too.
        """
        wish = dataclasses.replace(
            self.wish, precision=precision or self.wish.precision, engine=engine or self.wish.engine
        )
        if not openvino:
            wish = dataclasses.replace(wish, engine="onnxruntime")
        try:
            return choose(self.study, wish, low, high)
        except NoVariantError as error:
            raise ModelError(
                f"cannot serve with precision {wish.precision} on engine {wish.engine}",
                where=self.study.model,
                why=str(error),
                remedy="leave --precision and --engine at auto, or choose --precision fp32 --engine onnxruntime",
            ) from None


def tune(
    prepared: Prepared,
    cache: Path,
    wish: Wish,
    calibration: Sequence[str] | None,
    say: Say,
    show: Show = unseen,
    others: Sequence[Wish] = (),
) -> Tuned:
    """The study that the wish needs, and these others. ModelError if something that was asked for by name cannot be had.

    `say` takes lines for people, `show` how far the making of a study is.
    """
    features, tools = cpu_features(), installed()
    if prepared.artefact.pixels is not None:
        return _of_images(prepared, wish, calibration, features, tools, cache.absolute())
    needed = {pair for each in (wish, *others) for pair in _wanted(each, features, tools)}
    wanted = [pair for pair in _ORDER if pair in needed]
    base = Path(prepared.status.artefact)
    root = cache.absolute()
    if not wanted:
        return Tuned(prepared, _only_fp32(prepared, features, tools), wish, root)
    task = Task(
        cache=str(root),
        base=base.name,
        artefact=prepared.artefact,
        own_max_seqlen=prepared.status.max_seqlen,
        wanted=wanted,
        calibration=None if calibration is None else list(calibration),
        tools=tools,
    )
    path = root / f"{base.name}-{_key(task, features)}.study.json"
    store = Cache(root)
    study = _whole(store, path)
    if study is None:
        store.prepare()
        with store.locked(path.stem):
            study = _whole(store, path)
            if study is None:
                say(f"model {prepared.status.id}: trying {', '.join(f'{p} on {e}' for p, e in wanted)} on this CPU")
                try:
                    study = _made(task, say, show)
                except StudyError as error:
                    if any(each.precision != "auto" or each.engine != "auto" for each in (wish, *others)):
                        raise ModelError(
                            "the study of this model's variants failed",
                            where=str(base),
                            why=str(error),
                            remedy="choose --precision fp32 --engine onnxruntime, and report this with the name of the model",
                        ) from None
                    note = f"only fp32 on onnxruntime is used: the study of other variants failed: {error}"
                    say(f"model {prepared.status.id}: {note}")
                    return Tuned(prepared, _only_fp32(prepared, features, tools), wish, root, (note,))
                _write(path, study)
                say(f"model {prepared.status.id}: tried in {study.seconds:.1f} s")
    store.index.save()
    return Tuned(prepared, study, wish, root)


def _of_images(
    prepared: Prepared,
    wish: Wish,
    calibration: Sequence[str] | None,
    features: list[str],
    tools: dict[str, str],
    root: Path,
) -> Tuned:
    """Studies compare answers to texts, and int8 is made with texts: a model of images is served in fp32 on onnxruntime."""
    refused = [
        f"{option} {value}"
        for option, value, fine in (
            ("--precision", wish.precision, ("auto", "fp32")),
            ("--engine", wish.engine, ("auto", "onnxruntime")),
        )
        if value not in fine
    ] + (["--calibration"] if calibration is not None else [])
    if refused:
        raise ModelError(
            f"{' and '.join(refused)}: not for models of images",
            where=prepared.status.id,
            why="other precisions and engines are judged, and int8 is made, with texts, and this model reads none",
            remedy="choose --precision fp32 --engine onnxruntime, or leave both out",
        )
    return Tuned(prepared, _only_fp32(prepared, features, tools), wish, root)


class StudyError(Exception):
    """The process that makes a study ended without one: says how, in its own last words."""


def _wanted(wish: Wish, features: Sequence[str], tools: dict[str, str]) -> list[tuple[Precision, Engine]]:
    """What must be tried beside fp32 on onnxruntime. ModelError for what this machine cannot do at all."""
    if wish.precision == "fp32" and wish.engine in ("auto", "onnxruntime"):
        return []
    if wish.engine == "openvino" or wish.precision == "bf16":
        if "openvino" not in tools:
            raise ModelError(
                "openvino is not installed",
                why="bf16 and --engine openvino need it" if wish.precision == "bf16" else "--engine openvino needs it",
                remedy="install it: pip install 'orchestrator[openvino]'",
            )
        if wish.precision == "bf16" and not _BF16 & set(features):
            raise ModelError(
                "this CPU has no bf16 products",
                why=f"none of {', '.join(sorted(_BF16))} is among its instruction sets",
                remedy="choose --precision int8, fp32 or auto",
            )
    wanted: list[tuple[Precision, Engine]] = [("int8", "onnxruntime")]
    if "openvino" in tools:
        if _BF16 & set(features):
            wanted.append(("bf16", "openvino"))
        if wish.engine == "openvino" or not _BF16 & set(features):
            wanted.append(("fp32", "openvino"))
    kept = [
        (precision, engine)
        for precision, engine in wanted
        if wish.precision in ("auto", precision) and wish.engine in ("auto", engine)
    ]
    if not kept and wish.precision != "auto":
        raise ModelError(
            f"--precision {wish.precision} on --engine {wish.engine} is not available",
            why="int8 runs on onnxruntime, bf16 on openvino, fp32 on both",
            remedy="leave --engine out",
        )
    return kept


def _key(task: Task, features: Sequence[str]) -> str:
    parts = [variants.STUDY_VERSION, task.wanted, task.calibration, task.tools, list(features), _graph_of(task)]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]


def _graph_of(task: Task) -> str:
    return f"{task.base}/{GRAPH}"


def _only_fp32(prepared: Prepared, features: list[str], tools: dict[str, str]) -> Study:
    folder = Path(prepared.status.artefact)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name.startswith(GRAPH))
    exact = Variant("fp32", "onnxruntime", f"{folder.name}/{GRAPH}", size)
    return Study(variants.STUDY_VERSION, prepared.status.id, features, tools, "", [exact], 0.0)


def _whole(store: Cache, path: Path) -> Study | None:
    """The study in this file, if each of its artefacts is there and unharmed."""
    try:
        study = variants.decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.warning("study=%s unreadable: %s; making it anew", path, error)
        return None
    usable = [variant for variant in study.variants if variant.problem is None]
    return study if all(store.find(variant.graph.partition("/")[0]) is not None for variant in usable) else None


def _write(path: Path, study: Study) -> None:
    fresh = path.with_name(f".{path.name}.making")
    try:
        fresh.write_bytes(variants.encode(study))
        fresh.replace(path)
    except OSError as error:  # it is made again at the next start
        log.warning("study=%s cannot be written: %s", path, error)
        fresh.unlink(missing_ok=True)


def _made(task: Task, say: Say, show: Show) -> Study:
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.models.study"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=without_allocators(os.environ),  # the study loads openvino, which aborts with tcmalloc or jemalloc
    )
    with process:
        assert process.stderr is not None
        last: list[str] = []
        listener = threading.Thread(target=_relay, args=(process.stderr, say, show, last), daemon=True)
        listener.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            watch = threading.Timer(STUDY_SECONDS, process.kill)
            watch.daemon = True
            watch.start()
            try:
                process.stdin.write(msgspec.json.encode(task))
                process.stdin.close()
            except BrokenPipeError:
                pass  # it has died; its exit code and last words follow
            body = process.stdout.read()
            code = process.wait()
            watch.cancel()
            listener.join(5)
        except BaseException:
            process.kill()
            raise
    if code != 0:
        raise StudyError(f"exit code {code}: {last[-1] if last else 'it said nothing'}")
    try:
        return variants.decode(body)
    except msgspec.DecodeError as error:
        raise StudyError(f"it wrote no study: {error}") from None


def _relay(lines: IO[bytes], say: Say, show: Show, last: list[str]) -> None:
    for raw in lines:
        if (step := progress.decode(raw)) is not None:
            show(step)
            continue
        line = raw.decode("utf-8", "replace").rstrip()
        if line:
            last[:] = [*last[-20:], line]
            say(line)
