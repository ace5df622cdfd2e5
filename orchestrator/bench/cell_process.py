"""What runs inside a measuring process? One instance as a worker is: bound first, then loaded, then asked for one shape after another.

`python -m orchestrator.bench.cell_process` reads lines of JSON from standard input, first a CellSpec, then a Visit each, and answers each
with a line of `cells.FromCell` on standard output. End of file ends it, and the kernel kills it when its parent dies.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from orchestrator.bench.cells import Failed, FromCell, Loaded, Seen, Visit
from workers.bind import BindError, bind
from workers.channel import SupervisorGone, die_with_parent
from workers.isolated import isolated_cpus, spread, threads
from workers.spec import Artefact, Binding, WorkerSpec

if TYPE_CHECKING:
    from workers.engines.base import Engine

MOST_RUNS = 20_000
"""Of one visit: enough for any quantile, and no more than a line of 400 kB."""


class CellSpec(msgspec.Struct, frozen=True):
    parent_pid: int
    worker: WorkerSpec


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # an engine that prints must not spoil the answers

    def answer(said: FromCell) -> None:
        line = msgspec.json.encode(said) + b"\n"
        while line:
            line = line[os.write(out, line) :]

    spec = msgspec.json.decode(sys.stdin.readline(), type=CellSpec)
    try:
        die_with_parent(spec.parent_pid)
    except SupervisorGone:
        return
    worker, artefact = spec.worker, spec.worker.artefact
    if artefact is None:
        answer(Failed("the specification names no artefact"))
        return
    started = time.monotonic()
    try:
        binding = bind(worker.cpus, worker.membind, worker.nodes_on_machine)
    except BindError as error:
        answer(Failed(str(error)))
        return
    # Only now: the first touch of every page of numpy and of the engine shall happen on the bound node.
    from workers.engines.base import EngineError, LoadError
    from workers.engines.chosen import load

    try:
        before = threads()
        engine = load(worker)
    except LoadError as error:
        answer(Failed(str(error)))
        return
    notes = spread(worker.cpus, isolated_cpus(), before)
    answer(Loaded(time.monotonic() - started, Binding(binding.policy, [*binding.notes, *notes])))
    for line in sys.stdin:
        visit = msgspec.json.decode(line, type=Visit)
        try:
            answer(visited(engine, worker, artefact, visit))
        except (EngineError, LoadError) as error:
            answer(Failed(str(error)))


def visited(engine: Engine, spec: WorkerSpec, artefact: Artefact, visit: Visit) -> Seen:
    """One run, then from the moment that all instances share on, over and over."""
    from workers.costs import example
    from workers.warmup import warm_up

    shape = visit.shape
    runs: list[float] = []
    cpu, waited = 0.0, None
    if visit.seconds <= 0.0:
        started = time.perf_counter()
        warm_up(engine, msgspec.structs.replace(spec, warmup=[(shape.batch, shape.length)]))
        first = time.perf_counter() - started
    else:
        run = example(engine, artefact, shape.batch, shape.length)
        time.sleep(max(0.0, visit.at - time.monotonic()))
        started = time.perf_counter()
        run()
        before = time.perf_counter()
        first = before - started
        end = before + visit.seconds
        cpu, before_waiting = time.process_time(), waiting()
        while True:
            run()
            now = time.perf_counter()
            runs.append(now - before)
            before = now
            if now >= end or len(runs) == MOST_RUNS:
                break
        cpu = time.process_time() - cpu
        after_waiting = waiting()
        if before_waiting is not None and after_waiting is not None:
            waited = after_waiting - before_waiting
    private, rss = memory()
    return Seen(first, runs, cpu, waited, private, rss)


def memory(rollup: Path = Path("/proc/self/smaps_rollup")) -> tuple[int, int]:
    """Private and resident bytes of this process. Source: proc_pid_smaps(5)."""
    text = rollup.read_text()
    sizes = {name: int(kb) << 10 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0), sizes.get("Rss", 0)


def waiting(tasks: Path = Path("/proc/self/task")) -> float | None:
    """Seconds that all threads of this process have waited for a CPU so far; None where the kernel does not count it.

    Source: Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat: the second number, nanoseconds.
    """
    try:
        return sum(int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir()) / 1e9
    except (OSError, IndexError):
        return None


def _end() -> NoReturn:
    sys.stderr.flush()
    os._exit(0)  # OpenVINO may abort while it is taken apart (workers/__main__.py)


if __name__ == "__main__":
    main()
    _end()
