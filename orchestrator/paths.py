"""Where do runtime files and cached artefacts lie? Read from the environment once, at the start of a command."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

LONGEST_SOCKET_PATH = 107
"""sun_path of unix(7), without its final zero."""


class PathError(Exception):
    """A folder that cannot be used: says which, why and what to do."""


def runtime_folder(chosen: str | None, environment: Mapping[str, str], uid: int) -> Path:
    """The folder of sockets and lock: the option, $ORCHESTRATOR_RUNTIME_DIR, systemd's $RUNTIME_DIRECTORY, else the user's own."""
    named = (
        chosen or environment.get("ORCHESTRATOR_RUNTIME_DIR") or environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
    )
    if named:
        return Path(named).absolute()
    if uid == 0:
        return Path("/run/orchestrator")
    own = environment.get("XDG_RUNTIME_DIR")
    return Path(own) / "orchestrator" if own else Path(f"/tmp/orchestrator-{uid}")


def cache_folder(chosen: str | None, environment: Mapping[str, str]) -> Path:
    """The folder of built artefacts: the option, $ORCHESTRATOR_CACHE_DIR, systemd's $CACHE_DIRECTORY, else the user's cache."""
    named = chosen or environment.get("ORCHESTRATOR_CACHE_DIR") or environment.get("CACHE_DIRECTORY", "").split(":")[0]
    if named:
        return Path(named).absolute()
    base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "orchestrator"


def log_folder(chosen: str | None, environment: Mapping[str, str], uid: int, runtime: Path) -> Path:
    """The folder of log files: the option, $ORCHESTRATOR_LOG_DIR, systemd's $LOGS_DIRECTORY, else the user's own for state.

    Where the runtime folder is not the usual one it is `log` in there: several orchestrators do not meet, and what was tried in
    a temporary folder goes with it. Source: XDG Base Directory Specification 0.8, XDG_STATE_HOME.
    """
    named = chosen or environment.get("ORCHESTRATOR_LOG_DIR") or environment.get("LOGS_DIRECTORY", "").split(":")[0]
    if named:
        return Path(named).absolute()
    usual = runtime_folder(None, {"XDG_RUNTIME_DIR": environment.get("XDG_RUNTIME_DIR", "")}, uid)
    if runtime != usual:
        return runtime / "log"
    if uid == 0:
        return Path("/var/log/orchestrator")
    base = environment.get("XDG_STATE_HOME")
    if base is None:
        try:
            base = str(Path.home() / ".local" / "state")
        except RuntimeError:  # a container's user that has neither a name nor a home
            return runtime / "log"
    return Path(base) / "orchestrator" / "log"


def point_to_logs(runtime: Path, folder: Path) -> None:
    """Leaves `logs` in the runtime folder, a link to where this orchestrator's log files are. OSError if it cannot be."""
    link, fresh = runtime / "logs", runtime / f"logs.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder)
    fresh.replace(link)


def pointed_logs(runtime: Path) -> Path | None:
    """Where the orchestrator of this runtime folder, running or not, writes or wrote its logs; None if it does not say."""
    try:
        return (runtime / "logs").readlink()
    except OSError:
        return None


def claim_runtime_folder(folder: Path) -> None:
    """Makes the folder, mode 0700, ours. PathError if it cannot be or belongs to somebody else."""
    if len(str(folder / socket_name("front", 10_000))) > LONGEST_SOCKET_PATH:
        raise PathError(
            f"{folder}: too long for a unix socket (at most {LONGEST_SOCKET_PATH} bytes); name a shorter --runtime-dir"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise PathError(
            f"{folder}: {error.strerror}; name another with --runtime-dir or $ORCHESTRATOR_RUNTIME_DIR"
        ) from None
    if not stat.S_ISDIR(found.st_mode):
        raise PathError(f"{folder}: not a folder; name another with --runtime-dir")
    if found.st_uid != os.getuid():
        raise PathError(f"{folder}: belongs to user {found.st_uid}; name another with --runtime-dir")
    if found.st_mode & 0o022:
        raise PathError(f"{folder}: others may write to it; chmod 700 {folder}, or name another with --runtime-dir")


def socket_name(what: str, world: int) -> str:
    """Of the first router `front.sock`, of the second `front-1.sock`."""
    return f"{what}-{world}.sock" if world else f"{what}.sock"


def point_front_to(runtime: Path, world: int) -> None:
    """Who starts from now on and connects to `front.sock` finds the router of this world."""
    if not world:
        return
    link = runtime / "front.sock"
    fresh = runtime / "front.sock.next"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(socket_name("front", world))
    fresh.replace(link)


def remove_sockets(runtime: Path, but: Iterable[int] = ()) -> None:
    """What routers have bound, and what leads to it; to be called only while the lock is held. What is no socket stays.

    Those of the worlds `but` stay.
    """
    kept = set(but)
    for what in ("front", "back", "local"):
        for path in runtime.glob(f"{what}*.sock*"):
            mode = path.lstat().st_mode
            if stat.S_ISSOCK(mode) and any(path.name == socket_name(what, world) for world in kept):
                continue
            if stat.S_ISSOCK(mode) or (stat.S_ISLNK(mode) and str(path.readlink()).startswith(f"{what}-")):
                path.unlink(missing_ok=True)
