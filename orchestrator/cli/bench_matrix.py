"""`orchestrator bench matrix`: latency and throughput of the model itself, over forms × cores × instances × batch × length."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, get_args

from orchestrator.bench.cells import MatrixRow, Placement, Shape
from orchestrator.bench.environment import Environment, Watch
from orchestrator.bench.matrix import Matrix, measure_matrix, nodes_of, subjects_of
from orchestrator.bench.matrix_charts import matrix_charts
from orchestrator.bench.matrix_table import matrix_cells, matrix_table
from orchestrator.bench.placements import DoesNotFit, largest, placements
from orchestrator.claims import ClaimError, Claims
from orchestrator.cli.bar import Bar
from orchestrator.cli.bench_result import INTERRUPTED, Result, add_output_arguments, check_outputs, give_out
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.options import (
    add_cache_dir,
    as_declared,
    cache_dir,
    claim_scope,
    listed,
    number,
    one_of,
    whole,
    word_or,
)
from orchestrator.cli.plan import machine_of
from orchestrator.config.declared import option
from orchestrator.config.schema import Engine, Precision
from orchestrator.models import ModelError, Prepared, prepare
from orchestrator.models.choose import Wish
from orchestrator.models.optimize import Tuned, tune
from orchestrator.models.progress import Step
from orchestrator.models.variants import Variant
from orchestrator.simulate.costs import CostError, encode_costs
from orchestrator.simulate.measured import cost_file
from topology.model import Machine

PURPOSE = "The model itself in pinned processes, without a server: forms × cores × instances × batch × length"
LENGTHS = (16, 64, 128, 256, 512)
BATCHES = (1, 8)
COST_LENGTHS = (8, 16, 32, 64, 128, 256, 384, 512)
COST_BATCHES = (1, 2, 4, 8)
MOST_TOKENS = 2048
"""Of a batch that is measured unasked: larger ones than the router makes say nothing new."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help=option("model").help)
    parser.add_argument("--task", metavar="T", help=option("task").help)
    parser.add_argument(
        "--precision", type=listed(one_of(*get_args(Precision))), default=["auto"], metavar="P,…",
        help=f"{', '.join(get_args(Precision))}, with commas; auto: every one that this CPU can run (the default)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", type=listed(one_of(*get_args(Engine))), default=["auto"], metavar="E,…",
        help=f"{', '.join(get_args(Engine))}, with commas; auto: every one that is installed (the default)",
    )  # fmt: skip
    parser.add_argument("--max-seqlen", type=as_declared("max_seqlen"), metavar="N", help=option("max_seqlen").help)
    parser.add_argument(
        "--cores", type=word_or("all", listed(whole(1, 1 << 16))), metavar="N,…|all",
        help="Cores per instance, each with a thread; all: a node's (default: 1, 2, 4 and so on).",
    )  # fmt: skip
    parser.add_argument(
        "--instances", type=listed(word_or("fill", whole(1, 1 << 16))), metavar="N,…|fill",
        help="How many run at once, each in a process of its own on cores of its own; fill: as many as fit (default: 1,fill).",
    )  # fmt: skip
    parser.add_argument(
        "--lengths", type=listed(whole(1, 1 << 20)), metavar="N,…",
        help=f"Tokens of each sequence (default: {', '.join(map(str, LENGTHS))}, as far as the model goes).",
    )  # fmt: skip
    parser.add_argument(
        "--batches", type=listed(whole(1, 1 << 16)), metavar="N,…",
        help=f"Sequences per call (default: {', '.join(map(str, BATCHES))}, up to {MOST_TOKENS} tokens).",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=number(0, 3600, above=True), default=0.5, metavar="S", help="Per cell (default: 0.5)."
    )
    parser.add_argument(
        "--rounds", type=whole(1, 100), default=3, metavar="N",
        help="Turns that they are spread over; rounds that differ make a row noisy (default: 3).",
    )  # fmt: skip
    parser.add_argument(
        "--costs-out", type=Path, metavar="FILE",
        help="Write the table there that `orchestrator simulate --costs` reads; lengths and batches are then by default those of one.",
    )  # fmt: skip
    add_output_arguments(parser)
    add_cache_dir(parser)


