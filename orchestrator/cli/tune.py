"""`orchestrator tune`: which layout is best for this model, these lengths and this machine? Measured, searched, served, written."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import get_args

import msgspec

from orchestrator.bench import outputs
from orchestrator.claims import ClaimError, Claims
from orchestrator.cli.bar import Bar
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.mix import DEFAULT_MIX, HELP, mix_of
from orchestrator.cli.options import add_cache_dir, as_declared, cache_dir, claim_scope, number, whole
from orchestrator.cli.plan import machine_of
from orchestrator.cli.simulate import cost_table, machine_asked, refuse_longer
from orchestrator.config.declared import option
from orchestrator.config.schema import Engine, Layout, Precision
from orchestrator.models.choose import Wish
from orchestrator.models.errors import ModelError
from orchestrator.models.optimize import tune as studied
from orchestrator.models.preparation import prepare
from orchestrator.models.progress import Show, Step
from orchestrator.plan.model import PlanError
from orchestrator.plan.solve import DEFAULT_MAX_SEQLEN, PlanRequest, plan
from orchestrator.simulate.costs import CostError, TrueCosts
from orchestrator.simulate.mixes import MIXES, Mix
from orchestrator.tune.goal import Goal, Load
from orchestrator.tune.lengths import cut
from orchestrator.tune.proposal import Form, as_planned
from orchestrator.tune.report import Candidate, Outcome, document, printed
from orchestrator.tune.search import search
from orchestrator.tune.session import Live, TuneError, Wanted, outcome, problem_of, tuned_here
from orchestrator.tune.write import DoesNotReadBack

_positive = number(0, 1e9, above=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model, as of `up`")
    model.add_argument("--model", metavar="M", help=option("model").help)
    model.add_argument("--task", metavar="T", help=option("task").help)
    model.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="auto",
        help=f"{option('precision').help} (default: auto; fp32 keeps the model's own answers)",
    )
    model.add_argument("--engine", choices=get_args(Engine), default="auto", help=option("engine").help)
    model.add_argument("--min-cosine", type=as_declared("min_cosine"), metavar="C", help=option("min_cosine").help)
    model.add_argument("--max-seqlen", type=as_declared("max_seqlen"), metavar="N", help=option("max_seqlen").help)
    what = parser.add_argument_group("what for")
    what.add_argument(
        "--mix",
        default=DEFAULT_MIX,
        metavar="NAME|FILE",
        help=f"{HELP}; one of those by name is cut at the model's limit",
    )
    what.add_argument(
        "--goal", choices=get_args(Goal), default="throughput",
        help="throughput: the highest rate with p99 within limits; latency: the lowest p99 at a rate (default: throughput)",
    )  # fmt: skip
    load = what.add_mutually_exclusive_group()
    load.add_argument("--rate", type=_positive, metavar="R", help="requests per second, for --goal latency")
    load.add_argument(
        "--in-flight", type=whole(1, 4096), metavar="N", help="so many clients that each wait for their answer"
    )
    what.add_argument(
        "--p99-ms",
        type=_positive,
        metavar="MS",
        help="limit for the p99 of each class of lengths (default: ten times what its longest takes alone on one core, 10 ms at least)",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--seconds", type=_positive, metavar="S", help="for measuring and serving (default: what it takes; said first)"
    )
    how.add_argument(
        "--no-verify", action="store_true", help="do not serve the best layouts in turns; believe the simulation"
    )
    how.add_argument(
        "--seed", type=whole(0, 1 << 31), default=1, metavar="N", help="equal seeds search alike (default: 1)"
    )
    elsewhere = parser.add_argument_group("for a machine that is not this one, without measuring and serving")
    elsewhere.add_argument(
        "--costs", nargs="+", metavar="NAME|FILE", help="cost tables, one per precision and engine, as of `simulate`"
    )
    elsewhere.add_argument(
        "--any-costs", action="store_true", help="use them even where they are of another CPU or engine version"
    )
    where = elsewhere.add_mutually_exclusive_group()
    where.add_argument("--machine", metavar="PxC", help="packages × cores, such as 2x24, or 2x24x2")
    where.add_argument("--sysroot", type=Path, metavar="DIR", help="a captured tree; omitted: this machine's cores")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the layout file; omitted: standard output")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.add_argument("--json", action="store_true", help="print one JSON document: all candidates and the layout")
    add_cache_dir(parser)


def run(args: argparse.Namespace) -> int:
    _refuse_contradictions(args)
    if args.out is not None:
        try:
            outputs.check({"--out": args.out}, force=args.force)
        except outputs.OutputError as error:
            raise CommandError(str(error), USAGE) from None
    mix = mix_of(args.mix)
    with Bar(sys.stderr, wanted=not args.json) as bar:
        try:
            found, text = _elsewhere(args, mix, bar.show) if args.costs else _here(args, mix, bar.say, bar.show)
        except ModelError as error:
            raise CommandError(str(error), UNWORKABLE if error.unworkable else FAILED) from None
        except TuneError as error:
            raise CommandError(str(error), USAGE if error.wrong_usage else FAILED) from None
        except PlanError as error:
            raise CommandError(str(error), UNWORKABLE) from None
        except (CostError, DoesNotReadBack) as error:
            raise CommandError(str(error), FAILED) from None
    return _give_out(args, found, text)


def _give_out(args: argparse.Namespace, found: Outcome, text: str) -> int:
    """Figures first: a disk that is full costs the file and not what was found."""
    print(printed(found), file=sys.stderr)
    if args.json:
        body = document(found, text, str(args.out) if args.out is not None else None)
        print(msgspec.json.format(msgspec.json.encode(body), indent=2).decode())
    elif args.out is None:
        print(text, end="")
    sys.stdout.flush()
    if args.out is None:
        return 0
    problems = outputs.write([("--out", args.out, text)])
    if problems:
        if not args.json:
            print(text, end="", flush=True)  # what took minutes to find is not lost
        raise CommandError("; ".join(problems), FAILED)
    print(f"written to {args.out}; serve it: orchestrator up --layout {args.out}", file=sys.stderr)
    return 0


def _refuse_contradictions(args: argparse.Namespace) -> None:
    if args.costs is None and (args.machine is not None or args.sysroot is not None):
        raise CommandError(
            "--machine and --sysroot name a machine that cannot be measured from here: say --costs as well, see `simulate --help`",
            USAGE,
        )
    if args.costs is not None and (args.model is not None or args.task is not None):
        raise CommandError("--costs says which model it was measured with; leave --model and --task out", USAGE)
    if args.costs is None and args.any_costs:
        raise CommandError("--any-costs goes with --costs", USAGE)
    if args.force and args.out is None:
        raise CommandError("--force goes with --out", USAGE)
    if args.goal == "throughput" and args.rate is not None:
        raise CommandError(
            "--goal throughput looks for the rate: leave --rate out, or say --goal latency to have the lowest p99 at this rate",
            USAGE,
        )
    if args.goal == "latency" and args.rate is None and args.in_flight is None:
        raise CommandError("--goal latency: at which load? say --rate or --in-flight", USAGE)


def _wanted(args: argparse.Namespace, mix: Mix, longest: int) -> Wanted:
    """With the lengths of a mix that we ship cut at the model's limit; those of a file have to fit."""
    if args.mix in MIXES:
        fitting = cut(mix, longest)
        said = f"{args.mix}, cut at {longest} tokens" if fitting != mix else args.mix
    else:
        refuse_longer(mix.longest, longest, f"--mix {args.mix}")
        fitting, said = mix, Path(args.mix).name
    shortest = min(each.low for each in fitting.classes)
    return Wanted(
        mix=fitting,
        mix_in_words=f"{said} ({shortest} to {fitting.longest} tokens)",
        goal=args.goal,
        load=Load(rate=args.rate, in_flight=args.in_flight),
        p99_ms=args.p99_ms,
        when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        seed=args.seed,
    )


