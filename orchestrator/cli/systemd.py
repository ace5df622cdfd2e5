"""`orchestrator systemd`: which units run it on this host, and how do they get where systemd looks for them?"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import topology
import workers
from orchestrator.cli.errors import FAILED, UNWORKABLE, USAGE, CommandError
from orchestrator.cli.plan import layout_of, machine_of
from orchestrator.config.check import check_layout
from orchestrator.config.declared import option
from orchestrator.config.schema import Layout
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.units import (
    LONGEST_NAME,
    File,
    Host,
    Placement,
    default_layout,
    is_as_written,
    quoted,
    signed,
    units,
)
from topology.model import Machine

UNIT_FOLDER = Path("/etc/systemd/system")
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""Where the sandbox shows an empty folder instead of the host's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--print", action="store_true", dest="show", help="Print the units (default).")
    what.add_argument("--install", action="store_true", help=f"Write them below {UNIT_FOLDER}; needs root.")
    parser.add_argument(
        "--layout",
        type=Path,
        metavar="FILE",
        help="Layout file of the service (default: /etc/orchestrator/layout.yaml, or NAME.yaml there, if it exists; "
        "without a file the defaults).",
    )
    parser.add_argument(
        "--name",
        type=_name,
        metavar="N",
        help="One of several: the service is orchestrator@N, with folders of its own.",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="Write below this folder instead of /, for images.")
    parser.add_argument("--program", metavar="PATH", help="The program that the units start (default: this one).")
    parser.add_argument("--force", action="store_true", help="Overwrite units that somebody has changed.")


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) or len(text) > LONGEST_NAME:
        raise argparse.ArgumentTypeError(
            f"{text!r}: at most {LONGEST_NAME} lower-case letters, digits and single dashes (it becomes the name of a user)"
        )
    return text


def run(args: argparse.Namespace) -> int:
    words = [_program_given(args.program)] if args.program is not None else program()
    host = this_host(args.layout, args.name, words)
    files = units(quoted(words), args.name, host, float(option("supervision.drain_timeout_s").default))
    if not args.install:
        print("\n".join(f"# {UNIT_FOLDER}/{file.path}\n{file.text}" for file in files), end="")
        return 0
    folder = (args.root or Path("/")) / UNIT_FOLDER.relative_to("/")
    for path in install(files, folder, force=args.force):
        print(f"wrote {path}")
    _say_what_is_next(files, args.root is not None)
    for warning in [*unreadable(Path(path) for path in host.mounts), *_left_over(host, args.name, folder)]:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _left_over(host: Host, name: str | None, folder: Path) -> list[str]:
    """A socket unit that the layout no longer has a port for."""
    unit = folder / (f"orchestrator@{name}.socket" if name is not None else "orchestrator.socket")
    if host.listen is not None or not unit.exists():
        return []
    return [
        f"{unit} is of an earlier layout, this one has no fixed port: systemctl disable --now {unit.name}, then remove it"
    ]


def this_host(layout_file: Path | None, name: str | None, words: Sequence[str]) -> Host:
    """What the drop-in says of this machine. CommandError if the layout cannot work on it."""
    file = layout_file.absolute() if layout_file is not None else Path(default_layout(name))
    if layout_file is None and not file.exists():
        if name is not None:
            raise CommandError(
                f"{file}: no such file; write the layout of {name} there, or name it with --layout", UNWORKABLE
            )
        layout, path, said = Layout(version=1), None, "No layout file: the defaults of `orchestrator up`."
    else:
        layout, path, said = layout_of(file), str(file), f"Made from {file}."
    machine = machine_of(Path("/"))
    readable = needed_folders([*_code_folders(words), *([path] if path else []), *_model_folder(layout)])
    return Host(
        placement=confined(layout, machine),
        drain_seconds=layout.supervision.drain_timeout_s,
        layout=path,
        listen=listen_stream(layout.host, layout.port),
        readable=tuple(readable),
        mounts=tuple(dict.fromkeys(each for each in (words[0], path, *_model_folder(layout)) if each is not None)),
        reasons=(
            said,
            "Written by `orchestrator systemd --install`; run it again after a change of the layout's cores or address.",
        ),
    )


def confined(layout: Layout, machine: Machine) -> Placement:
    """The cpuset for a layout. CommandError if the layout cannot work on this machine."""
    problems = check_layout(layout, machine)
    if problems:
        raise CommandError("the layout cannot be used\n" + "\n".join(map(str, problems)), UNWORKABLE)
    request = PlanRequest(layout=layout if layout.instances or layout.housekeeping else None)
    try:
        planned = plan(machine, request)
        found = placement(planned, machine)
        again = plan(inside(machine, found), request)
    except PlanError as error:
        raise CommandError(str(error), UNWORKABLE) from None
    if _seats(planned) != _seats(again):
        return Placement(
            unconfined="Inside a cpuset of its CPUs the planner would choose others; name them in the layout to confine it"
        )
    return found


def inside(machine: Machine, place: Placement) -> Machine:
    """The machine as it looks from within the cpuset."""
    cpus, nodes = place.cpus, place.nodes
    return replace(
        machine,
        cpus=tuple(replace(cpu, allowed=cpu.allowed and (cpus is None or cpu.cpu in cpus)) for cpu in machine.cpus),
        nodes=tuple(
            replace(node, allowed=node.allowed and (nodes is None or node.node in nodes)) for node in machine.nodes
        ),
    )


def _seats(planned: Plan) -> object:
    return [(each.name, each.cpus, each.membind) for each in planned.instances], planned.housekeeping.cpus


def placement(planned: Plan, machine: Machine) -> Placement:
    """The cpuset that holds the plan: whole cores, so that SMT siblings are known as such inside it."""
    used = {cpu for each in planned.instances for cpu in each.cpus} | set(planned.housekeeping.cpus)
    cores = {cpu.core for cpu in machine.cpus if cpu.cpu in used}
    cpus = frozenset(cpu.cpu for cpu in machine.cpus if cpu.core in cores and cpu.online and cpu.allowed)
    everything = frozenset(cpu.cpu for cpu in machine.cpus if cpu.online)
    with_memory = frozenset(node.node for node in machine.nodes if node.has_memory)
    bound = {node for each in planned.instances for node in each.membind}
    # Router and gateways allocate where they run.
    bound |= {cpu.node for cpu in machine.cpus if cpu.cpu in planned.housekeeping.cpus and cpu.node is not None}
    nodes = frozenset(bound) & with_memory
    return Placement(
        cpus=None if cpus == everything or not cpus else cpus,
        nodes=None if nodes == with_memory or not nodes else nodes,
    )


def listen_stream(host: str, port: int) -> str | None:
    """The address as ListenStream= takes it: no names. None where the port is chosen anew at each start."""
    if port == 0:
        return None
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise CommandError(
            f"cannot listen on {host!r}: {error.strerror}; name an address of this host in the layout", UNWORKABLE
        ) from None
    return f"[{address[0]}]:{port}" if family == socket.AF_INET6 else f"{address[0]}:{port}"


def program() -> list[str]:
    """How this very program is started without a shell: its absolute path, else the interpreter and the module."""
    beside = Path(sys.executable).parent / "orchestrator"
    if os.access(beside, os.X_OK):
        return [str(beside)]
    on_path = shutil.which("orchestrator")
    return [str(Path(on_path).absolute())] if on_path is not None else [sys.executable, "-m", "orchestrator.cli.main"]


def _program_given(text: str) -> str:
    path = Path(text).absolute()
    if not os.access(path, os.X_OK) or path.is_dir():
        raise CommandError(f"--program {path}: no such program", USAGE)
    return str(path)


def _code_folders(words: Sequence[str]) -> list[str]:
    """Where the program, its interpreter and its packages lie."""
    packages = [str(Path(each.__path__[0]).parent) for each in (topology, workers)]
    interpreters = [sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)]  # a version's folder may be a link
    return [words[0], *interpreters, *packages]


def _model_folder(layout: Layout) -> list[str]:
    return [layout.model] if layout.model is not None and Path(layout.model).is_absolute() else []


def needed_folders(paths: Iterable[str]) -> list[str]:
    """Of these paths those that the sandbox would hide; none that lies inside another."""
    hidden = sorted({path for path in paths if any(Path(path).is_relative_to(folder) for folder in HIDDEN)})
    return [
        path
        for path in hidden
        if not any(Path(path) != Path(other) and Path(path).is_relative_to(other) for other in hidden)
    ]


def unreadable(paths: Iterable[Path]) -> list[str]:
    """What the service's user, who is nobody that the host knows, may not read. In words."""
    found = []
    for path in paths:
        real = path.resolve()
        parents = [] if needed_folders([str(real)]) else list(real.parents)
        closed = [each for each in parents if each.exists() and not each.stat().st_mode & stat.S_IXOTH]
        if closed:
            found.append(f"{path}: the service's user cannot get through {closed[-1]}; chmod o+x {closed[-1]}")
            continue
        wanted = stat.S_IROTH | stat.S_IXOTH if real.is_dir() else stat.S_IROTH
        if real.exists() and real.stat().st_mode & wanted != wanted:
            found.append(
                f"{path}: the service's user cannot read it; chmod {'-R o+rX' if real.is_dir() else 'o+r'} {path}"
            )
    return found


