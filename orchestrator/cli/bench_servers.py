"""Which servers does `orchestrator bench load` compare? A running one, or those that it starts, each with the same texts to answer."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import get_args

from orchestrator.bench.running import DidNotStart, Running, running
from orchestrator.bench.target import Target, TargetError, WrongUsage, probe, read_key
from orchestrator.bench.texts import text
from orchestrator.claims import Claims
from orchestrator.cli.bar import Bar
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.options import as_declared, cache_dir, claim_scope, count_or_auto, listed, one_of
from orchestrator.cli.plan import layout_of
from orchestrator.config.declared import option
from orchestrator.config.schema import Engine, Policy, Precision
from orchestrator.config.words import cpus_in_words
from orchestrator.models import ModelError, prepare
from orchestrator.models.progress import Step
from orchestrator.simulate.mixes import Mix
from topology.cpuset import format_cpulist
from topology.model import Machine

TEXTS = 4000
"""Different ones, so that no cache of tokens knows them all."""
SPECIAL_TOKENS = 2
"""Of a text of the embedded model; a word of `bench.texts` is one token there."""
_OWN = ("model", "task", "precision", "engine", "min_cosine", "instances", "max_seqlen")
"""Options of `up` that are handed on."""


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """`--url`, or the options of `up` that decide what is started."""
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


def contestants(
    args: argparse.Namespace, machine: Machine, mix: Mix, stack: ExitStack, bar: Bar
) -> list[Contestant]:  # fmt: skip
    """Those that run until `stack` is left, each of which has answered a text. CommandError."""
    _refuse_mixed_usage(args)
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


def _servers(args: argparse.Namespace, mix: Mix) -> Iterator[tuple[str, list[str]]]:
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
        parts = ([_short(layout, args.layout)] if layout is not None else []) + ([policy] if policy is not None else [])
        yield " ".join(parts) or "up", words


def _short(layout: Path, all_: Sequence[Path]) -> str:
    """Its name without folder and ending, where no other has the same."""
    return layout.stem if sum(each.stem == layout.stem for each in all_) == 1 else str(layout)


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


def _refuse_mixed_usage(args: argparse.Namespace) -> None:
    if args.url is None:
        if args.key_file is not None and args.layout is None:
            raise CommandError(
                "--key-file is for a server that wants a key: say --url or --layout, or leave it out", USAGE
            )
        return
    given = [name for name in (*_OWN, "policy", "layout") if getattr(args, name) is not None]
    if given:
        option_ = f"--{given[0].replace('_', '-')}"
        raise CommandError(
            f"{option_} is for a server that is started here, and --url names one that runs; leave one out", USAGE
        )
