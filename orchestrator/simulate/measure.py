"""How long does each (threads, batch, length) take on this machine with this model? `python -m orchestrator.simulate.measure`.

The engine runs in this process, bound to as many cores as it has threads. The fastest of many runs counts: whatever else runs
on the machine only ever adds. The order of the shapes is turned from round to round, so that a slow moment does not hit one
shape alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from orchestrator.config.cores import usable_cores
from orchestrator.models import ModelError, prepare
from orchestrator.models.choose import Wish
from orchestrator.models.optimize import tune
from orchestrator.paths import cache_folder
from orchestrator.simulate.costs import VERSION, CostFile, Point
from topology.sysfs import read_machine
from workers.bind import bind_cpus
from workers.spec import Artefact, WorkerSpec

LENGTHS = (8, 16, 32, 64, 128, 256, 384, 512)
BATCHES = (1, 2, 4, 8)
THREADS = (1, 2)
MOST_TOKENS = 1024
"""Larger batches than the router makes are not worth the time."""


def measure(
    artefact: Artefact, cpus: Sequence[int], threads: int, shapes: Sequence[tuple[int, int]], seconds: float
) -> list[Point]:
    """The fastest run of each (batch, length), after one to warm up; about `seconds` in all."""
    import numpy as np

    if artefact.engine == "openvino":
        from workers.engines.openvino import load
    else:
        from workers.engines.onnxruntime import load  # type: ignore[assignment]

    chosen = list(cpus[:threads])
    bind_cpus(chosen)
    spec = WorkerSpec(
        name="measure", incarnation=1, cpus=chosen, membind=[], nodes_on_machine=1, threads=threads, endpoint="",
        max_seqlen=max(length for _, length in shapes), warmup=[], artefact=artefact,
    )  # fmt: skip
    engine = load(spec)
    best: dict[tuple[int, int], float] = {}
    types = artefact.token_types
    vocabulary = artefact.vocab_size
    inputs = {
        (n, length): (
            (np.arange(n * length, dtype=np.int32).reshape(n, length) * 7919) % (vocabulary - 1) + 1,
            np.ones((n, length), np.int32),
            np.zeros((n, length), np.int32) if types else None,
        )
        for n, length in shapes
    }
    for shape in shapes:
        engine.run(*inputs[shape])
    ends, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < ends or turn < 3:
        at = turn % len(shapes)
        for shape in [*shapes[at:], *shapes[:at]]:
            started = time.perf_counter()
            engine.run(*inputs[shape])
            took = time.perf_counter() - started
            best[shape] = min(best.get(shape, took), took)
        turn += 1
    return [Point(threads, n, length, round(best[n, length], 7)) for n, length in shapes]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.simulate.measure", description=__doc__)
    parser.add_argument("--model", help="as of `orchestrator up`; omitted: the embedded one")
    parser.add_argument("--precision", default="auto", help="as of `orchestrator up`")
    parser.add_argument("--engine", default="auto", help="as of `orchestrator up`")
    parser.add_argument("--max-seqlen", type=int, help="longest sequence; omitted: the model's")
    parser.add_argument("--seconds", type=float, default=20.0, help="per number of threads")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    args = parser.parse_args()
    machine = read_machine(Path("/"))
    cpus = [core.pu for core in usable_cores(machine, {})]
    try:
        cache = cache_folder(None, os.environ)
        prepared = prepare(args.model, max_seqlen=args.max_seqlen, cache=cache)
        tuned = tune(
            prepared, cache, Wish(args.precision, args.engine), None, lambda line: print(line, file=sys.stderr)
        )
        artefact = tuned.choose(1, prepared.status.max_seqlen).variant.artefact(prepared.artefact, str(tuned.root))
    except ModelError as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 1
    lengths = [length for length in LENGTHS if length <= prepared.status.max_seqlen]
    shapes = [(n, length) for n in BATCHES for length in lengths if n == 1 or n * length <= MOST_TOKENS]
    points: list[Point] = []
    for threads in THREADS:
        if threads <= len(cpus):
            print(f"measuring {len(shapes)} shapes with {threads} threads for {args.seconds:.0f} s", file=sys.stderr)
            points += measure(artefact, cpus, threads, shapes, args.seconds)
    file = CostFile(
        version=VERSION,
        model=prepared.status.id,
        engine=artefact.engine,
        engine_version=version(artefact.engine),
        precision=artefact.precision,
        cpu=machine.model_name,
        source=f"python -m orchestrator.simulate.measure --seconds {args.seconds:g}",
        points=points,
    )
    args.out.write_bytes(msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
