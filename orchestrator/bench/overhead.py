"""What do gateway, router and messaging cost per request? `make bench-overhead`.

Three figures, each with what it is compared to, all in one run on the same cores:
1. CPU time per short request at 32 in flight: gateway, router, and the part of the workers that is not the engine.
2. Latency added at one in flight: median over HTTP minus the engine's own median for the same texts, in alternating rounds; with idle
   cores as the host has them, and kept awake as `cpu_latency_us: 0` does it, where that is allowed.
3. Throughput on short text with 2 instances, as a share of two bare pinned processes that tokenize and run the same graph.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.bench.bare import BareResult, BareSpec
from orchestrator.bench.environment import Watch
from orchestrator.bench.load import LoadResult, closed_loop, embed_request
from orchestrator.bench.running import Running, running
from orchestrator.bench.texts import short_texts
from orchestrator.idle import NotHeld, cpu_latency
from orchestrator.models import ModelError, Prepared, prepare
from orchestrator.models.choose import Wish
from orchestrator.models.optimize import tune
from orchestrator.paths import cache_folder
from orchestrator.status import Status
from topology.sysfs import read_machine
from workers.spec import Artefact, WorkerSpec

SEED = 20
TEXTS = 64


class Bare:
    """One bare process; `start` and `result` apart, so that two can run at once."""

    def __init__(
        self, prepared: Prepared, artefact: Artefact, cpus: list[int], texts: list[str], batch: int = 1
    ) -> None:
        spec = WorkerSpec(
            name="bare", incarnation=1, cpus=cpus, membind=[], nodes_on_machine=1, threads=len(cpus), endpoint="",
            max_seqlen=prepared.status.max_seqlen, warmup=[], artefact=artefact,
        )  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": str(len(cpus)), "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.bench.bare"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._say(msgspec.json.encode(BareSpec(spec, prepared.tokenizer, texts, batch)))
        assert self._line() == b"ready\n"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, seconds: float) -> None:
        self._say(b"run %f" % seconds)

    def result(self) -> BareResult:
        return msgspec.json.decode(self._line(), type=BareResult)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def bare_processes(
    prepared: Prepared, artefacts: Sequence[Artefact], cores: Sequence[list[int]], texts: list[str], batch: int = 1
) -> Iterator[list[Bare]]:
    """One on the cores of each instance, computing with what that instance computes with."""
    started = [Bare(prepared, artefact, cpus, texts, batch) for artefact, cpus in zip(artefacts, cores, strict=True)]
    try:
        yield started
    finally:
        for one in started:
            one.close()


def artefacts_of(
    prepared: Prepared, status: Status, cache: Path, precision: str = "auto", engine: str = "auto"
) -> list[Artefact]:
    """What each running instance computes with: the same form of the model that the program chose for its bucket."""
    tuned = tune(prepared, cache, Wish(precision, engine), None, lambda line: print(line, file=sys.stderr))
    chosen = []
    for one in status.instances:
        low, high = (one.bucket.min, one.bucket.max) if one.bucket else (1, one.max_seqlen)
        variant = tuned.choose(low, min(high, one.max_seqlen)).variant
        if (one.precision, one.engine) != (variant.precision, variant.engine):
            raise ModelError(
                f"{one.name} runs {one.precision} on {one.engine}",
                why=f"{variant.name} was chosen for its bucket here",
                remedy="run the benchmark with the cache folder that the program uses",
            )
        chosen.append(variant.artefact(prepared.artefact, str(tuned.root)))
    return chosen


def cpu_seconds(status: Status) -> dict[str, float]:
    """By part: gateway, router, messaging (workers without their engines); and how long the gateway has tokenized, by the clock."""
    return {
        "gateway": sum(gateway.cpu_seconds or 0.0 for gateway in status.gateways),
        "router": status.router.cpu_seconds or 0.0,
        "messaging": sum((each.cpu_seconds or 0.0) - each.engine_cpu_seconds for each in status.instances),
        "tokenizing": sum(gateway.tokenize_seconds for gateway in status.gateways),
    }


def measure_cpu(one: Running, requests: list[bytes], seconds: float) -> tuple[dict[str, float], LoadResult]:
    """Microseconds of CPU per request by part, at 32 in flight."""
    closed_loop(*one.address, requests, 32, 1.0)
    before = cpu_seconds(one.status())
    load = closed_loop(*one.address, requests, 32, seconds)
    after = cpu_seconds(one.status())
    count = len(load.latencies)
    return {part: (after[part] - before[part]) / count * 1e6 for part in after}, load


def measure_added(process: Bare, one: Running, requests: list[bytes], seconds: float, failures: Counter[int]) -> float:
    """Milliseconds that one request in flight takes over HTTP, beyond the engine's own time for the same texts; medians."""
    process.start(seconds)
    engine = process.result().engine_median
    single = closed_loop(*one.address, requests, 1, seconds)
    failures.update(single.failures)
    return (single.quantile(0.5) - engine) * 1e3


