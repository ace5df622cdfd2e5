"""`orchestrator up`: everything, in the foreground, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import traceback
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
    log_dir,
    runtime_dir,
)
from orchestrator.config.declared import option
from orchestrator.config.schema import AccessLog, Engine, LogFormat, Policy, Precision
from orchestrator.logs.journal import Journal
from orchestrator.plan.explain import table as plan_table
from orchestrator.status import Status
from topology.cpuset import format_cpulist
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
    add("--keys-file", metavar="FILE")
    add("--cpu-latency-us", type=as_declared("cpu_latency_us"), metavar="N")
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
    parser.add_argument("--log-dir", metavar="DIR", help=option("logs.dir").help)
    parser.add_argument("--log-format", choices=get_args(LogFormat), help=option("logs.format").help)
    parser.add_argument("--access-log", choices=get_args(AccessLog), help=option("logs.access").help)
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
        keys_file=args.keys_file,
        cpu_latency_us=args.cpu_latency_us,
        runtime=runtime_dir(args),
        cache=cache_dir(args),
        claim_scope=claim_scope(),
        start_timeout_s=args.start_timeout,
        answer_cache_mb=args.answer_cache,
        join_requests=args.join,
        logs=log_dir(args),
        log_dir=args.log_dir,
        log_format=args.log_format,
        access_log=args.access_log,
    )
    journal = Journal("json" if args.log_format == "json" else None, environment=os.environ)
    try:
        all_answered = serve(
            options,
            journal=journal,
            on_plan=lambda before, _: _show_plan(before, journal),
            on_ready=lambda status: _show_ready(status, journal),
        )
    except AppError as error:
        # Its words reach standard error as those of any command do; the log files shall have them too.
        journal.keep(f"cannot start: {error}", level="error", event="failed")
        raise CommandError(str(error), UNWORKABLE if error.unworkable else FAILED) from None
    except Exception:
        journal.keep(f"ends by a bug:\n{traceback.format_exc()}", level="error", event="failed")
        raise
    finally:
        journal.close()
    return 0 if all_answered else FAILED


def _show_plan(before: Prelude, journal: Journal) -> None:
    """For people on standard output; who reads JSON finds it in the log."""
    if journal.style != "json":
        print(summary(before.machine), flush=True)
        print(plan_table(before.plan), flush=True)
    for instance in before.plan.instances:
        journal.keep(
            f"planned instance={instance.name} cpus={format_cpulist(instance.cpus)} node={instance.node} "
            f"threads={instance.threads} {instance.precision} on {instance.engine}",
            event="plan",
        )
    for warning in before.plan.warnings:
        journal.keep(warning, level="warning", event="plan")


def _show_ready(status: Status, journal: Journal) -> None:
    journal.keep(f"ready: {status.endpoint}", event="ready")
    if journal.style == "json":
        return
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
    at = status.endpoint
    if at.startswith("unix:"):
        at = f"--unix-socket {at.removeprefix('unix:')} http://localhost"
    asked = f"{at}/embed -H 'content-type: application/json' -d '{{\"inputs\": \"I like you. I love you\"}}'"
    if status.model.image is not None:
        asked = f"{at}/predict -H 'content-type: image/jpeg' --data-binary @IMAGE.jpg"
    lines += [
        "",
        f"ready: {status.endpoint}",
        f"  curl -s {asked}",
        f"  {f'dashboard: {at}/dashboard    ' if at == status.endpoint else ''}Ctrl-C drains and stops",
    ]
    print("\n".join(lines), flush=True)