def install(files: Iterable[File], folder: Path, *, force: bool) -> list[Path]:
    """Writes what is new or different, each file whole or not at all. CommandError before anything is written if one was changed."""
    wanted = {folder / file.path: signed(file.text) for file in files}
    changed = []
    for path in wanted:
        if path.is_symlink():
            changed.append(
                f"{path} is a link to {path.readlink()}" + (" (masked)" if str(path.readlink()) == "/dev/null" else "")
            )
        elif path.exists() and not is_as_written(_content(path)):
            changed.append(f"{path} was not written by this command, or changed since")
    if changed and not force:
        raise CommandError(
            "nothing was written:\n  "
            + "\n  ".join(changed)
            + "\nkeep changes in a file of their own (systemctl edit), "
            "or overwrite them with --force; compare with --print"
        )
    written = []
    for path, content in wanted.items():
        if path.exists() and not path.is_symlink() and _content(path) == content:
            continue
        try:
            _write(path, content)
        except PermissionError:
            raise CommandError(
                f"{path}: only root may write there; use sudo, or --root DIR to write elsewhere", FAILED
            ) from None
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}", FAILED) from None
        written.append(path)
    return written


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", FAILED) from None


def _write(path: Path, content: str) -> None:
    """A rename puts the whole file in its place: systemd never reads half of one."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)  # noqa: PTH101 - beside os.replace of the same file
        os.replace(partial, path)  # noqa: PTH105
    except OSError:
        Path(partial).unlink(missing_ok=True)
        raise


def _say_what_is_next(files: Sequence[File], elsewhere: bool) -> None:
    if elsewhere:
        return
    names = [file.path for file in files if file.path.endswith(".socket")]
    drop_in = next(file.path for file in files if file.path.endswith(".conf"))
    service = drop_in.partition(".d/")[0]
    print("next:\n  systemctl daemon-reload")
    print(f"  systemctl enable --now {' '.join([*names, service])}")
    print(f"  systemctl status {service}")
