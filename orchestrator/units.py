"""Which systemd units run the orchestrator on a host? Pure.

Theory of operation. A unit says what is the same on every host: how it starts and stops, and what it may do. A drop-in beside it,
10-host.conf, says what follows from this host, its layout and its plan, so that both can be written again while what an administrator
adds (`systemctl edit`, override.conf) stays. Who wants several writes a layout a name: /etc/orchestrator/NAME.yaml runs
as orchestrator@NAME, an instance of the template. The files in systemd/ are what `units` gives for no host in particular.
Each begins with the digest of what was written, so that a file that somebody has changed is known as such.
Source: systemd.service(5), systemd.exec(5), systemd.socket(5), systemd.resource-control(5).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from topology.cpuset import format_cpulist

LAYOUT_FOLDER = "/etc/orchestrator"
LONGEST_NAME = 18
"""orchestrator-NAME is the name of a user as well, and those end at 31 bytes."""
PROGRAM = "/usr/bin/env orchestrator"
"""Of the units that are for no host in particular."""
WATCHDOG_SECONDS = 30
START_SECONDS = 600
"""Between two steps of the start; each step asks for as much again (EXTEND_TIMEOUT_USEC of sd_notify(3))."""
STOP_EXTRA_SECONDS = 30
"""For what follows the drains: stopping each part, and SIGKILL for those that do not stop."""
_MARK = "# orchestrator systemd, digest "


@dataclass(frozen=True)
class Placement:
    """What a plan needs of the machine, as a cpuset says it."""

    cpus: frozenset[int] | None = None
    """Those of instances and housekeeping, with their SMT siblings. None: not to be confined."""
    nodes: frozenset[int] | None = None
    """The memory nodes that are bound to. None: not to be confined."""
    unconfined: str = "The plan uses every CPU that it may, so there is nothing to confine"
    """Why there are no CPUs here."""


@dataclass(frozen=True)
class Host:
    """What a drop-in says of one host and one layout."""

    placement: Placement
    drain_seconds: float
    layout: str | None
    """The layout file, absolute; None runs with the defaults."""
    listen: str | None
    """Address as ListenStream= takes it; None: no socket unit, since the port is chosen anew at each start."""
    readable: tuple[str, ...] = ()
    """Folders that have to be seen although they lie where the sandbox hides everything: below /home, /root, /tmp."""
    mounts: tuple[str, ...] = ()
    """What has to be mounted before a start: paths of the program, the layout, the model."""
    reasons: tuple[str, ...] = ()
    """Comments at the head of the drop-in."""


@dataclass(frozen=True)
class File:
    path: str
    """Relative to the folder of units."""
    text: str


def stop_seconds(drain_seconds: float) -> int:
    """TimeoutStopSec: gateways and then the router may each take the whole deadline of a drain."""
    return int(2 * drain_seconds) + STOP_EXTRA_SECONDS


def default_layout(name: str | None) -> str:
    return f"{LAYOUT_FOLDER}/{name or 'layout'}.yaml"


def units(program: str, name: str | None, host: Host | None, drain_seconds: float) -> list[File]:
    """The files for one service: the plain one, or instance `name` of the template. Without a host only what fits every host.

    `program` is quoted as ExecStart= wants it; `drain_seconds` the default of the layout schema.
    """
    template = name is not None
    stem = "orchestrator@" if template else "orchestrator"
    files = [
        File("orchestrator.slice", _SLICE),
        File(f"{stem}.service", _service(program, template=template, drain_seconds=drain_seconds)),
    ]
    if host is None:
        return files
    unit = f"orchestrator@{name}" if template else "orchestrator"
    files.append(File(f"{unit}.service.d/10-host.conf", _drop_in(program, name, host)))
    if host.listen is not None:
        files.append(File(f"{unit}.socket", socket_unit(unit, host.listen)))
    return files


def signed(text: str) -> str:
    """The text behind a line with its digest."""
    return f"{_MARK}{_digest(text)}\n{text}"


def is_as_written(content: str) -> bool:
    """Whether a file is still what `signed` made of some text."""
    first, _, rest = content.partition("\n")
    return first == f"{_MARK}{_digest(rest)}"


def quoted(words: Sequence[str]) -> str:
    """A command line for ExecStart=: specifiers, variables, spaces and quotes mean themselves."""
    return " ".join(_quoted(word) for word in words)


def _quoted(word: str) -> str:
    plain = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _path(text: str, *, colon: bool = False) -> str:
    """A path in a setting other than a command: there variables mean nothing; in BindReadOnlyPaths= a colon separates."""
    plain = _quoted(text).replace("$$", "$")
    return plain.replace(":", "\\:") if colon else plain


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def socket_unit(unit: str, listen: str) -> str:
    """For an address as ListenStream= takes it, `127.0.0.1:8080` or `[::1]:8080`."""
    address = ipaddress.ip_address(listen.rpartition(":")[0].strip("[]").partition("%")[0])
    early = (
        ""
        if address.is_loopback or address.is_unspecified
        else "# Sockets are bound at boot before the network is up, so before the host has this address.\nFreeBind=yes\n"
    )
    return f"""\
