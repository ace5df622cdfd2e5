"""`orchestrator doctor`: what of this host costs speed or prevents serving, and what mends it?"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from orchestrator import __version__
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.options import add_cache_dir, add_runtime_dir, cache_dir, runtime_dir
from orchestrator.config.declared import option
from orchestrator.config.load import LayoutErrors, load_layout
from orchestrator.config.schema import Layout
from orchestrator.doctor.examine import examine
from orchestrator.doctor.finding import Finding, exit_code
from orchestrator.doctor.host import Answer, Host, Unread
from orchestrator.doctor.read import Asked, read_host
from orchestrator.doctor.render import table
from orchestrator.models.inventory import entries
from orchestrator.status import Status
from orchestrator.supervisor.control import ControlError, ask
from topology.model import TopologyError

ANSWER_SECONDS = 3.0
"""A supervisor answers within milliseconds; one that does not for so long is hung."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    parser.add_argument(
        "--sysroot", type=Path, default=Path("/"), metavar="DIR", help="Read a captured tree instead of this machine."
    )
    parser.add_argument(
        "--layout", type=Path, metavar="FILE", help="Layout that is to be served; omitted: the default."
    )
    parser.add_argument("--host", help=option("host").help)
    parser.add_argument("--port", type=int, help=option("port").help)
    add_runtime_dir(parser)
    add_cache_dir(parser)


def run(args: argparse.Namespace) -> int:
    if not os.path.exists(args.sysroot):  # noqa: PTH110 (Path.exists raises where a folder above may not be entered)
        raise CommandError(
            f"--sysroot {args.sysroot}: no such file or directory; name the root of a captured tree", USAGE
        )
    cache, runtime = cache_dir(args), runtime_dir(args)
    status, answer = _status(runtime)
    layout = _layout(args, status)
    asked = Asked(
        sysroot=args.sysroot,
        layout=layout,
        cache=cache,
        runtime=runtime,
        status=status,
        answer=answer,
        weights_bytes=_weights(cache, layout),
    )
    try:
        host = read_host(asked, os.environ)
    except TopologyError as error:
        raise CommandError(str(error), FAILED) from error
    findings = examine(host)
    print(msgspec.json.encode(document(host, findings)).decode() if args.json else table(host, findings))
    return exit_code(findings)


def document(host: Host, findings: list[Finding]) -> dict[str, object]:
    """`doctor --json`: `ok` is whether nothing is broken."""
    return {
        "version": __version__,
        "ok": exit_code(findings) == 0,
        "live": host.live,
        "machine": None if isinstance(host.machine, Unread) else host.machine.model_name,
        "kernel": host.release if isinstance(host.release, str) else None,
        "findings": findings,
    }


def _layout(args: argparse.Namespace, status: Status | Unread) -> Layout:
    """The layout that was named; else, while an orchestrator runs, the default with its address."""
    try:
        layout = load_layout(args.layout) if args.layout is not None else Layout(version=1)
    except LayoutErrors as error:
        raise CommandError(str(error), UNWORKABLE) from None
    said = {name: getattr(args, name) for name in ("host", "port") if getattr(args, name) is not None}
    if not said and args.layout is None and isinstance(status, Status):
        address = urlsplit(status.endpoint)
        said = {"host": address.hostname or layout.host, "port": address.port or layout.port}
    return msgspec.structs.replace(layout, **said)


def _status(runtime: Path) -> tuple[Status | Unread, Answer]:
    control = runtime / "control.sock"
    try:
        return msgspec.json.decode(ask(control, "status", timeout=ANSWER_SECONDS), type=Status), "status"
    except ControlError as error:
        return Unread(str(error)), _answer(_held(runtime / "lock"), control)
    except msgspec.DecodeError as error:
        return Unread(f"the running orchestrator is of another version than this command: {error}"), "refused"


def _answer(held: bool | None, control: Path) -> Answer:
    if held is None:
        return "refused"
    if not held:
        return "absent"
    return "silent" if control.exists() else "starting"


def _held(lock: Path) -> bool | None:
    """Whether a process has this lock; None where this user cannot see it. Looked up, not tried: a try could make `up` fail."""
    try:
        inode = lock.stat().st_ino
        return any(line.split()[5].endswith(f":{inode}") for line in Path("/proc/locks").read_text().splitlines())
    except FileNotFoundError:
        return False
    except (OSError, IndexError):
        return None


def _weights(cache: Path, layout: Layout) -> int | None:
    """Bytes of the fp32 form of the layout's model, where the cache has it."""
    if layout.model is None:
        return None
    try:
        found = [
            entry.bytes
            for entry in entries(cache)
            if entry.manifest is not None
            and entry.stale is None
            and entry.manifest.precision == "fp32"
            and entry.manifest.id == layout.model
        ]
    except OSError:
        return None  # the cache check says that it cannot be read
    return max(found, default=None)
