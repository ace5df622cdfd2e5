"""`orchestrator status`: what is running?"""

from __future__ import annotations

import argparse

import msgspec

from orchestrator.cli.errors import CommandError
from orchestrator.cli.options import add_runtime_dir, runtime_dir
from orchestrator.figures import headline, lengths, mebibytes, milliseconds, model_line
from orchestrator.status import InstanceStatus, Status
from orchestrator.supervisor.control import ControlError, ask
from topology.cpuset import format_cpulist


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="One JSON document on standard output.")
    add_runtime_dir(parser)


def run(args: argparse.Namespace) -> int:
    try:
        body = ask(runtime_dir(args) / "control.sock", "status")
        status = msgspec.json.decode(body, type=Status)
    except ControlError as error:
        raise CommandError(str(error)) from None
    except msgspec.DecodeError as error:
        raise CommandError(f"the running orchestrator is of another version than this command: {error}") from None
    print(msgspec.json.format(body, indent=2).decode() if args.json else render(status))
    return 0


def render(status: Status) -> str:
    """For people: 100 columns."""
    router = status.router
    lines = [
        headline(status),
        model_line(status),
        (
            f"router {router.state} pid {router.pid}: {router.submitted} sequences = {router.queued} queued + "
            f"{router.in_flight} in flight + {router.settled} settled; {router.retried} retried, "
            f"{sum(router.rejected.values())} refused"
        ),
        *(
            f"{gateway.name} {gateway.state} pid {gateway.pid}: {sum(gateway.responses.values())} answers, {gateway.in_flight} open"
            for gateway in status.gateways
        ),
        "",
        (
            f"{'instance':<12} {'state':<9} {'pid':>7} {'CPUs':<9} {'node':>4} {'memory':<11} {'tokens':<9} "
            f"{'again':>5} {'seq/s':>7} {'p50 ms':>7} {'p99 ms':>7} {'queue':>5} {'MiB':>6} computes"
        ),
        *(_row(instance) for instance in status.instances),
    ]
    lines += [f"warning: {warning}" for warning in status.warnings]
    return "\n".join(lines)


def _row(instance: InstanceStatus) -> str:
    verified = instance.verified
    memory = f"{verified.policy} {format_cpulist(verified.membind)}" if verified else "-"
    cpus = format_cpulist(verified.cpus) if verified else "-"
    node = "-" if instance.node is None else str(instance.node)
    return (
        f"{instance.name:<12} {instance.state:<9} {instance.pid or '-':>7} {cpus:<9} {node:>4} {memory:<11} {lengths(instance.bucket):<9} "
        f"{instance.restarts:>5} {instance.sequences_per_second:>7.1f} {milliseconds(instance.latency_ms.p50):>7} "
        f"{milliseconds(instance.latency_ms.p99):>7} {instance.queue_depth:>5} {mebibytes(instance.rss_bytes):>6} "
        f"{instance.precision or '-'}, {instance.engine or '-'}"
        + (f", {verified.allocator}" if verified is not None and verified.allocator not in (None, "system") else "")
        + ("" if verified is None or verified.matches_plan else "  NOT AS PLANNED")
    )
