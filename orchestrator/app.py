"""How does everything come together for `orchestrator up`? Sockets and locks, what is to run, then the supervisor."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import resource
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from orchestrator.assemble import AppError, Options, Prelude, prelude, settled_layout
from orchestrator.claims import Claims
from orchestrator.config.schema import Layout, LogsConfig
from orchestrator.draft import Draft
from orchestrator.idle import NotHeld, cpu_latency
from orchestrator.listening import ListenError, Listening, Said, listen, passed
from orchestrator.logs.journal import Journal
from orchestrator.paths import PathError, claim_runtime_folder, point_to_logs, remove_sockets
from orchestrator.reload import Reloader
from orchestrator.status import Status
from orchestrator.supervisor.life import StartError, Supervisor
from orchestrator.supervisor.sdnotify import Notifier, scrub_environment

STILL_STARTING_SECONDS = 600
"""After each step of the start a service manager waits this long for the next one: on a slow machine a large model takes minutes."""
SOCKETS = ("control.sock", "front.sock", "back.sock", "local.sock")
"""What lies in the runtime folder beside the lock."""
MOST_DESCRIPTORS = 65_536
"""What the service unit asks for too."""


def run(
    options: Options,
    *,
    journal: Journal,
    on_plan: Callable[[Prelude, Layout], None],
    on_ready: Callable[[Status], None],
) -> bool:
    """Serves until asked to stop. Returns whether everything that was accepted was answered. AppError if it cannot start.

    `journal` takes the progress, and one line per change of state.
    """
    raise_descriptor_limit()
    with ExitStack() as held:
        try:
            claim_runtime_folder(options.runtime)
        except PathError as error:
            raise AppError(str(error), unworkable=True) from None
        _lock(options.runtime, held)
        remove_sockets(options.runtime)
        _only_sockets(options.runtime)
        held.callback(remove_sockets, options.runtime)
        notifier = Notifier.from_environment(os.environ, os.getpid())

        def progress(line: str) -> None:
            journal(line)
            notifier.send(STATUS=f"starting: {line}", EXTEND_TIMEOUT_USEC=str(STILL_STARTING_SECONDS * 1_000_000))

        layout = settled_layout(options)
        _open_logs(journal, options, layout.logs)
        listening = held.enter_context(closing(_listen(options, layout)))
        if layout.cpu_latency_us is not None:
            _hold_cpu_latency(layout.cpu_latency_us, held, journal)
        scrub_environment()
        claims = held.enter_context(closing(Claims(options.claim_scope)))
        before = prelude(options, layout, progress, claims)
        on_plan(before, layout)
        reloader = Reloader(options, Draft(layout, before), listening, claims, notifier, journal)
        supervisor = Supervisor(reloader.deployment, notifier, random.Random(), journal)
        reloader.attach(supervisor)
        try:
            asyncio.run(supervisor.run(on_ready))
        except StartError as error:
            raise AppError(str(error), unworkable=error.unworkable) from None
        return not supervisor.stopped_at_once


def _open_logs(journal: Journal, options: Options, logs: LogsConfig) -> None:
    """As the layout says it. A folder that cannot be used costs the files, not the service: the journal tells it."""
    journal.show_as("json" if logs.format == "json" else None)
    folder = Path(logs.dir).absolute() if logs.dir is not None else options.logs
    if logs.max_mb == 0 or folder is None:
        journal.open_files(None, most_bytes=0, keep=0)
        return
    journal.open_files(folder, most_bytes=max(1, int(logs.max_mb * (1 << 20))), keep=logs.keep)
    try:
        point_to_logs(options.runtime, folder)
    except OSError as error:
        journal(
            f"{options.runtime}/logs: {error.strerror}; `orchestrator logs` finds the log files with --log-dir {folder}",
            level="warning",
        )


def _hold_cpu_latency(microseconds: int, held: ExitStack, journal: Journal) -> None:
    try:
        counts = held.enter_context(cpu_latency(microseconds))
    except NotHeld as error:
        raise AppError(str(error), unworkable=True) from None
    journal(f"idle cores of this host wake up within {counts} µs while this orchestrator runs")


def raise_descriptor_limit() -> None:
    """As many descriptors as this process may have anyway. Shells give 1024, and a gateway wants one per connection; the soft limit is for
    programs that use select(2) on many. Children inherit it (`supervision.limits.nofile` goes before it).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _lock(runtime: Path, held: ExitStack) -> None:
    """One orchestrator per runtime folder, for as long as this process lives. The kernel drops the lock with the process."""
    path = runtime / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        held.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AppError(
                f"an orchestrator (pid {_owner(fd)}) already runs with {runtime}; `orchestrator status` shows it, `orchestrator down` "
                "stops it, and --runtime-dir names a folder for a second one"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some room" if full else f"see what is there: ls -la {runtime}; remove it"
        raise AppError(
            f"{path}: {error.strerror}; {remedy}, or name another --runtime-dir", unworkable=not full
        ) from None


def _owner(fd: int) -> str:
    """Whose lock it is, for people. It writes its pid just after it took the lock: what is there at first may be older."""
    for _ in range(20):
        said = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        if said.isdigit() and Path(f"/proc/{said}").exists():
            return said
        time.sleep(0.05)
    return "unknown"


def _only_sockets(runtime: Path) -> None:
    """What stands where a socket belongs and is none is somebody's: it is not removed. AppError names it."""
    for name in SOCKETS:
        path = runtime / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISSOCK(mode):
            raise AppError(
                f"{path}: something that is no socket is in the place of one; remove it, or name another --runtime-dir",
                unworkable=True,
            )


def _listen(options: Options, layout: Layout) -> Listening:
    """Listening before anything heavy starts: a port that is taken is known at once."""
    said = Said(
        host=layout.host if options.host is not None or layout.places.names("host") else None,
        port=layout.port if options.port is not None or layout.places.names("port") else None,
        where="the command line" if options.host is not None or options.port is not None else layout.places.file,
    )
    try:
        return passed(os.environ, os.getpid(), said) or listen(layout.host, layout.port)
    except ListenError as error:
        raise AppError(str(error), error.unworkable) from None