def run(args: argparse.Namespace) -> int:
    check_outputs(args, costs_out=args.costs_out)
    machine = machine_of(Path("/"))
    with closing(Claims(claim_scope())) as claims, Bar(sys.stderr, wanted=not args.json) as bar:
        places = _placements(args, machine, claims)
        try:
            prepared = prepare(args.model, task=args.task, max_seqlen=args.max_seqlen, cache=cache_dir(args))
            shapes = _shapes(args, prepared)
            tuned, variants = _variants(args, prepared, bar)
            if args.costs_out is not None:
                _refuse_useless_costs(variants, places, shapes)
            subjects = subjects_of(tuned, variants, nodes_of(places), bar.say)
        except ModelError as error:
            raise CommandError(str(error), UNWORKABLE if error.unworkable else FAILED) from None
        watch = Watch(machine)
        count = len(subjects) * len(places) * len(shapes)
        about = count * args.seconds * 1.15 + len(subjects) * len(places)
        found, interrupted = Matrix(), False

        def show(step: Step) -> None:
            claims.attend()
            bar.show(step)

        try:
            bar.say(
                f"{count} cells: {len(subjects)} forms × {len(places)} placements × {len(shapes)} shapes, {args.seconds:g} s each: "
                f"about {about:.0f} s"
            )
            measure_matrix(
                subjects, places, shapes, seconds=args.seconds, rounds=args.rounds, show=show, take=found.take
            )
        except KeyboardInterrupt:
            interrupted = True
        environment = watch.environment(["interrupted: not all was measured"] if interrupted else [])
    _give_out(args, found, prepared, machine, places, shapes, environment, interrupted)
    if interrupted:
        return INTERRUPTED
    return FAILED if found.lost else 0


def _placements(args: argparse.Namespace, machine: Machine, claims: Claims) -> list[Placement]:
    """Claimed, so that no orchestrator that starts meanwhile is given these cores. CommandError."""
    taken = claims.taken(cpu.cpu for cpu in machine.cpus if cpu.allowed)
    most = largest(machine, taken)
    if not most:
        raise CommandError(
            f"no core is free: {'; '.join(dict.fromkeys(taken.values())) or 'none may be used'}; stop it for the measurement", FAILED
        )  # fmt: skip
    cores = [most] if args.cores == "all" else args.cores or [1 << power for power in range(most.bit_length())]
    try:
        found = placements(machine, cores, args.instances or [1, "fill"], taken)
        claims.claim(cpu for each in found for place in each.places for cpu in place.cpus)
    except DoesNotFit as error:
        raise CommandError(f"{error}; choose other --cores or --instances", USAGE) from None
    except ClaimError as error:
        raise CommandError(f"{error}, which has just started; try again when it has ended", FAILED) from None
    return found


def _shapes(args: argparse.Namespace, prepared: Prepared) -> list[Shape]:
    """CommandError for a length that the model does not take."""
    limit, costs = prepared.status.max_seqlen, args.costs_out is not None
    batches = args.batches or (COST_BATCHES if costs else BATCHES)
    if prepared.artefact.pixels is not None:
        if args.lengths not in (None, [limit]):
            raise CommandError(
                f"--lengths: {prepared.status.id} reads images, each counts as {limit}; leave it out", USAGE
            )
        return [Shape(batch, limit) for batch in batches]
    longest = max(args.lengths or [1])
    if longest > limit:
        positions = prepared.artefact.positions
        instead = (
            f"say --max-seqlen {longest}" if longest <= positions else f"choose at most {positions}, its positions"
        )
        raise CommandError(f"--lengths {longest}: {prepared.status.id} takes {limit} tokens; {instead}", USAGE)
    if args.lengths is None:
        known = [length for length in (COST_LENGTHS if costs else LENGTHS) if length <= limit]
        lengths = known if limit in known else [*known, limit]
    else:
        lengths = args.lengths
    unasked = args.lengths is None or args.batches is None
    return [
        Shape(batch, length)
        for batch in batches
        for length in lengths
        if not unasked or batch == 1 or batch * length <= MOST_TOKENS
    ]


