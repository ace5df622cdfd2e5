"""`orchestrator bench load`: latency and throughput of a server under load, a running one or those that it starts itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.bench.arrivals import poisson
from orchestrator.bench.columns import aligned
from orchestrator.bench.environment import Environment, Watch
from orchestrator.bench.knee import Knee, Tried, knee, next_rate
from orchestrator.bench.load import LoadResult, closed_load, open_loop
from orchestrator.bench.load_rows import Load, Ratio, is_fine, load_row, ratios
from orchestrator.bench.load_table import details, load_cells, load_charts
from orchestrator.bench.rows import LoadRow
from orchestrator.bench.running import cpu_seconds
from orchestrator.cli.bar import Bar
from orchestrator.cli.bench_result import INTERRUPTED, Result, add_output_arguments, check_outputs, give_out
from orchestrator.cli.bench_servers import Contestant, add_server_arguments, contestants
from orchestrator.cli.errors import FAILED, USAGE, CommandError
from orchestrator.cli.mix import DEFAULT_MIX, HELP, mix_of
from orchestrator.cli.options import (
    add_cache_dir,
    listed,
    number,
    whole,
    word_or,
)
from orchestrator.cli.plan import machine_of
from orchestrator.models.progress import Step

PURPOSE = (
    "A server under load, at a rate or with so many in flight: a running one, or several that are compared in turns"
)
IN_FLIGHT = (1, 16)
PROBE_IN_FLIGHT = 16
RESOLUTION = 0.05
"""Of the knee: a twentieth of the rate."""
MOST_RATE = 100_000.0
"""Three times what one generator can send."""
MOST_REQUESTS = 5_000_000
"""Of one load and round: their moments are drawn before."""
MOST_DETAILS = 6
"""Rows whose stages and instances are printed; JSON has those of all."""
_positive = number(0, 1e9, above=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_server_arguments(parser)
    load = parser.add_argument_group("load")
    how = load.add_mutually_exclusive_group()
    how.add_argument(
        "--rate", type=word_or("auto", listed(number(0, MOST_RATE, above=True))), metavar="R,…|auto",
        help="Open loop: requests per second at random moments, whatever is answered; latency counts from the moment a request was "
        "due. auto: the highest rate that keeps p99 within --p99-ms, by bisection to 5 %%.",
    )  # fmt: skip
    how.add_argument(
        "--in-flight", type=listed(whole(1, 512)), metavar="N,…",
        help=f"Closed loop: so many clients that each wait for their answer (default: {','.join(map(str, IN_FLIGHT))}).",
    )  # fmt: skip
    load.add_argument("--p99-ms", type=_positive, default=100.0, metavar="MS", help="For --rate auto (default: 100).")
    load.add_argument(
        "--mix", default=DEFAULT_MIX, metavar="NAME|FILE", help=f"{HELP[0].upper()}{HELP[1:]}.",
    )  # fmt: skip
    load.add_argument(
        "--seconds",
        type=number(0, 86400, above=True),
        default=5.0,
        metavar="S",
        help="Per load and round (default: 5).",
    )
    load.add_argument(
        "--warmup", type=number(0, 3600), default=2.0, metavar="S", help="Before each load, not counted (default: 2)."
    )
    load.add_argument(
        "--rounds",
        type=whole(1, 100),
        metavar="N",
        help="Turns that servers take under each load (default: 3 of several, else 1).",
    )
    load.add_argument(
        "--goodput-ms", type=_positive, default=100.0, metavar="MS", help="What counts as good (default: 100)."
    )
    load.add_argument(
        "--seed", type=int, default=1, metavar="N", help="Equal seeds give equal texts and moments (default: 1)."
    )
    add_output_arguments(parser)
    add_cache_dir(parser)


class Ceiling(msgspec.Struct, frozen=True):
    """The knee of one contestant."""

    name: str
    p99_ms: float
    rate: float | None
    """The highest that was borne; None: none that was tried."""
    over: float | None
    """The lowest that was not."""
    resolution: float = RESOLUTION

    def __str__(self) -> str:
        if self.rate is None and self.over is None:
            return f"{self.name}: answers nothing under load"
        if self.rate is None:
            return f"{self.name}: no rate keeps p99 within {self.p99_ms:g} ms, not even {self.over:.1f}/s"
        over = "no limit found" if self.over is None else f"{self.over:.1f}/s does not"
        return f"{self.name}: {self.rate:.1f}/s keeps p99 within {self.p99_ms:g} ms, {over}"


@dataclass
class Found:
    rows: list[LoadRow] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    check_outputs(args)
    mix = mix_of(args.mix)
    machine = machine_of(Path("/"))
    if isinstance(args.rate, list) and max(args.rate) * args.seconds > MOST_REQUESTS:
        raise CommandError(
            f"--rate {max(args.rate):g} for --seconds {args.seconds:g} are more than {MOST_REQUESTS:,} requests; choose less",
            USAGE,
        )
    found, interrupted, why = Found(), False, list[str]()
    with ExitStack() as stack:
        bar = stack.enter_context(Bar(sys.stderr, wanted=not args.json))
        servers = contestants(args, machine, mix, stack, bar)
        watch = Watch(machine, alone=args.url is None)
        try:
            measure(args, servers, bar, found)
        except KeyboardInterrupt:
            interrupted = True
            why.append("interrupted: not all was measured")
        except OSError as error:
            why.append(f"not all was measured: a server cannot be reached any more: {error.strerror or error}")
        environment = watch.environment(why)
    _give_out(args, found, servers, environment)
    if interrupted:
        return INTERRUPTED
    return FAILED if why or any(row.latency.count == 0 for row in found.rows) else 0


def measure(args: argparse.Namespace, contestants: Sequence[Contestant], bar: Bar, found: Found) -> None:
    """Every load on every contestant in turns. What is found is in `found` at once, whatever happens then."""
    rounds = args.rounds or (3 if len(contestants) > 1 else 1)
    if args.rate == "auto":
        for one in contestants:
            found.ceilings.append(_ceiling(args, one, rounds, bar, found))
        return
    loads = [Load(rate=rate) for rate in args.rate or []] or [Load(in_flight=n) for n in args.in_flight or IN_FLIGHT]
    turns = len(loads) * len(contestants) * rounds
    done = 0
    for load in loads:
        for one in contestants:
            bar.show(Step("load", done, turns))
            _warm_up(args, one, load)
        results: dict[str, list[LoadResult]] = {one.name: [] for one in contestants}
        spent = dict.fromkeys(results, 0.0)
        try:
            for turn in range(rounds):
                for one in contestants:
                    bar.show(Step("load", done, turns))
                    before = _cpu(one)
                    results[one.name].append(_put(one, load, args.seconds, args.seed + turn))
                    spent[one.name] += _cpu(one) - before
                    done += 1
        finally:
            whole = min(len(each) for each in results.values())
            for one in contestants:
                if results[one.name]:
                    cpu = spent[one.name] if one.running is not None else None
                    found.rows.append(load_row(one.name, load, results[one.name], args.goodput_ms, cpu))
            found.ratios += ratios(load, {name: each[:whole] for name, each in results.items()})
    bar.show(Step("load", turns, turns))


def _ceiling(args: argparse.Namespace, one: Contestant, rounds: int, bar: Bar, found: Found) -> Ceiling:
    bar.show(Step(f"{one.name}: {PROBE_IN_FLIGHT} in flight"))
    _warm_up(args, one, Load(in_flight=PROBE_IN_FLIGHT))
    probed = Load(in_flight=PROBE_IN_FLIGHT)
    full = load_row(one.name, probed, [_put(one, probed, args.seconds, args.seed)], args.goodput_ms)
    found.rows.append(full)
    if full.latency.count == 0:
        return Ceiling(one.name, args.p99_ms, None, None)
    start, tried = 0.8 * full.per_second, list[Tried]()
    while (rate := next_rate(tried, start, RESOLUTION)) is not None:
        load = Load(rate=round(rate, 2))
        fine = False
        for _ in range(2):  # what is not borne is tried once more: a disturbance must not decide
            bar.show(Step(f"{one.name}: {load}"))
            before = _cpu(one)
            results = [_put(one, load, args.seconds, args.seed + turn) for turn in range(rounds)]
            cpu = _cpu(one) - before if one.running is not None else None
            row = load_row(one.name, load, results, args.goodput_ms, cpu)
            found.rows.append(row)
            fine = is_fine(row, args.p99_ms)
            if fine:
                break
        tried.append(Tried(rate, fine))
    place: Knee = knee(tried)
    return Ceiling(one.name, args.p99_ms, place.fine, place.over)


def _warm_up(args: argparse.Namespace, one: Contestant, load: Load) -> None:
    """The same load, so that the router knows its costs and connections are open."""
    if args.warmup > 0.0:
        _put(one, load, args.warmup, args.seed - 1)


def _put(one: Contestant, load: Load, seconds: float, seed: int) -> LoadResult:
    if load.rate is not None:
        return open_loop(one.target.address, one.requests, poisson(load.rate, seconds, seed), seconds, one.kinds)
    assert load.in_flight is not None
    return closed_load(one.target.address, one.requests, load.in_flight, seconds, one.kinds)


def _cpu(one: Contestant) -> float:
    return 0.0 if one.running is None else cpu_seconds([one.running.pid])


def _give_out(
    args: argparse.Namespace, found: Found, contestants: Sequence[Contestant], environment: Environment
) -> None:  # fmt: skip
    rows = found.rows
    notes = [f"{row.name}, {row.load}: INVALID: {row.invalid}" for row in rows if row.invalid is not None]
    notes += [
        f"{row.name}, {row.load}: {row.held_back} requests waited for a connection of the generator"
        for row in rows
        if row.held_back
    ]
    target = contestants[0].target
    how = f"{args.seconds:g} s per load and round after {args.warmup:g} s of warm-up, the generator on this machine"
    said = [
        f"{target.model} ({target.task}) on {environment.cpu}, {args.mix} texts, seed {args.seed}",
        f"{how}; good: within {args.goodput_ms:g} ms",
        *map(str, found.ceilings),
        *(
            f"{each.name} / {each.against}, {each.load}: answered {each.per_second:.2f}, p50 {each.p50:.2f}, p99 {each.p99:.2f}"
            for each in found.ratios
        ),
    ]
    extra = [line for row in rows for line in details(row)] if len(rows) <= MOST_DETAILS else []
    settings: Mapping[str, Any] = {
        "model": target.model,
        "task": target.task,
        "route": target.route,
        "mix": args.mix,
        "seed": args.seed,
        "seconds": args.seconds,
        "warmup": args.warmup,
        "rounds": max((row.rounds for row in rows), default=0),
        "p99_ms": args.p99_ms if args.rate == "auto" else None,
        "plans": {one.name: one.said or [f"{one.target.url}: not started here"] for one in contestants},
    }
    cells = load_cells(rows)
    table = aligned(cells, left=2) if rows else "nothing was measured"
    give_out(
        args,
        Result(
            kind="load",
            title=f"{target.model} under load",
            said=said,
            rows=rows,
            table="\n".join([table, "", *extra]) if extra else table,
            cells=cells,
            left=2,
            charts=load_charts(rows),
            notes=notes,
            settings=settings,
            environment=environment,
            more={"ratios": found.ratios, "ceilings": found.ceilings},
        ),
    )
