"""How do all workers of a node hold one copy of the weights between them?

Theory of operation. ONNX Runtime rearranges the weights of every product when it loads a graph, into memory of its own: a private copy
per process. It can also write the rearranged weights into the data file, once, and map them from there at every later load; then all
workers share the pages of that file through the page cache, and loading is faster. The rearrangement depends on the CPU and on the
release, so both are part of the name. The page cache puts a page on the node of whoever reads it first: on a machine of several nodes
each node has a file of its own, whose pages are let go after writing, so that the first reader is a worker that is bound there.

Run as `python -m orchestrator.models.share SOURCE FOLDER` it writes one such file: an engine has no business in the supervisor.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from orchestrator.models import manifest as manifests
from orchestrator.models.cache import Cache
from orchestrator.models.digest import digest_files
from orchestrator.models.errors import ModelError
from orchestrator.models.manifest import DATA, GRAPH
from orchestrator.models.preparation import cpu_features

log = logging.getLogger(__name__)

SHARE_VERSION = 1
_SECONDS = 600.0
_SMALLEST_BYTES = 1024
"""Of a tensor that goes into the data file."""


def shared(root: Path, folder: str, version: str, nodes: Sequence[int]) -> dict[int, Path]:
    """The graph with ready-made weights for each of these memory nodes, made now or found in the cache `root`.

    `folder` is the artefact's name, `version` that of onnxruntime. ModelError if it cannot be made; the artefact itself still serves.
    """
    store = Cache(root)
    found = {node: _one(store, folder, version, node if len(nodes) > 1 else None) for node in nodes}
    store.index.save()
    if len(nodes) > 1:
        for graph in found.values():
            let_go(graph.with_name(DATA))
    return found


def _one(store: Cache, folder: str, version: str, node: int | None) -> Path:
    parts = [folder, SHARE_VERSION, version, cpu_features()]
    key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:8]
    name = f"{folder}-shared-{key}" + ("" if node is None else f"-node{node}")
    if store.find(name) is None:
        store.prepare()
        with store.locked(name):
            if store.find(name) is None:
                _make(store, folder, name)
    return store.root / name / GRAPH


def _make(store: Cache, folder: str, name: str) -> None:
    started = time.perf_counter()
    parent = manifests.decode(manifests.path_of(store.root / folder).read_bytes())
    with store.making(name) as fresh:
        command = [sys.executable, "-m", "orchestrator.models.share", str(store.root / folder / GRAPH), str(fresh)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise _failure(folder, f"not done in {_SECONDS:.0f} s") from None
        if done.returncode != 0:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise _failure(folder, f"exit code {done.returncode}: {last[-1] if last else 'it said nothing'}")
        manifest = msgspec.structs.replace(
            parent,
            parent=folder,
            cpu_features=cpu_features(),
            files=digest_files(fresh, [fresh / GRAPH, fresh / DATA], store.index),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            build_seconds=round(time.perf_counter() - started, 3),
        )
        manifests.path_of(fresh).write_bytes(manifests.encode(manifest))
    log.info("artefact=%s made after=%.2fs", name, time.perf_counter() - started)


def _failure(folder: str, why: str) -> ModelError:
    return ModelError(
        "the weights cannot be shared between workers",
        where=folder,
        why=why,
        remedy="each worker loads a copy of its own",
        unworkable=False,
    )


def let_go(path: Path) -> None:
    """Asks the kernel to drop the file's clean pages that nobody has mapped; source: posix_fadvise(2)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def write(source: Path, folder: Path) -> None:
    """Loads the graph as a worker does, and writes it with its weights as they are then."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / GRAPH)
    for key, value in {
        "session.optimized_model_external_initializers_file_name": DATA,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_SMALLEST_BYTES),
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(key, value)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