def _variants(args: argparse.Namespace, prepared: Prepared, bar: Bar) -> tuple[Tuned, list[Variant]]:
    """What was asked for, each form once. ModelError for what cannot be had."""

    def tuned_for(wish: Wish) -> Tuned:
        return tune(prepared, cache_dir(args), wish, None, bar.say, bar.show)

    wishes = [Wish(*pair) for pair in product(args.precision, args.engine)]
    exact = {("fp32", "auto"), ("fp32", "onnxruntime")}
    first = tuned_for(Wish("fp32") if all((each.precision, each.engine) in exact for each in wishes) else Wish())
    chosen: dict[str, Variant] = {}
    for wish in wishes:
        tuned = first
        if not any(wish.admits(each) for each in first.study.variants):
            tuned = tuned_for(wish)
            tuned.choose(1, prepared.status.max_seqlen)
        for each in tuned.study.variants:
            if wish.admits(each) and each.problem is None:
                chosen.setdefault(each.name, each)
            elif wish.admits(each):
                bar.say(f"{each.name} is left out: {each.problem}")
    return first, list(chosen.values())


def _refuse_useless_costs(variants: Sequence[Variant], places: Sequence[Placement], shapes: Sequence[Shape]) -> None:
    """Before it is measured, what no cost table could be made of."""
    why = None
    if len(variants) != 1:
        why = f"it is of one form, these are {', '.join(each.name for each in variants)}; say --precision and --engine"
    elif not any(each.cores == 1 for each in places):
        why = "all numbers of cores are scaled from one core; take 1 into --cores"
    elif len({shape.length for shape in shapes}) < 2:
        why = "it takes two lengths or more to tell what a token costs"
    if why is not None:
        raise CommandError(f"--costs-out: {why}", USAGE)


def _give_out(
    args: argparse.Namespace, found: Matrix, prepared: Prepared, machine: Machine, places: Sequence[Placement],
    shapes: Sequence[Shape], environment: Environment, interrupted: bool,
) -> None:  # fmt: skip
    noisy = sum(row.noisy for row in found.rows)
    notes = [str(each) for each in found.lost]
    if noisy:
        notes.append(
            f"{noisy} of {len(found.rows)} rows are noisy: their rounds differ by more than 10 %, or their threads waited more than "
            "5 % of the time for CPUs that something else had"
        )
    settings: dict[str, Any] = {
        "model": prepared.status.id,
        "task": prepared.status.task,
        "seconds_per_cell": args.seconds,
        "rounds": args.rounds,
        "placements": [f"{each.instances} × {each.cores}" for each in places],
        "shapes": [f"{shape.batch} × {shape.length}" for shape in shapes],
        "max_seqlen": prepared.status.max_seqlen,
        "seed": "none: equal ids in every run",
    }
    more = []
    if args.costs_out is not None and not interrupted:
        more.append(("--costs-out", args.costs_out, lambda: _costs(args, found.rows, machine)))
    give_out(
        args,
        Result(
            kind="matrix",
            title=f"{prepared.status.id} without a server",
            said=[
                f"{prepared.status.id} ({prepared.status.architecture}, {prepared.status.task}), {environment.cpu}",
                "times in ms of one call; instances: how many at once × cores of each; sequences/s and tokens/s of all together",
                "first: after another shape; spread: slowest round over fastest; waited: for CPUs that something else had",
            ],
            rows=found.rows,
            table=matrix_table(found.rows),
            cells=matrix_cells(found.rows),
            left=2,
            charts=matrix_charts(found.rows),
            notes=notes,
            settings=settings,
            environment=environment,
            more={"lost": found.lost},
        ),
        more,
    )


def _costs(args: argparse.Namespace, rows: Sequence[MatrixRow], machine: Machine) -> str:
    try:
        file = cost_file(
            rows, version(rows[0].engine) if rows else "", machine.model_name,
            f"orchestrator bench matrix --seconds {args.seconds:g} --rounds {args.rounds}",
        )  # fmt: skip
    except CostError as error:
        raise CommandError(f"--costs-out: {error}", FAILED) from None
    return encode_costs(file)
