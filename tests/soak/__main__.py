"""Does the running system lose nothing while its parts are killed at random under load? Kills, counts, and prints a table.

    python tests/soak [--seconds 600] [--kills 200] [--seed 1]

What is counted as lost, and what only a client can mend, stands in judge.py. Exit status: 0 all as promised, 1 something was not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from clients import Clients  # noqa: E402
from conftest import System  # noqa: E402
from judge import BACK_SECONDS, MIB, Verdict, growths, judge  # noqa: E402
from schedule import CALM_SHARE, schedule  # noqa: E402
from watch import Watch, children_of, start_ticks, state_of  # noqa: E402

WORKERS = ["short-0", "long-0"]
GATEWAYS = ["gateway-0", "gateway-1"]
LAYOUT = """version: 1
policy: by-seqlen
gateways: 2
supervision: {{flap_failures: 100000}}  # who is killed dozens of times within minutes would otherwise stay down, by design
instances:
  - {{name: short, max_seqlen: {short}, cores: 1}}
  - {{name: long, cores: 1}}
"""
ENDED = {"lock", "log", "logs"}
"""What may lie in the runtime folder once the orchestrator has stopped: the lock must not be removed, or two could hold it;
the log files and the link to them are for whoever wants to know what happened."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/soak", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="of load (default: 600)")
    parser.add_argument("--kills", type=int, default=200, help="within that time (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of deaths and of the requests (default: 1)")
    parser.add_argument("--rate", type=float, default=60.0, help="requests per second (default: 60)")
    parser.add_argument("--clients", type=int, default=12, help="connections over HTTP (default: 12)")
    parser.add_argument(
        "--back-within", type=float, default=BACK_SECONDS, metavar="S",
        help=f"seconds from a worker's death to full capacity (default: {BACK_SECONDS:g})",
    )  # fmt: skip
    parser.add_argument("--cache-dir", type=Path, help="of artefacts (default: one of its own)")
    parser.add_argument("--log", type=Path, help="where to keep the orchestrator's log")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    args = parser.parse_args()
    if args.seconds < 10 or args.kills < 1 or args.rate <= 0 or args.clients < 1:
        parser.error("expected at least 10 seconds, 1 kill, 1 client and a rate above 0")
    enough = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: enough.set())
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        verdict = run(args, Path(folder), enough)
    if args.json:
        print(json.dumps(document(verdict, args), indent=1))
    else:
        print("\n".join(table(verdict, args)))
    return 1 if verdict.complaints else 0


def run(args: argparse.Namespace, folder: Path, enough: threading.Event) -> Verdict:
    layouts = [folder / "layout.yaml", folder / "other.yaml"]
    for layout, short in zip(layouts, (32, 64), strict=True):
        layout.write_text(LAYOUT.format(short=short))
    cache = args.cache_dir or folder / "cache"
    system = System(folder / "run", cache, ("--layout", str(layouts[0])), {})
    clients = None
    try:
        system.wait_ready()
        parts = {*WORKERS, *GATEWAYS, "router"}
        clients = Clients(
            system.port, f"ipc://{system.runtime}/front.sock", count=args.clients, rate=args.rate, seed=args.seed
        )
        watch = Watch(system, parts, layouts)
        clients.start()
        watch.run(schedule(args.seed, args.seconds, args.kills, WORKERS, GATEWAYS), args.seconds, enough)
        waiting = clients.stop()
        watch.rest(lambda samples: not any(one.keeps_descriptors for one in growths(samples)), enough)
        verdict = judge(clients.asked, watch.deaths, watch.samples, watch.operations, args.back_within)
        if watch.undealt and not enough.is_set():
            verdict.late.append(f"{len(watch.undealt)} blows were not dealt in time: somebody was always away")
        verdict.left_behind += [f"{waiting} clients still wait for an answer"] if waiting else []
        if enough.is_set():  # Ctrl-C has reached the orchestrator too
            verdict.left_behind.append("nothing was looked for: the run was interrupted")
        else:
            verdict.left_behind += leftovers(system, watch, cache)
        return verdict
    finally:
        if clients is not None:
            clients.stop()
        system.close()
        if args.log is not None:
            args.log.write_bytes(system.log.read_bytes())