def _here(args: argparse.Namespace, mix: Mix, say: Callable[[str], None], show: Show) -> tuple[Outcome, str]:
    # Whoever ends it in the usual way finds no orchestrator of the last phase still serving.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine = machine_of(Path("/"))
    with closing(Claims(claim_scope())) as claims:
        try:
            claims.claim(cpu.cpu for cpu in machine.cpus if cpu.allowed and cpu.online)
        except ClaimError as error:
            raise CommandError(
                f"{error}, and measuring would disturb it, and it the measurement; stop it first (`orchestrator down`), or run "
                "tune with other cores (taskset)"
            ) from None
        show(Step("fp32: reading, building and checking"))
        cache = cache_dir(args)
        prepared = prepare(args.model, task=args.task, max_seqlen=args.max_seqlen, cache=cache)
        if prepared.artefact.pixels is not None:
            raise CommandError(
                f"{prepared.status.id} reads images, which are all of one length: there are no lengths to tune for; "
                "`orchestrator plan --instances N` says what N instances would be", USAGE,
            )  # fmt: skip
        wanted = _wanted(args, mix, prepared.status.max_seqlen)
        min_cosine = option("min_cosine").default if args.min_cosine is None else args.min_cosine
        tuned = studied(prepared, cache, Wish(args.precision, args.engine, min_cosine), None, say, show)
        base = Layout(
            version=1, model=args.model, task=args.task, min_cosine=min_cosine, max_seqlen=prepared.status.max_seqlen,
            precision=args.precision, engine=args.engine,
        )  # fmt: skip
        live = Live(machine, tuned, base, cache, args.seconds, not args.no_verify)
        return tuned_here(live, wanted, say, show)


