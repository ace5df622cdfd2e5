"""`orchestrator bench load`: latency and throughput of a server under load, a running one or those that it starts itself."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, get_args

import msgspec

from orchestrator.bench.arrivals import poisson
from orchestrator.bench.columns import aligned
from orchestrator.bench.environment import Environment, Watch
from orchestrator.bench.knee import Knee, Tried, knee, next_rate
from orchestrator.bench.load import LoadResult, closed_load, open_loop
from orchestrator.bench.load_rows import Load, Ratio, is_fine, load_row, ratios
from orchestrator.bench.load_table import details, load_cells, load_charts
from orchestrator.bench.rows import LoadRow
from orchestrator.bench.running import DidNotStart, Running, cpu_seconds, running
from orchestrator.bench.target import Target, TargetError, WrongUsage, probe, read_key
from orchestrator.bench.texts import text
from orchestrator.claims import Claims
from orchestrator.cli.bar import Bar
from orchestrator.cli.bench_result import INTERRUPTED, Result, add_output_arguments, check_outputs, give_out
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.mix import DEFAULT_MIX, HELP, mix_of
from orchestrator.cli.options import (
    add_cache_dir,
    as_declared,
    cache_dir,
    claim_scope,
    count_or_auto,
    listed,
    number,
    one_of,
    whole,
    word_or,
)
from orchestrator.cli.plan import layout_of, machine_of
from orchestrator.config.declared import option
from orchestrator.config.schema import Engine, Policy, Precision
from orchestrator.config.words import cpus_in_words
from orchestrator.models import ModelError, prepare
from orchestrator.models.progress import Step
from orchestrator.simulate import mixes
from topology.cpuset import format_cpulist
from topology.model import Machine

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
TEXTS = 4000
"""Different ones, so that no cache of tokens knows them all."""
SPECIAL_TOKENS = 2
"""Of a text of the embedded model; a word of `bench.texts` is one token there."""
_OWN = ("model", "task", "precision", "engine", "min_cosine", "instances", "max_seqlen")
"""Options of `up` that are handed on."""
_positive = number(0, 1e9, above=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_server_arguments(parser)
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


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    server = parser.add_argument_group("server")
    server.add_argument(
        "--url", metavar="URL", help="One that runs: http://HOST:PORT. Omitted: started here, with the options below."
    )
    server.add_argument("--key-file", type=Path, metavar="FILE", help="Its first line is the key to ask with.")
    server.add_argument("--model", metavar="M", help=option("model").help)
    server.add_argument("--task", metavar="T", help=option("task").help)
    server.add_argument("--precision", choices=get_args(Precision), help=option("precision").help)
    server.add_argument("--engine", choices=get_args(Engine), help=option("engine").help)
    server.add_argument("--min-cosine", type=as_declared("min_cosine"), metavar="C", help=option("min_cosine").help)
    server.add_argument(
        "--instances",
        type=count_or_auto,
        metavar="N|auto",
        help="How many instances; auto: as many as the machine bears.",
    )
    server.add_argument(
        "--max-seqlen",
        type=as_declared("max_seqlen"),
        metavar="N",
        help="Longest text, in tokens (default: the model's, or the mix's if longer).",
    )
    server.add_argument(
        "--policy", type=listed(one_of(*get_args(Policy))), metavar="P,…",
        help=f"{', '.join(get_args(Policy))}, with commas: a server for each, compared in turns.",
    )  # fmt: skip
    server.add_argument(
        "--layout",
        type=Path,
        action="append",
        metavar="FILE",
        help="Layout file; given again, a server for each, compared in turns.",
    )


@dataclass
class Contestant:
    name: str
    target: Target
    requests: list[bytes]
    kinds: list[str]
    """Of each of them: short, medium or long."""
    running: Running | None
    said: list[str] = field(default_factory=list)
    """Its plan."""


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
    _refuse_mixed_usage(args)
    found, interrupted = Found(), False
    with ExitStack() as stack:
        bar = stack.enter_context(Bar(sys.stderr, wanted=not args.json))
        contestants = _contestants(args, machine, mix, stack, bar)
        watch = Watch(machine, alone=args.url is None)
        try:
            measure(args, contestants, bar, found)
        except KeyboardInterrupt:
            interrupted = True
        except OSError as error:
            raise CommandError(f"the server cannot be reached any more: {error.strerror or error}", FAILED) from None
        environment = watch.environment(["interrupted: not all was measured"] if interrupted else [])
    _give_out(args, found, contestants, environment)
    if interrupted:
        return INTERRUPTED
    return FAILED if any(row.latency.count == 0 for row in found.rows) else 0


def _refuse_mixed_usage(args: argparse.Namespace) -> None:
    if isinstance(args.rate, list) and max(args.rate) * args.seconds > MOST_REQUESTS:
        raise CommandError(
            f"--rate {max(args.rate):g} for --seconds {args.seconds:g} are more than {MOST_REQUESTS:,} requests; choose less",
            USAGE,
        )
    if args.url is None:
        if args.key_file is not None:
            raise CommandError("--key-file is for a server that runs: say --url, or leave it out", USAGE)
        return
    given = [name for name in (*_OWN, "policy", "layout") if getattr(args, name) is not None]
    if given:
        option_ = f"--{given[0].replace('_', '-')}"
        raise CommandError(
            f"{option_} is for a server that is started here, and --url names one that runs; leave one out", USAGE
        )


def _contestants(
    args: argparse.Namespace, machine: Machine, mix: mixes.Mix, stack: ExitStack, bar: Bar
) -> list[Contestant]:  # fmt: skip
    rng = random.Random(args.seed)
    drawn = [mix.draw(rng, turn / TEXTS) for turn in range(TEXTS)]
    kinds = [kind for kind, _ in drawn]
    texts = [text(rng, max(1, tokens - SPECIAL_TOKENS)) for _, tokens in drawn]

    def contestant(name: str, url: str, server: Running | None) -> Contestant:
        try:
            target = probe(url, None if args.key_file is None else read_key(args.key_file))
        except TargetError as error:
            raise CommandError(str(error), USAGE if isinstance(error, WrongUsage) else FAILED) from None
        if target.longest is not None and mix.longest > target.longest:
            raise CommandError(
                f"--mix {args.mix} has texts of {mix.longest} tokens, {name} takes {target.longest}; "
                f"say --max-seqlen {mix.longest} where it is started, or choose another mix",
                USAGE,
            )
        return Contestant(name, target, [target.request(each) for each in texts], kinds, server)

    if args.url is not None:
        return [contestant(args.url, args.url, None)]
    _refuse_held_cores(machine)
    found = []
    for name, arguments in _servers(args, mix):
        bar.show(Step(f"starting {name}"))
        try:
            server = stack.enter_context(running(arguments, cache_dir(args)))
        except DidNotStart as error:
            raise CommandError(f"{name} did not start:\n{str(error).strip()}", FAILED) from None
        one = contestant(name, server.endpoint, server)
        for instance in server.status().instances:
            bucket = f"{instance.bucket.min}-{instance.bucket.max}" if instance.bucket else f"1-{instance.max_seqlen}"
            one.said.append(
                f"{instance.name}: CPUs {format_cpulist(instance.cpus)}, {bucket} tokens, {instance.precision} on {instance.engine}"
            )
        found.append(one)
    return found


def _servers(args: argparse.Namespace, mix: mixes.Mix) -> Iterator[tuple[str, list[str]]]:
    """The name and the command line of each that is started."""
    common = [
        word
        for name in _OWN
        if (value := getattr(args, name)) is not None
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    layouts = args.layout or [None]
    for path in args.layout or []:
        layout_of(path)  # before any is started
    if args.max_seqlen is None and args.layout is None:
        try:
            own = prepare(args.model, task=args.task, cache=cache_dir(args)).status.max_seqlen
        except ModelError as error:
            raise CommandError(str(error), UNWORKABLE if error.unworkable else FAILED) from None
        if mix.longest > own:
            common += ["--max-seqlen", str(mix.longest)]
    for layout, policy in product(layouts, args.policy or [None]):
        words = [*common]
        if layout is not None:
            words += ["--layout", str(layout.absolute())]
        if policy is not None:
            words += ["--policy", policy]
        parts = ([layout.stem] if layout is not None else []) + ([policy] if policy is not None else [])
        yield " ".join(parts) or "up", words


def _refuse_held_cores(machine: Machine) -> None:
    """One that serves here would be disturbed, and disturb."""
    with closing(Claims(claim_scope())) as claims:
        taken = claims.taken(cpu.cpu for cpu in machine.cpus if cpu.allowed)
    if taken:
        raise CommandError(
            f"{cpus_in_words(taken)} {'is' if len(taken) == 1 else 'are'} held by {next(iter(taken.values()))}; "
            "put load on it with --url, or stop it for the measurement",
            FAILED,
        )


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
        raise CommandError(f"{one.name} answers nothing under load: {full.refused}", FAILED)
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