def leftovers(system: Any, watch: Watch, cache: Path) -> list[str]:
    """What should not be there: zombies and strays now, then, once it has stopped, processes and files."""
    found = []
    status = system.until("all settled", lambda status: status.router.queued + status.router.in_flight == 0)
    if status.router.settled != status.router.submitted:
        found.append(f"the router settled {status.router.settled} of {status.router.submitted} sequences")
    expected = set(system.pids().values())
    for pid, state in children_of(system.process.pid).items():
        if state == "Z":
            found.append(f"a zombie, pid {pid}")
        elif pid not in expected:
            found.append(f"a process that is no part, pid {pid}, state {state}")
    current = set(system.pids().values())
    found += [
        f"{part}, pid {pid}, state {state_of(pid)}, an earlier incarnation"
        for (pid, started), part in watch.seen.items()
        if pid not in current and start_ticks(pid) == started
    ]
    code = system.stop()
    if code != 0:
        found.append(f"it ended with {code}: {system.said()[-1500:]}")
    found += [
        f"{part}, pid {pid}, after the end"
        for (pid, started), part in watch.seen.items()
        if start_ticks(pid) == started
    ]
    found += [f"{path}" for path in sorted(system.runtime.iterdir()) if path.name not in ENDED]
    found += [f"{path}" for path in sorted(cache.rglob(".*")) if not path.name.endswith(".lock")]
    return found


def document(verdict: Verdict, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "seed": args.seed,
        "seconds": args.seconds,
        "answered": verdict.answered,
        "sequences": verdict.sequences,
        "lost": len(verdict.lost),
        "wrong": verdict.wrong,
        "broken_with_gateway": verdict.broken_with_gateway,
        "deaths": verdict.dealt,
        "back_seconds": {what: sorted(round(one, 2) for one in seconds) for what, seconds in verdict.back.items()},
        "operations": {how: [round(one, 2) for one in seconds] for how, seconds in verdict.operations.items()},
        "growth": {
            one.part: {"seconds": round(one.seconds), "rss_bytes": one.rss, "descriptors": one.descriptors}
            for one in verdict.growth
        },
        "complaints": verdict.complaints,
    }


def table(verdict: Verdict, args: argparse.Namespace) -> list[str]:
    lines = [
        f"seed {args.seed}, {args.seconds:g} s, {sum(verdict.dealt.values())} signals",
        f"only workers die in the last {CALM_SHARE:.0%} of the time; load average {os.getloadavg()[0]:.1f}",
        "",
        f"{'answered':<44}{verdict.answered:>8} requests, {verdict.sequences} sequences",
        f"{'lost':<44}{len(verdict.lost):>8}",
        f"{'wrong':<44}{verdict.wrong:>8}",
        f"{'connections reset by the death of a gateway':<44}{verdict.broken_with_gateway:>8}, asked again, answered",
    ]
    if len(verdict.latencies) > 1:
        cuts = quantiles(verdict.latencies, n=100)
        lines.append(
            f"{'latency, breaks included':<44}{'':>8} p50 {1e3 * cuts[49]:.0f} ms, p99 {1e3 * cuts[98]:.0f} ms, "
            f"longest {max(verdict.latencies):.1f} s"
        )
    lines += ["", f"{'part and signal':<28}{'count':>8}{'back after, median s':>24}{'longest s':>12}"]
    for what, count in sorted(verdict.dealt.items()):
        seconds = verdict.back.get(what)
        back = f"{median(seconds):>24.2f}{max(seconds):>12.2f}" if seconds else f"{'lives on':>24}{'':>12}"
        lines.append(f"{what:<28}{count:>8}{back}")
    lines += [
        f"{how:<28}{len(seconds):>8}{f'took {median(seconds):.2f}':>24}{max(seconds):>12.2f}"
        for how, seconds in sorted(verdict.operations.items())
    ]
    lines += ["", f"{'process':<28}{'over s':>8}{'MiB, first to last':>24}{'descriptors':>16}"]
    lines += [
        f"{one.part:<28}{one.seconds:>8.0f}{f'{one.rss[0] / MIB:.1f} to {one.rss[1] / MIB:.1f}':>24}"
        f"{f'{one.descriptors[0]:g} to {one.descriptors[1]:g}':>16}"
        for one in verdict.growth
    ]
    lines += ["", *(verdict.complaints or ["all as promised"])]
    return lines


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(status)
