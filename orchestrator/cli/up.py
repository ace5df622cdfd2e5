"""`orchestrator up`: everything, in the foreground, until Ctrl-C."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from orchestrator.app import run as serve
from orchestrator.assemble import AppError, Options, Prelude
from orchestrator.cli.errors import FAILED, UNWORKABLE, CommandError
from orchestrator.cli.options import (
    add_cache_dir,
    add_runtime_dir,
    as_declared,
    cache_dir,
    claim_scope,
    count_or_auto,
    runtime_dir,
)
from orchestrator.config.schema import Engine, Layout, Policy, Precision, option
from orchestrator.plan.explain import table as plan_table
from orchestrator.status import Status
from orchestrator.supervisor.runner import log_to_stderr
from topology.render import summary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    def add(flag: str, **more: object) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        parser.add_argument(flag, help=option(name).help, **more)  # type: ignore[arg-type]

    add("--model", metavar="M")
    add("--task", metavar="T")
    add("--precision", choices=get_args(Precision))
    add("--engine", choices=get_args(Engine))
    add("--min-cosine", type=as_declared("min_cosine"), metavar="C")
    parser.add_argument(
        "--instances",
        type=count_or_auto,
        metavar="N|auto",
        help="How many instances; auto: as many as the machine bears.",
    )
    add("--policy", choices=get_args(Policy))
    add("--max-seqlen", type=as_declared("max_seqlen"), metavar="N")
    parser.add_argument("--layout", type=Path, metavar="FILE", help="Layout file; options given here go before it.")
    add("--host")
    add("--port", type=as_declared("port"))
    parser.add_argument(
        "--answer-cache", type=as_declared("caches.answers_mb"), metavar="MB", help=option("caches.answers_mb").help
    )
    parser.add_argument("--join", action="store_true", default=None, help=option("caches.join").help)
    parser.add_argument(
        "--start-timeout",
        type=as_declared("supervision.start_timeout_s"),
        metavar="SECONDS",
        help=option("supervision.start_timeout_s").help,
    )
    add_runtime_dir(parser)
    add_cache_dir(parser)


def run(args: argparse.Namespace) -> int:
    options = Options(
        layout=args.layout,
        model=args.model,
        task=args.task,
        precision=args.precision,
        engine=args.engine,
        min_cosine=args.min_cosine,
        instances=args.instances,
        policy=args.policy,
        max_seqlen=args.max_seqlen,
        host=args.host,
        port=args.port,
        runtime=runtime_dir(args),
        cache=cache_dir(args),
        claim_scope=claim_scope(),
        start_timeout_s=args.start_timeout,
        answer_cache_mb=args.answer_cache,
        join_requests=args.join,
    )
    try:
        all_answered = serve(options, say=log_to_stderr, log=log_to_stderr, on_plan=_show_plan, on_ready=_show_ready)
    except AppError as error:
        raise CommandError(str(error), UNWORKABLE if error.unworkable else FAILED) from None
    return 0 if all_answered else FAILED


def _show_plan(before: Prelude, layout: Layout) -> None:  # noqa: ARG001 - the shape of the callback
    print(summary(before.machine), flush=True)
    print(plan_table(before.plan), flush=True)


def _show_ready(status: Status) -> None:
    lines = ["", "bound, as the kernel says:"]
    for instance in status.instances:
        verified = instance.verified
        if verified is None:
            lines.append(f"  {instance.name:<12} not verified")
            continue
        cpus, nodes = (",".join(map(str, numbers)) for numbers in (verified.cpus, verified.membind))
        lines.append(
            f"  {instance.name:<12} pid {instance.pid}  CPUs {cpus}  memory {verified.policy} node {nodes}  "
            f"{verified.threads} threads  {'as planned' if verified.matches_plan else 'NOT AS PLANNED'}"
        )
        lines += [f"  {'':<12} {note}" for note in verified.notes]
    asked = (
        f"{status.endpoint}/embed -H 'content-type: application/json' -d '{{\"inputs\": \"I like you. I love you\"}}'"
    )
    if status.model.image is not None:
        asked = f"{status.endpoint}/predict -H 'content-type: image/jpeg' --data-binary @IMAGE.jpg"
    lines += [
        "",
        f"ready: {status.endpoint}",
        f"  curl -s {asked}",
        f"  dashboard: {status.endpoint}/dashboard    Ctrl-C drains and stops",
    ]
    print("\n".join(lines), flush=True)
