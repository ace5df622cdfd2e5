"""How long do batches take on this instance? Measured before it says that it is ready, and kept for the next start.

Theory of operation. A few shapes, short to long, alone and in small batches, each the fastest of three runs (what disturbs a
run only makes it slower), the shortest first and no more than `MOST_SECONDS` of it all. The points go to the router with
HELLO, which fits its predictions to them. They are kept in one file per artefact, threads and length, with the CPU and the
versions they were measured with. What is not there, cannot be read, or is of another CPU or version is said in the log and
measured anew. A table that was measured while the CPUs were busy with something else is used, since nothing better is known,
and not kept.
Imported after binding.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from workers.engines.base import Engine, run_pixels
from workers.spec import Artefact, WorkerSpec
from workers.wire import Cost

FORMAT = 1
MOST_SECONDS = 2.0
RUNS = 3
LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
BATCHES = (1, 2, 8)
MOST_TOKENS = 1024
"""Larger batches say nothing new, and cost time."""
MOST_UNREST = 1.5
_LARGEST_FILE = 1 << 20
_PLAUSIBLE_SECONDS = (1e-7, 3600.0)


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Under which a table holds."""

    cpu: str
    engine_version: str


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    conditions: Conditions
    points: list[Cost]


class UnusableTable(Exception):
    """Why a kept table is not used."""


def costs_of(engine: Engine, spec: WorkerSpec, say: Callable[[str], None]) -> list[Cost]:
    """The table of this instance, from its file or measured now. Empty for the fake engine, or where the specification names no folder.

    EngineError if the engine fails on a shape. `say` takes a line for the log.
    """
    artefact = spec.artefact
    if artefact is None or not spec.costs:
        return []
    path = Path(spec.costs) / f"{table_name(artefact, spec)}.json"
    conditions = here(artefact.engine)
    try:
        return read(path, conditions)
    except FileNotFoundError:
        pass
    except UnusableTable as why:
        say(f"costs={path} not used: {why}; measuring anew")
    points, unrest = measure(engine, spec, artefact)
    if unrest > MOST_UNREST:
        say(
            f"costs={path} not kept: equal runs took up to {unrest:.1f} times as long as one another, something else uses these CPUs; "
            "measured again at the next start"
        )
        return points
    try:
        write(path, Table(FORMAT, conditions, points))
    except OSError as error:
        say(f"costs={path} not kept: {error.strerror}; measured at each start")
    return points


def table_name(artefact: Artefact, spec: WorkerSpec) -> str:
    """Names the content of the artefact, by its folder, which is named by it, and what else decides about the time."""
    graph = Path(artefact.path)
    try:
        size = graph.stat().st_size
    except OSError:
        size = 0  # the engine has loaded it from somewhere; then its name has to do
    what = (graph.parent.name, graph.name, size, artefact.engine, artefact.precision, spec.threads, spec.max_seqlen)
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:24]


def here(engine: str) -> Conditions:
    """This CPU, and the version of the engine."""
    try:
        version = metadata.version(engine)
    except metadata.PackageNotFoundError:
        version = "unknown"
    return Conditions(cpu_name(), version)


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Source: proc_cpuinfo(5). Where it names no model (Arm), what identifies the core."""
    known: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            known.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.machine()
    named = known.get("model name")
    if named:
        return named
    parts = [known[key] for key in ("CPU implementer", "CPU architecture", "CPU part", "CPU revision") if key in known]
    return " ".join((platform.machine(), *parts))


def read(path: Path, conditions: Conditions) -> list[Cost]:
    """FileNotFoundError if nothing was kept; UnusableTable says why it cannot be used."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableTable(f"it cannot be read: {error.strerror}") from None
    try:
        table = msgspec.json.decode(raw, type=Table)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnusableTable(f"it is harmed: {error}") from None
    if table.format != FORMAT:
        raise UnusableTable(f"it has format {table.format}, this program writes {FORMAT}")
    if table.conditions.cpu != conditions.cpu:
        raise UnusableTable(f"it was measured on {table.conditions.cpu!r}, this is {conditions.cpu!r}")
    if table.conditions != conditions:
        raise UnusableTable(
            f"it is stale: measured with version {table.conditions.engine_version}, installed is {conditions.engine_version}"
        )
    low, high = _PLAUSIBLE_SECONDS
    if not table.points or not all(p.length >= 1 and p.n >= 1 and low <= p.seconds <= high for p in table.points):
        raise UnusableTable("it holds no points, or points that cannot be")
    return table.points


def write(path: Path, table: Table) -> None:
    """Whole or not at all: under another name first. OSError if it cannot be kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        made.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=1))
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def measure(
    engine: Engine, spec: WorkerSpec, artefact: Artefact, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[Cost], float]:
    """The fastest of `RUNS` runs, the cheapest shapes first, until `MOST_SECONDS` have passed: at least one point. And how many times as
    long as the fastest the slowest run took, median over the shapes."""
    end = clock() + MOST_SECONDS
    points: list[Cost] = []
    spreads: list[float] = []
    dearest = 0.0
    """Seconds per token so far."""
    images = artefact.pixels
    for n, length in shapes(spec.max_seqlen) if images is None else [(n, artefact.positions) for n in BATCHES]:
        if points and clock() + RUNS * dearest * n * length > end:
            continue
        run = example(engine, artefact, n, length)
        run()  # the first run of a shape plans memory
        times = []
        for _ in range(RUNS):
            before = clock()
            run()
            times.append(clock() - before)
        seconds = min(times)
        spreads.append(max(times) / max(seconds, _PLAUSIBLE_SECONDS[0]))
        points.append(Cost(length, n, max(seconds, _PLAUSIBLE_SECONDS[0])))
        if n == 1:  # per token the longest single sequence so far tells most of the next
            dearest = seconds / length
    return points, median(spreads)


def example(engine: Engine, artefact: Artefact, n: int, length: int) -> Callable[[], object]:
    """Runs one batch of `n` sequences of `length` tokens, or of `n` images."""
    if artefact.pixels is not None:
        images = np.zeros((n, *artefact.pixels), np.float32)
        return lambda: run_pixels(engine, images)
    ids = ((np.arange(n * length, dtype=np.int32).reshape(n, length) * 7 + 11) % artefact.vocab_size).astype(np.int32)
    mask = np.ones_like(ids)
    types = np.zeros_like(ids) if artefact.token_types else None
    return lambda: engine.run(ids, mask, types)


def shapes(max_seqlen: int) -> list[tuple[int, int]]:
    """(sequences, tokens of each) to be measured, the fewest tokens first; the longest sequence is among them."""
    lengths = {length for length in LENGTHS if length < max_seqlen} | {max_seqlen}
    pairs = [(n, length) for length in lengths for n in BATCHES if n == 1 or n * length <= MOST_TOKENS]
    return sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair))