# The listening socket of {unit}.service, held by systemd: while the service restarts, connections wait in it and none is refused.
[Unit]
Description=Listening socket of {unit}.service
Documentation=man:systemd.socket(5)

[Socket]
ListenStream={listen}
FileDescriptorName=http
# How many may wait; the kernel cuts it at net.core.somaxconn.
Backlog=4096
{early}Service={unit}.service

[Install]
WantedBy=sockets.target
"""


_SLICE = """\
# All orchestrators of this host: weigh or limit them together here (systemctl edit orchestrator.slice).
# Their cores are theirs alone only if others are kept off: AllowedCPUs= of system.slice and user.slice, without these cores.
[Unit]
Description=Transformer model serving on CPU
Documentation=man:systemd.slice(5) man:systemd.resource-control(5)

[Slice]
CPUAccounting=yes
MemoryAccounting=yes
TasksAccounting=yes
"""


def _service(program: str, *, template: bool, drain_seconds: float) -> str:
    own = "orchestrator-%i" if template else "orchestrator"
    layout = f"{LAYOUT_FOLDER}/{'%i' if template else 'layout'}.yaml"
    what = "Layout %i: t" if template else "T"
    return f"""\
# Runs `orchestrator up` with the layout {layout}.
# What follows from one host and its plan stands in the drop-in that `orchestrator systemd --install` writes.
[Unit]
Description={what}ransformer model serving on CPU: NUMA-placed instances, routed by sequence length
Documentation=man:systemd.service(5)
After=network-online.target
Wants=network-online.target
# A start that fails again and again stops being tried. Starts by hand count as well, and shall not be what uses it up.
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Slice=orchestrator.slice
Type=notify
NotifyAccess=main
ExecStart={program} up --layout {layout}
# Returns when the change is done, and fails if it was rolled back.
ExecReload={program} reload
# The supervisor drains on SIGTERM: it answers what was accepted. It ends its children itself.
KillMode=mixed
KillSignal=SIGTERM
# Each step of the start asks for as much time again, so this bounds the longest step, not the start.
TimeoutStartSec={START_SECONDS}
# Two drains, of gateways and then of the router, and the stops behind them.
TimeoutStopSec={stop_seconds(drain_seconds)}
# Fed only while the router really answers.
WatchdogSec={WATCHDOG_SECONDS}
# What does not end by SIGABRT, which shows in the journal where it hung, is killed after this long.
TimeoutAbortSec=10
Restart=on-failure
RestartSec=1
# 78: a configuration or layout that cannot work. Trying again would not help.
RestartPreventExitStatus=78
# A worker that the kernel kills for want of memory is started again by the supervisor; the others serve on.
OOMPolicy=continue
LimitNOFILE=65536

