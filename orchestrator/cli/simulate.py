"""`orchestrator simulate`: what would the router do on that machine, under that load, with each policy?"""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

import msgspec

from orchestrator.bench.rows import LoadRow, table
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.mix import DEFAULT_MIX, HELP, mix_of, read_file
from orchestrator.cli.options import count_or_auto, number, whole
from orchestrator.cli.plan import layout_of, machine_of
from orchestrator.config.declared import option
from orchestrator.config.schema import Policy
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.solve import PlanRequest
from orchestrator.simulate import machine as shapes
from orchestrator.simulate import traffic
from orchestrator.simulate.costs import CostError, CostFile, TrueCosts, decode_costs, refuse_foreign
from orchestrator.simulate.study import Study
from orchestrator.simulate.world import Settings, capacity
from topology.cpuset import format_cpulist
from topology.model import Machine

POLICIES: tuple[Policy, ...] = get_args(Policy)
TABLES = Path(shapes.__file__).parent / "tables"
DEFAULT_COSTS = "minilm-int8"
DEFAULT_LOAD = 0.8
_positive = number(0, 1e9, above=True)
WARM_UP_SHARE = 0.1
"""Of the time, not counted: queues start empty, and predictions with little behind them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_argument_group("machine").add_mutually_exclusive_group()
    where.add_argument(
        "--machine", metavar="PxC", help="packages × cores, such as 2x24, or 2x24x2 with two threads per core"
    )
    where.add_argument("--sysroot", type=Path, metavar="DIR", help="a captured tree; omitted: this machine")
    parser.add_argument(
        "--layout", type=Path, metavar="FILE", help="layout file; omitted: as `orchestrator plan` would"
    )
    parser.add_argument("--instances", type=count_or_auto, metavar="N|auto", help="how many; omitted or auto: chosen")
    parser.add_argument(
        "--policy",
        nargs="+",
        default=["all"],
        choices=[*POLICIES, "all"],
        help=f"{option('policy').help} (default: all)",
    )
    parser.add_argument(
        "--max-seqlen", type=whole(1, 1_000_000), metavar="N", help="longest sequence, in tokens (default: 512)"
    )
    load = parser.add_argument_group("load").add_mutually_exclusive_group()
    load.add_argument("--rate", type=_positive, metavar="R", help="requests per second")
    load.add_argument(
        "--load",
        type=_positive,
        metavar="L",
        help=f"rate as a share of what the instances could do (default: {DEFAULT_LOAD})",
    )
    load.add_argument(
        "--in-flight", type=whole(1, 1_000_000), metavar="N", help="so many clients that each wait for their answer"
    )
    parser.add_argument(
        "--arrivals",
        default="poisson",
        metavar="poisson|bursty|FILE",
        help="or a trace of JSON lines with time and length",
    )
    parser.add_argument(
        "--mix",
        default=DEFAULT_MIX,
        metavar="NAME|FILE",
        help=HELP,
    )
    parser.add_argument(
        "--costs", default=DEFAULT_COSTS, metavar="NAME|FILE",
        help=f"cost table: {', '.join(_tables())}, or a file (default: {DEFAULT_COSTS})",
    )  # fmt: skip
    parser.add_argument(
        "--any-costs",
        action="store_true",
        help="use the table even where it is of another CPU or engine version than this machine's",
    )
    parser.add_argument(
        "--believes", choices=["measured", "default"], default="measured",
        help="what the router knows of costs at the start: the table, or what it ships with (default: measured)",
    )  # fmt: skip
    parser.add_argument(
        "--slow",
        action="append",
        default=[],
        metavar="NAME=F",
        help="an instance that takes F times as long; may be repeated",
    )
    parser.add_argument(
        "--noise",
        type=number(0, 2),
        default=0.08,
        metavar="S",
        help="log-normal noise of service times (default: 0.08)",
    )
    parser.add_argument(
        "--timeout-ms", type=whole(1, 1_000_000), metavar="MS", help="deadline of each request (default: none)"
    )
    parser.add_argument(
        "--goodput-ms", type=_positive, default=100.0, metavar="MS", help="what counts as good (default: 100)"
    )
    parser.add_argument(
        "--seconds", type=_positive, metavar="S", help="of simulated time (default: 30; a trace: its own)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="equal seeds give equal figures (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    machine, live = machine_asked(args)
    file = cost_table(args.costs, args, machine, live)
    layout = layout_of(args.layout) if args.layout is not None else None
    request = PlanRequest(instances=args.instances, max_seqlen=args.max_seqlen, layout=layout)
    policies = POLICIES if "all" in args.policy else tuple(dict.fromkeys(args.policy))
    try:
        study = Study(machine, request, TrueCosts(file, args.costs), args.believes == "measured")
        first = study.plan_for(policies[0])
        load, described, seconds = _traffic(args, study, first)
        settings = Settings(
            seconds=seconds,
            warm_up=seconds * WARM_UP_SHARE,
            seed=args.seed,
            noise=args.noise,
            timeout_ms=args.timeout_ms or 0,
            goodput_ms=args.goodput_ms,
            slow=_slow(
                args.slow, {planned.name for policy in policies for planned in study.plan_for(policy).instances}
            ),
        )
        rows = study.compare(policies, load, settings)
    except PlanError as error:
        raise CommandError(str(error), UNWORKABLE) from error
    except CostError as error:
        raise CommandError(str(error), FAILED) from error
    if args.json:
        print(msgspec.json.encode(_document(args, study, file, policies, described, settings, rows)).decode())
    else:
        print(_printed(args, study, file, first, described, settings, rows))
    return 0


def machine_asked(args: argparse.Namespace) -> tuple[Machine, bool]:
    """The machine of --machine or --sysroot, else this one, and whether it is a real one."""
    if args.machine is None:
        return machine_of(args.sysroot or Path("/")), True
    try:
        return shapes.machine_of(args.machine), False
    except shapes.ShapeError as error:
        raise CommandError(f"--machine: {error}", USAGE) from error


def _tables() -> list[str]:
    return sorted(path.stem for path in TABLES.glob("*.json"))


def cost_table(name: str, args: argparse.Namespace, machine: Machine, live: bool) -> CostFile:
    """The table of this name, or in this file. CommandError if it cannot be used for this machine."""
    path = TABLES / f"{name}.json" if name in _tables() else Path(name)
    try:
        file = decode_costs(read_file(path, "--costs", f"there are {', '.join(_tables())}, or measure one: "
                                  "`orchestrator bench matrix --costs-out FILE`"), name)  # fmt: skip
        if live and path.parent != TABLES and not args.any_costs:
            refuse_foreign(file, name, machine.model_name, _installed(file.engine) if args.sysroot is None else None)
    except CostError as error:
        raise CommandError(f"--costs: {error}", FAILED) from error
    return file


def _installed(engine: str) -> str | None:
    try:
        return version(engine)
    except PackageNotFoundError:
        return None


def _traffic(args: argparse.Namespace, study: Study, first: Plan) -> tuple[traffic.Traffic, str, float]:
    """The traffic, the same in words, and how long it lasts."""
    longest = max(planned.max_seqlen for planned in first.instances)
    if args.arrivals not in ("poisson", "bursty"):
        if args.rate or args.load or args.in_flight:
            raise CommandError(
                "--rate, --load and --in-flight say when requests come, and so does a trace: drop one", USAGE
            )
        name = args.arrivals
        try:
            trace = traffic.decode_trace(
                read_file(Path(name), "--arrivals", "say poisson, bursty or the name of a trace"), name
            )
        except traffic.TraceError as error:
            raise CommandError(f"--arrivals: {error}", FAILED) from error
        refuse_longer(max(each.length for each in trace.recorded), longest, f"--arrivals {name}")
        # The window ends just after the last request.
        seconds = args.seconds or trace.recorded[-1].due + 1e-3
        kept = [each for each in trace.recorded if each.due < seconds]
        return traffic.Trace(kept), f"trace {name}, {len(kept)} requests", seconds
    mix = mix_of(args.mix)
    refuse_longer(mix.longest, longest, f"--mix {args.mix}")
    seconds = args.seconds or 30.0
    if args.in_flight:
        if args.arrivals == "bursty":
            raise CommandError(
                "--in-flight: clients that wait for their answers make no bursts; say --rate or --load", USAGE
            )
        return traffic.ClosedLoop(args.in_flight, mix, seconds), f"{args.mix}, {args.in_flight} in flight", seconds
    if (rate := args.rate) is None:
        # At the heaviest moment of a mix that drifts.
        crossing = study.crossing(first)
        most = min(capacity(first, study.costs, mix.shares(progress), crossing) for progress in (0.0, 1.0))
        rate = (args.load or DEFAULT_LOAD) * most
    described = f"{args.mix}, {args.arrivals}, {rate:.1f} requests/s"
    return traffic.OpenLoop(rate, mix, seconds, args.arrivals == "bursty"), described, seconds


def refuse_longer(found: int, longest: int, what: str) -> None:
    if found > longest:
        raise CommandError(
            f"{what} has sequences of {found} tokens, the largest instance holds {longest}; say --max-seqlen {found}",
            USAGE,
        )


def _slow(pairs: list[str], names: set[str]) -> dict[str, float]:
    slow = {}
    for pair in pairs:
        name, _, factor = pair.partition("=")
        if name not in names:
            raise CommandError(f"--slow {pair}: no instance {name!r}; there are {', '.join(sorted(names))}", USAGE)
        try:
            slow[name] = _positive(factor)
        except argparse.ArgumentTypeError as error:
            raise CommandError(f"--slow {pair}: {error}", USAGE) from error
    return slow


def _document(
    args: argparse.Namespace, study: Study, file: CostFile, policies: tuple[Policy, ...], described: str,
    settings: Settings, rows: list[LoadRow],
) -> dict[str, Any]:  # fmt: skip
    return {
        "machine": study.machine.model_name,
        "load": described,
        "seed": args.seed,
        "settings": settings,
        "costs": {
            "name": args.costs, "model": file.model, "engine": file.engine, "precision": file.precision, "cpu": file.cpu,
            "scaling": study.costs.scaling, "router_starts_with": args.believes,
        },
        "plans": {policy: study.plan_for(policy) for policy in policies},
        "rows": rows,
    }  # fmt: skip


def _printed(
    args: argparse.Namespace, study: Study, file: CostFile, first: Plan, described: str, settings: Settings,
    rows: list[LoadRow],
) -> str:  # fmt: skip
    cpus = [cpu for planned in first.instances for cpu in planned.cpus]
    lines = [
        f"{study.machine.model_name}: {len(first.instances)} instances on CPUs {format_cpulist(cpus)}",
        f"costs: {args.costs}: {file.model} {file.precision}, {file.engine}, measured on {file.cpu}",
        f"load: {described}, {settings.seconds:g} s, the first {settings.warm_up:g} not counted, seed {args.seed}",
        f"latencies in ms; good = within {settings.goodput_ms:g}",
        "",
        table(rows),
    ]
    if len(rows) == 1 and len(rows[0].instances) <= 16:
        lines += ["", *(f"  {one.name:<14} busy {one.utilisation:>4.0%}  {one.sequences:>8} sequences  batch {one.batch_mean:.2f}"
                        f"  padding {one.padding_ratio:.1%}" for one in rows[0].instances)]  # fmt: skip
    return "\n".join(lines)
