"""How is a model made into each form that this CPU can run, and measured? A process of its own: `python -m orchestrator.models.study`.

An engine that crashes on this CPU, or leaves threads and memory behind, must not do so in the supervisor. The process reads a `Task` as
JSON from standard input, says its progress on standard error, and writes a `Study` as JSON to standard output.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from orchestrator.models import accuracy, quantize, quantize_graph, quantize_write
from orchestrator.models import manifest as manifests
from orchestrator.models.cache import Cache
from orchestrator.models.calibration import CALIBRATION, EVALUATION
from orchestrator.models.digest import SourceFile, digest_files
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import Manifest
from orchestrator.models.openvino_form import openvino_form
from orchestrator.models.preparation import cpu_features
from orchestrator.models.progress import Step, encode
from orchestrator.models.variants import (
    LENGTHS,
    MIN_COSINE,
    STUDY_VERSION,
    Accuracy,
    Engine,
    Precision,
    Study,
    Task,
    Timing,
    Variant,
)
from workers.engines import chosen
from workers.engines.base import Engine as Runner
from workers.engines.base import EngineError, LoadError
from workers.spec import Artefact, WorkerSpec

log = logging.getLogger(__name__)

SHARES_LEFT_EXACT = (0.0, 0.1, 0.25)
"""Of the sites, tried in this order until int8 is over the bar; with more of them in fp32 it is hardly faster than fp32."""
TURNS = 7
TOKENS_BETWEEN = 40
"""Of the text that is run before each one that is timed: none of LENGTHS, nor the same as one of them in steps of 16."""
LONGEST_TURN_SECONDS = 6.0
"""Of all variants at one length: a model of seconds per text is measured fewer times."""


def show(step: Step) -> None:
    """To whoever started this process."""
    sys.stderr.buffer.write(encode(step) + b"\n")
    sys.stderr.buffer.flush()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    out = os.dup(1)
    os.dup2(2, 1)  # an engine that prints must not spoil the document
    try:
        study = make(task)
    except ModelError as error:
        log.error("%s", error)
        return 1
    os.write(out, msgspec.json.encode(study))
    return 0


def make(task: Task) -> Study:
    """Makes what is missing, measures everything. ModelError if the cache cannot be written."""
    started = time.perf_counter()
    store = Cache(Path(task.cache))
    manifest = store.find(task.base)
    if manifest is None:
        raise ModelError(
            "the artefact has gone",
            where=task.base,
            why="another process removed it",
            remedy="start again",
            unworkable=False,
        )
    texts = tuple(task.calibration) if task.calibration is not None else CALIBRATION
    maker = _Maker(task, store, manifest, texts)
    show(Step("fp32: computing the answers"))
    exact = accuracy.answers(maker.engine("fp32", "onnxruntime", task.base), maker.evaluation, manifest)
    made: list[tuple[Variant, Runner | None]] = []
    for precision, engine in [("fp32", "onnxruntime"), *task.wanted]:
        if (precision, engine) == ("fp32", "onnxruntime") and made:
            continue
        log.info("%s on %s: making and comparing", precision, engine)
        made.append(maker.variant(precision, engine, exact))
    log.info("timing %d variants", sum(runner is not None for _, runner in made))
    timings = timed([runner for _, runner in made if runner is not None], task, manifest)
    variants = []
    for variant, runner in made:
        mine = timings.pop(0) if runner is not None else []
        variants.append(msgspec.structs.replace(variant, timings=mine))
    store.index.save()
    return Study(
        STUDY_VERSION,
        manifest.id,
        cpu_features(),
        task.tools,
        digest_of(texts),
        variants,
        round(time.perf_counter() - started, 2),
    )


def digest_of(texts: Sequence[str]) -> str:
    return hashlib.sha256(msgspec.json.encode(list(texts))).hexdigest()


class _Maker:
    def __init__(self, task: Task, store: Cache, manifest: Manifest, texts: Sequence[str]) -> None:
        self._task = task
        self._store = store
        self._manifest = manifest
        self._texts = texts
        self._base = store.root / task.base
        self.evaluation = token_ids(self._base, manifest, EVALUATION)

    def variant(self, precision: Any, engine: Any, exact: Sequence[np.ndarray]) -> tuple[Variant, Runner | None]:
        """The variant without timings, and what runs it; None where it cannot be run, which the variant explains."""
        if (precision, engine) == ("fp32", "onnxruntime"):
            return self._described(precision, engine, self._manifest, self._task.base, None), self.engine(
                precision, engine, self._task.base
            )
        name = self._name(precision, engine)
        try:
            manifest = self._store.find(name)
            if manifest is None:
                with self._store.locked(name):
                    manifest = self._store.find(name) or self._make(name, precision, engine, exact)
            return self._described(precision, engine, manifest, name, manifest.accuracy), self.engine(
                precision, engine, name
            )
        except (LoadError, EngineError) as error:
            return Variant(precision, engine, f"{name}/{manifests.GRAPH}", 0, problem=str(error)), None

    def _described(
        self, precision: Precision, engine: Engine, manifest: Manifest, name: str, found: Accuracy | None
    ) -> Variant:
        size = sum(file.size for file in manifest.files if file.name != manifests.TOKENIZER)
        return Variant(precision, engine, f"{name}/{manifests.GRAPH}", size, accuracy=found)

    def _name(self, precision: str, engine: str) -> str:
        """Of the folder: what its content depends on."""
        parts: list[object] = [self._task.base, STUDY_VERSION, precision, engine, self._task.tools.get(engine)]
        if precision == "int8":
            parts += [digest_of(self._texts), quantize.weight_bits(cpu_features())]
        if precision == "bf16":
            parts.append(cpu_features())  # the accuracy in its manifest is of this CPU
        key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:12]
        stem = self._task.base.removesuffix("-fp32-onnxruntime").rpartition("-")[0]
        return f"{stem}-{key}-{precision}-{engine}"

    def _make(self, name: str, precision: Any, engine: Any, exact: Sequence[np.ndarray]) -> Manifest:
        started = time.perf_counter()
        with self._store.making(name) as folder:
            shutil.copyfile(self._base / manifests.TOKENIZER, folder / manifests.TOKENIZER)
            if precision == "int8":
                found = self._quantise(folder, exact)
            else:
                for_openvino(self._base, folder)
                found = self._compare(precision, engine, folder, exact)
            parts = [folder / part for part in (manifests.GRAPH, manifests.DATA, manifests.TOKENIZER)]
            manifest = msgspec.structs.replace(
                self._manifest,
                precision=precision,
                engine=engine,
                parent=self._task.base,
                accuracy=found,
                cpu_features=cpu_features(),
                files=self._digests(folder, parts),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                build_seconds=round(time.perf_counter() - started, 3),
            )
            manifests.path_of(folder).write_bytes(manifests.encode(manifest))
        return manifest

    def _digests(self, folder: Path, parts: list[Path]) -> list[SourceFile]:
        return digest_files(folder, parts, self._store.index)

    def _compare(self, precision: Precision, engine: Engine, folder: Path, exact: Sequence[np.ndarray]) -> Accuracy:
        show(Step(f"{precision}: comparing with fp32"))
        return accuracy.compare(exact, load(self._artefact(precision, engine, folder)), self.evaluation, self._manifest)

    def _quantise(self, folder: Path, exact: Sequence[np.ndarray]) -> Accuracy:
        """Writes int8 with as few products left in fp32 as the bar allows: the sites of the largest error go first."""
        graph = quantize_graph.Graph(self._base / manifests.GRAPH)
        bits = quantize.weight_bits(cpu_features())
        show(Step("int8: computing what the products read"))
        seen = quantize_graph.activations(graph, self._feeds())
        treatments = quantize.calibrated(
            graph, seen, bits, lambda done, total: show(Step("int8: rounding weights", done, total))
        )
        worst = sorted(treatments, key=lambda value: -treatments[value].error)
        for share in SHARES_LEFT_EXACT:
            left = set(worst[: round(share * len(worst))])
            show(Step("int8: writing and comparing"))
            quantize_write.write(graph, {value: one for value, one in treatments.items() if value not in left}, folder)
            found = self._compare("int8", "onnxruntime", folder, exact)
            if found.shortfall(MIN_COSINE) is None:
                break
            log.info("int8 with %d of %d sites in fp32: %s", len(left), len(worst), found.shortfall(MIN_COSINE))
        return found

    def _feeds(self) -> list[dict[str, np.ndarray]]:
        feeds = []
        for ids in token_ids(self._base, self._manifest, self._texts):
            feed = {"input_ids": ids[None], "attention_mask": np.ones((1, len(ids)), np.int32)}
            if self._manifest.token_types:
                feed["token_type_ids"] = np.zeros((1, len(ids)), np.int32)
            feeds.append(feed)
        return feeds

    def engine(self, precision: Precision, engine: Engine, name: str) -> Runner:
        return load(self._artefact(precision, engine, self._store.root / name))

    def _artefact(self, precision: Precision, engine: Engine, folder: Path) -> Artefact:
        return msgspec.structs.replace(
            self._task.artefact, path=str(folder / manifests.GRAPH), engine=engine, precision=precision
        )


def load(artefact: Artefact) -> Runner:
    """As a worker loads it, on one thread. LoadError."""
    spec = WorkerSpec(
        name="study", incarnation=1, cpus=[0], membind=[], nodes_on_machine=1, threads=1, endpoint="",
        max_seqlen=artefact.positions, warmup=[], artefact=artefact,
    )  # fmt: skip
    return chosen.load(spec)


def token_ids(folder: Path, manifest: Manifest, texts: Sequence[str]) -> list[np.ndarray]:
    """int32 ids of each text, cut to the longest that the model is meant for."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / manifests.TOKENIZER))
    limit = manifest.own_max_seqlen
    found = []
    for encoding in tokenizer.encode_batch_fast(list(texts)):
        ids = np.array(
            [*encoding.ids[: limit - 1], encoding.ids[-1]] if len(encoding.ids) > limit else encoding.ids, np.int32
        )
        if manifest.head is not None and manifest.head.asked_id is not None:
            ids[len(ids) // 2] = manifest.head.asked_id
        if len(ids):
            found.append(ids)
    return found


def for_openvino(base: Path, folder: Path) -> None:
    """The graph in OpenVINO's form, over the same data file."""
    graph = quantize_graph.Graph(base / manifests.GRAPH)
    (folder / manifests.GRAPH).write_bytes(openvino_form(graph.model, graph.constant).SerializeToString())
    data = base / manifests.DATA
    try:
        os.link(data, folder / manifests.DATA)
    except OSError:  # a file system without hard links
        shutil.copyfile(data, folder / manifests.DATA)


def timed(
    runners: Sequence[Runner], task: Task, manifest: Manifest, clock: Callable[[], float] = time.process_time
) -> list[list[Timing]]:
    """Of each variant at each length: all in turns, so that what else this machine does hits them alike.

    Each text that is timed comes after one of another length, as in traffic: OpenVINO takes 0.6 ms longer then (MiniLM).
    """
    random = np.random.default_rng(11)
    found: list[list[Timing]] = [[] for _ in runners]
    lengths = [length for length in LENGTHS if length <= min(manifest.positions, max(task.own_max_seqlen, LENGTHS[-1]))]
    other = _text(random, min(TOKENS_BETWEEN, manifest.positions), manifest)
    for number, length in enumerate(lengths):
        text = _text(random, length, manifest)
        seconds: list[list[float]] = [[] for _ in runners]
        began = time.perf_counter()
        for turn in range(TURNS + 1):
            show(Step("timing", number * (TURNS + 1) + turn, len(lengths) * (TURNS + 1)))
            for place, runner in enumerate(runners):
                runner.run(*text)
                for _ in range(1 if turn == 0 or length > LENGTHS[0] else 5):
                    runner.run(*other)
                    before = clock()
                    runner.run(*text)
                    if turn:  # the first one allocates
                        seconds[place].append(clock() - before)
            if turn >= 2 and time.perf_counter() - began > LONGEST_TURN_SECONDS:
                break
        for place, of in enumerate(seconds):
            found[place].append(Timing(length, round(1000 * statistics.median(of), 3)))
    show(Step("timing", len(lengths) * (TURNS + 1), len(lengths) * (TURNS + 1)))
    return found


def _text(
    random: np.random.Generator, length: int, manifest: Manifest
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Ids, mask and, where the model tells texts apart, types of one text, int32 [1, length]."""
    ids = random.integers(0, manifest.vocab_size, (1, length), dtype=np.int32)
    if manifest.head is not None and manifest.head.asked_id is not None:
        ids[0, length // 2] = manifest.head.asked_id
    return ids, np.ones_like(ids), np.zeros_like(ids) if manifest.token_types else None


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # OpenVINO may abort while it is taken apart (workers/__main__.py), and a finished study would be lost.
    os._exit(code)