# A user that exists while the service runs. It owns these folders, and nothing else on the host.
DynamicUser=yes
User={own}
RuntimeDirectory={own}
RuntimeDirectoryMode=0700
CacheDirectory={own}
CacheDirectoryMode=0700
LogsDirectory={own}
LogsDirectoryMode=0750
UMask=0077
WorkingDirectory=%C/{own}
Environment=HF_HOME=%C/{own}/huggingface
Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1

# No capability at all. Binding needs none: sched_setaffinity(2), set_mempolicy(2) and migrate_pages(2) act on processes of the same
# user, prctl(2) on the process itself; the numa_maps that are read back are those of its own children.
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
PrivateUsers=yes
# @system-service holds the calls for CPU affinity and memory policy (@resources): they may not be taken away.
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @keyring
SystemCallErrorNumber=EPERM
SystemCallArchitectures=native
# Left out: MemoryDenyWriteExecute=yes. OpenVINO writes its kernels at run time, into memory that is then executed.
# Unix sockets are those of router and gateways. The network is the host's: orchestrators claim cores in its namespace of names.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RemoveIPC=yes
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
PrivateDevices=yes
# Topology and cgroup limits are read below /sys and /proc; nothing is written there.
ProtectControlGroups=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
# Processes of others are not seen; /proc/cpuinfo and /proc/sys are, so ProcSubset=pid is left out.
ProtectProc=invisible

[Install]
WantedBy=multi-user.target
"""


def _drop_in(program: str, name: str | None, host: Host) -> str:
    lines = [*(f"# {reason}" for reason in host.reasons), "[Unit]"]
    if host.mounts:
        lines += ["# At boot it waits for the file systems that these lie on."]
        lines += [f"RequiresMountsFor={_path(path)}" for path in host.mounts]
    if host.listen is not None:
        own = f"orchestrator@{name}" if name is not None else "orchestrator"
        lines += [
            "# systemd holds the listening socket: it is there before the service, and goes only when it is stopped itself.",
            f"Requires={own}.socket",
            f"After={own}.socket",
        ]
    lines += ["", "[Service]"]
    if host.layout != default_layout(name):
        options = "" if host.layout is None else f" --layout {_quoted(host.layout)}"
        lines += ["ExecStart=", f"ExecStart={program} up{options}"]
    lines += [
        f"# supervision.drain_timeout_s is {host.drain_seconds:g}, for gateways and for the router.",
        f"TimeoutStopSec={stop_seconds(host.drain_seconds)}",
    ]
    placement = host.placement
    if placement.cpus is None:
        lines += [f"# {placement.unconfined}: no AllowedCPUs=."]
    else:
        lines += [
            "# The cores of instances and housekeeping, with their SMT siblings, as a cpuset: no thread can leave them.",
            "# Others may still run there, see orchestrator.slice. A plan with other cores needs this file written anew.",
            f"AllowedCPUs={format_cpulist(placement.cpus)}",
        ]
    if placement.nodes is not None:
        lines += [
            "# The nodes that memory is bound to. What is read from files comes from here as well.",
            f"AllowedMemoryNodes={format_cpulist(placement.nodes)}",
        ]
    if host.readable:
        lines += ["# What the program needs and the sandbox would hide."]
        lines += [f"BindReadOnlyPaths={_path(folder, colon=True)}" for folder in host.readable]
    return "\n".join([*lines, ""])


def main(folder: str) -> None:
    """Writes what is for no host in particular: `python -m orchestrator.units systemd`."""
    from pathlib import Path

    from orchestrator.config.declared import option

    for file in generic(float(option("supervision.drain_timeout_s").default)):
        (Path(folder) / file.path).write_text(file.text)


def generic(drain_seconds: float) -> list[File]:
    """The units of systemd/: for no host in particular, with the default address."""
    both = [*units(PROGRAM, None, None, drain_seconds), *units(PROGRAM, "NAME", None, drain_seconds)]
    unique = {file.path: file for file in both}
    return [*unique.values(), File("orchestrator.socket", socket_unit("orchestrator", "127.0.0.1:8080"))]


if __name__ == "__main__":
    main(sys.argv[1])
