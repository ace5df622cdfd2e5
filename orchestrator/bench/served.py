"""How does the whole product serve mixed and short load, against bare processes and against round-robin? `make bench-served`.

Everything runs on the same cores in turns within each round: two pinned processes that tokenize and run the same graph with no
server at all, the product with the policy under test, and the product with round-robin. So a slow minute of the machine hits all of
them. Throughput is compared round by round and the median counts; latencies are those of all rounds together.
CPU time is that of whole process trees as the kernel counts it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import get_args

import msgspec

from orchestrator.bench.environment import Environment, Watch
from orchestrator.bench.load import LoadResult, closed_loop, embed_request
from orchestrator.bench.overhead import Bare, artefacts_of, bare_processes
from orchestrator.bench.rows import InstanceRow, LoadRow, latency, table
from orchestrator.bench.running import DidNotStart, Running, cpu_seconds, running
from orchestrator.bench.texts import classed_texts, short_texts
from orchestrator.config.schema import Policy
from orchestrator.models import ModelError, Prepared, prepare
from orchestrator.paths import cache_folder
from orchestrator.status import Status
from topology.sysfs import read_machine
from workers.spec import Artefact

SEED = 23
TEXTS = 400
POSITIONS = 512
IN_FLIGHT = 16
GOODPUT_MS = 100.0


class Best(msgspec.Struct, frozen=True):
    """The best existing server measured on this kind of machine with these texts: mosec, two workers; without batching on mixed load,
    with batches of 8 on short text."""

    per_second: float
    short_p99_ms: float | None


BEST = {"mixed": Best(354.0, 97.0), "short": Best(772.0, None)}


class Comparison(msgspec.Struct, frozen=True):
    """What one load showed. Shares are medians over the rounds."""

    load: str
    rows: list[LoadRow]
    share_of_bare: float
    share_of_bare_batch_8: float
    share_of_round_robin: float
    times_best_existing: float


class Report(msgspec.Struct, frozen=True):
    environment: Environment
    cores: list[list[int]]
    model: str
    precisions: list[str]
    engines: list[str]
    """Of each instance, and of the bare process on its cores."""
    policy: Policy
    seed: int
    seconds: float
    rounds: int
    loads: list[Comparison]
    one_in_flight_p50_ms: float
    failures: dict[int, int]


class _Tally:
    """What one contestant did over the rounds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.per_second: list[float] = []
        self.by_kind: dict[str, list[float]] = {}
        self.answered = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.failures: Counter[int] = Counter()

    def add(self, load: LoadResult, cpu_seconds: float) -> None:
        self.per_second.append(load.per_second)
        self.answered += len(load.latencies)
        self.seconds += load.seconds
        self.cpu_seconds += cpu_seconds
        for kind, latencies in load.by_kind.items():
            self.by_kind.setdefault(kind, []).extend(latencies)
        self.failures.update(load.failures)

    def row(self, before: Status | None = None, after: Status | None = None) -> LoadRow:
        every = [took for each in self.by_kind.values() for took in each]
        good = sum(took * 1e3 <= GOODPUT_MS for took in every)
        batches = sequences = tokens = padded = stolen = 0
        instances = []
        if before is not None and after is not None:
            for one, then in zip(after.instances, before.instances, strict=True):
                n, made = one.served - then.served, one.batches - then.batches
                real, computed = one.tokens - then.tokens, one.padded_tokens - then.padded_tokens
                busy = (one.engine_cpu_seconds - then.engine_cpu_seconds) / one.threads
                # Others had the cores for the rest of the time: a share of the time under load.
                share = min(1.0, busy / self.seconds)
                instances.append(
                    InstanceRow(
                        one.name, one.threads, round(share, 3), n, _ratio(n, made), 1.0 - _ratio(real, computed)
                    )
                )
                batches, sequences, tokens, padded = batches + made, sequences + n, tokens + real, padded + computed
                stolen += one.stolen - then.stolen
        return LoadRow(
            name=self.name,
            seconds=round(self.seconds, 2),
            per_second=round(statistics.median(self.per_second), 1),
            goodput_per_second=round(good / self.seconds, 1) if every else None,
            goodput_ms=GOODPUT_MS,
            latency=latency(every),
            classes={kind: latency(took) for kind, took in sorted(self.by_kind.items())},
            refused={str(code): count for code, count in sorted(self.failures.items())},
            batch_mean=_ratio(sequences, batches) if batches else None,
            padding_ratio=1.0 - _ratio(tokens, padded) if padded else None,
            stolen=stolen if instances else None,
            cpu_seconds_per_1000=round(self.cpu_seconds / self.answered * 1e3, 3) if self.answered else None,
            instances=instances,
        )