def measure(cache: Path, seconds: float, rounds: int, precision: str) -> dict[str, Any]:
    prepared = prepare(None, cache=cache)
    watch = Watch(read_machine())
    texts = short_texts(SEED, TEXTS)
    with running(["--instances", "2", "--precision", precision], cache) as one:
        planned = one.status().instances
        cores = [instance.cpus for instance in planned]
        requests = [embed_request(*one.address, text) for text in texts]
        cpu, load = measure_cpu(one, requests, seconds * 2)
        tokenizing = cpu.pop("tokenizing")
        served, bare, added, awake, failures = [], [], [], [], Counter(load.failures)
        artefacts = artefacts_of(prepared, one.status(), cache, precision)
        with bare_processes(prepared, artefacts, cores, texts) as processes:
            for _ in range(rounds):
                for process in processes:
                    process.start(seconds)
                results = [process.result() for process in processes]
                bare.append(sum(result.count / result.seconds for result in results))
                full = closed_loop(*one.address, requests, 32, seconds)
                served.append(full.per_second)
                failures.update(full.failures)
                added.append(measure_added(processes[0], one, requests, seconds, failures))
                with suppress(NotHeld), cpu_latency(0):
                    awake.append(measure_added(processes[0], one, requests, seconds, failures))
        environment = watch.environment()
    return {
        "environment": msgspec.to_builtins(environment),
        "cores": cores,
        "precision": "+".join(dict.fromkeys(each.precision or "fp32" for each in planned)),
        "seed": SEED,
        "seconds": seconds,
        "rounds": rounds,
        "cpu_us_per_request": {part: round(value, 1) for part, value in cpu.items()},
        "tokenizing_us_per_request": round(tokenizing, 1),
        "cpu_us_per_request_total": round(sum(cpu.values()), 1),
        "added_ms_at_one_in_flight": round(statistics.median(added), 3),
        "added_ms_with_cores_awake": round(statistics.median(awake), 3) if awake else None,
        "served_per_second": round(statistics.median(served), 1),
        "bare_per_second": round(statistics.median(bare), 1),
        "share_of_bare": round(statistics.median(a / b for a, b in zip(served, bare, strict=True)), 3),
        "failures": failures,
    }


def table(figures: dict[str, Any]) -> str:
    cpu = figures["cpu_us_per_request"]
    awake = figures["added_ms_with_cores_awake"]
    rows = [
        ("CPU per request at 32 in flight: gateway", f"{cpu['gateway']:.0f} µs", ""),
        ("    of which tokenizing", f"{figures['tokenizing_us_per_request']:.0f} µs", ""),
        ("  router", f"{cpu['router']:.0f} µs", "≤ 45"),
        ("  messaging in the workers", f"{cpu['messaging']:.0f} µs", ""),
        ("  all three", f"{figures['cpu_us_per_request_total']:.0f} µs", "≤ 220"),
        ("added latency at one in flight, median", f"{figures['added_ms_at_one_in_flight']:.2f} ms", "≤ 0.5"),
        ("  with cpu_latency_us: 0", "not allowed" if awake is None else f"{awake:.2f} ms", "≤ 0.5"),
        ("served, 2 instances, 32 in flight", f"{figures['served_per_second']:.0f} /s", ""),
        ("two bare processes", f"{figures['bare_per_second']:.0f} /s", ""),
        ("served / bare, median of rounds", f"{figures['share_of_bare']:.2f}", "≥ 0.75"),
        ("failed requests", str(sum(figures["failures"].values())), "0"),
    ]
    where = figures["environment"]
    head = f"{where['cpu']}, kernel {where['kernel']}, cores {figures['cores']}, {figures['precision']}, seed {figures['seed']}"
    warnings = [f"  warning: {each}" for each in where["warnings"]]
    return "\n".join([head, *(f"  {name:<44}{value:>10}   {wanted}" for name, value, wanted in rows), *warnings])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.bench.overhead", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; the median counts")
    parser.add_argument(
        "--precision", choices=("fp32", "int8", "bf16", "auto"), default="fp32", help="as of `orchestrator up`"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(cache_folder(None, os.environ), args.seconds, args.rounds, args.precision)
    print(json.dumps(figures) if args.json else table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