def _elsewhere(args: argparse.Namespace, mix: Mix, show: Show) -> tuple[Outcome, str]:
    machine, real = machine_asked(args)
    files = [cost_table(name, args, machine, real) for name in args.costs]
    models = list(dict.fromkeys(file.model for file in files))
    if len(models) > 1:
        raise CommandError(f"--costs: of different models: {' and '.join(models)}; name tables of one", USAGE)
    forms: dict[str, Form] = {}
    for name, file in zip(args.costs, files, strict=True):
        if file.precision not in get_args(Precision) or file.engine not in get_args(Engine):
            raise CommandError(
                f"--costs {name}: {file.precision} on {file.engine} is nothing that can be served", FAILED
            )
        form = Form(file.precision, file.engine, TrueCosts(file, name))  # type: ignore[arg-type] # checked above
        if form.name in forms:
            raise CommandError(f"--costs: two tables of {form.name}; name one", USAGE)
        forms[form.name] = form
    longest = args.max_seqlen or DEFAULT_MAX_SEQLEN
    wanted = _wanted(args, mix, longest)
    planned = plan(machine, PlanRequest(max_seqlen=longest))
    base = Layout(version=1, model=models[0], max_seqlen=longest)
    fastest = min(forms, key=lambda name: forms[name].costs.seconds(1, False, 1, wanted.mix.longest))
    default = as_planned(planned, base, {str(each.name): fastest for each in planned.instances}, forms)
    problem = problem_of(machine, forms, wanted, default, base)
    started = time.monotonic()
    found = search(problem, lambda _, done, total: show(Step("simulating layouts", done, total)))
    candidates = [Candidate(each.entrant, each.figures) for each in found.finalists]
    source = f"worked out from {' and '.join(Path(name).name for name in args.costs)}, measured on {files[0].cpu or 'an unnamed CPU'}"
    return outcome(
        problem, wanted, found, candidates, forms, models[0], {"searching": ceil(time.monotonic() - started)}, found.notes, source
    )  # fmt: skip