def _ratio(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0


def run_bare(processes: Sequence[Bare], seconds: float, tally: _Tally) -> float:
    """Texts per second of all of them together."""
    pids = [process.pid for process in processes]
    before = cpu_seconds(pids)
    for process in processes:
        process.start(seconds)
    results = [process.result() for process in processes]
    rate = sum(result.count / result.seconds for result in results)
    tally.per_second.append(rate)
    tally.answered += sum(result.count for result in results)
    tally.seconds += max(result.seconds for result in results)
    tally.cpu_seconds += cpu_seconds(pids) - before
    return rate


def run_served(one: Running, requests: Sequence[bytes], kinds: Sequence[str], seconds: float, tally: _Tally) -> float:
    before = cpu_seconds([one.pid])
    load = closed_loop(*one.address, requests, IN_FLIGHT, seconds, kinds)
    tally.add(load, cpu_seconds([one.pid]) - before)
    return load.per_second


@contextmanager
def contestants(policy: Policy, arguments: Sequence[str], cache: Path) -> Iterator[tuple[Running, Running]]:
    """The product with the policy under test, and with round-robin; one serves while the other idles."""
    common = ["--instances", "2", "--max-seqlen", str(POSITIONS), *arguments]
    with ExitStack() as stack:
        ours = stack.enter_context(running([*common, "--policy", policy], cache))
        rotating = stack.enter_context(running([*common, "--policy", "round-robin"], cache))
        yield ours, rotating


def compare(
    name: str, texts: Sequence[tuple[str, str]], ours: Running, rotating: Running, prepared: Prepared,
    artefacts: Sequence[Artefact], cores: Sequence[list[int]], policy: Policy, seconds: float, rounds: int,
) -> Comparison:  # fmt: skip
    words, kinds = [words for words, _ in texts], [kind for _, kind in texts]
    asked = {one: [embed_request(*one.address, each) for each in words] for one in (ours, rotating)}
    tallies = [_Tally("2 bare, batch 1"), _Tally("2 bare, batch 8"), _Tally(policy), _Tally("round-robin")]
    with (
        bare_processes(prepared, artefacts, cores, words) as single,
        bare_processes(prepared, artefacts, cores, words, 8) as eights,
    ):
        for one in (ours, rotating):  # the first batches of each shape, and the router's predictions
            closed_loop(*one.address, asked[one], IN_FLIGHT, 1.0)
        started = ours.status(), rotating.status()
        for _ in range(rounds):
            run_bare(single, seconds, tallies[0])
            run_served(ours, asked[ours], kinds, seconds, tallies[2])
            run_served(rotating, asked[rotating], kinds, seconds, tallies[3])
            run_bare(eights, seconds, tallies[1])
    ended = ours.status(), rotating.status()

    def share(of: _Tally) -> float:
        return round(statistics.median(a / b for a, b in zip(tallies[2].per_second, of.per_second, strict=True)), 3)

    return Comparison(
        name,
        [
            tallies[0].row(),
            tallies[1].row(),
            tallies[2].row(started[0], ended[0]),
            tallies[3].row(started[1], ended[1]),
        ],
        share(tallies[0]),
        share(tallies[1]),
        share(tallies[3]),
        round(statistics.median(tallies[2].per_second) / BEST[name].per_second, 3),
    )


def measure(
    policy: Policy, model: str | None, precision: str, engine: str, cache: Path, seconds: float, rounds: int
) -> Report:
    prepared = prepare(model, max_seqlen=POSITIONS, cache=cache)
    watch = Watch(read_machine())
    arguments = ["--precision", precision, "--engine", engine, *(["--model", model] if model else [])]
    mixed = classed_texts(SEED, TEXTS)
    short = [(words, "short") for words in short_texts(SEED, TEXTS)]
    with contestants(policy, arguments, cache) as (ours, rotating):
        cores = [instance.cpus for instance in ours.status().instances]
        artefacts = artefacts_of(prepared, ours.status(), cache, precision, engine)
        loads = [
            compare(name, texts, ours, rotating, prepared, artefacts, cores, policy, seconds, rounds)
            for name, texts in (("mixed", mixed), ("short", short))
        ]
        single = closed_loop(*ours.address, [embed_request(*ours.address, words) for words, _ in short], 1, seconds)
        environment = watch.environment()
    failures = dict(single.failures)
    for each in loads:
        for row in each.rows:
            for code, count in row.refused.items():
                failures[int(code)] = failures.get(int(code), 0) + count
    return Report(
        environment, cores, prepared.status.id, [each.precision for each in artefacts],
        [each.engine for each in artefacts], policy, SEED, seconds, rounds, loads, round(single.quantile(0.5) * 1e3, 3), failures,
    )  # fmt: skip


def printed(report: Report) -> str:
    lines = [
        f"{report.environment.cpu}, kernel {report.environment.kernel}, cores {report.cores}",
        f"{report.model}, {_forms(report)}, {POSITIONS} positions, {IN_FLIGHT} in flight",
        f"{report.rounds} rounds of {report.seconds:g} s, seed {report.seed}",
    ]
    for each in report.loads:
        ours, rotating = each.rows[2], each.rows[3]
        lines += ["", f"{each.load} load", table(each.rows), ""]
        goals = [
            ("requests/s / 2 bare, batch 1", each.share_of_bare, "≥ 0.95" if each.load == "mixed" else ""),
            ("requests/s / 2 bare, batch 8", each.share_of_bare_batch_8, "≥ 0.75" if each.load == "short" else ""),
            ("requests/s / round-robin", each.share_of_round_robin, ""),
            (
                "requests/s / best existing server",
                each.times_best_existing,
                "≥ 1.2" if each.load == "mixed" else "≥ 1.3",
            ),
            ("p99 of short / round-robin's", _over(ours, rotating, "short"), "≤ 0.5" if each.load == "mixed" else ""),
            ("p99 of long / round-robin's", _over(ours, rotating, "long"), "≤ 1.5"),
        ]
        best = BEST[each.load].short_p99_ms
        short = ours.classes.get("short")
        if best is not None and short is not None and short.p99_ms is not None:
            goals.append(("p99 of short / best existing server's", short.p99_ms / best, "≤ 0.25"))
        lines += [f"  {what:<38} {value:6.2f}   {goal}" for what, value, goal in goals if value is not None]
    lines += ["", f"  one in flight, short: p50 {report.one_in_flight_p50_ms:.2f} ms   ≤ 2.0"]
    lines += [f"  answers other than 200: {report.failures or 'none'}"]
    lines += [f"  warning: {each}" for each in report.environment.warnings]
    return "\n".join(lines)


def _forms(report: Report) -> str:
    pairs = zip(report.precisions, report.engines, strict=True)
    return " and ".join(f"{precision} on {engine}" for precision, engine in pairs)


def _over(ours: LoadRow, other: LoadRow, kind: str) -> float | None:
    mine, theirs = ours.classes.get(kind), other.classes.get(kind)
    if mine is None or theirs is None or mine.p99_ms is None or not theirs.p99_ms:
        return None
    return mine.p99_ms / theirs.p99_ms


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.bench.served", description=__doc__)
    parser.add_argument("--policy", choices=get_args(Policy), default="by-seqlen", help="the policy under test")
    parser.add_argument("--model", help="as of `orchestrator up`; omitted: the embedded one")
    parser.add_argument("--precision", default="auto", help="as of `orchestrator up`")
    parser.add_argument("--engine", default="auto", help="as of `orchestrator up`")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="each contestant's turns")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cache = cache_folder(None, os.environ)
    try:
        report = measure(args.policy, args.model, args.precision, args.engine, cache, args.seconds, args.rounds)
    except (ModelError, DidNotStart) as error:
        print(f"bench-served: {error}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(report).decode() if args.json else printed(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
