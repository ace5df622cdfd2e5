"""How does a user attach their machine to a bug report? As exactly the files that the parser reads, and nothing of theirs beside.

Left out: every file that no rule reads, and inside the files that are read every line that no rule reads: serial numbers, host names,
mounts, process names. The paths of the process's own cgroup stay, because limits depend on them.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from topology.build import build
from topology.cpuinfo import sanitized
from topology.cpuset import format_cpulist
from topology.limits import MOUNT_TABLES, STATUS_KEYS, process_affinity
from topology.model import Machine, TopologyError
from topology.sysfs import read_facts
from topology.tree import DiskTree, MemoryTree, RecordingTree, Tree, open_archive, read_file

_DESCENDED = re.compile(r"(?:cpu|node|index)\d+\Z")
_LIMITING = frozenset({"", "cpu", "cpuset"})


def write_capture(sysroot: Path, archive: Path) -> Machine:
    """Write the files of the machine below `sysroot` (`/`: the live one) to a gzip tar, whole or not at all.

    Returns the machine. The archive is read back before it gets its name: what it says must equal what was read.
    TopologyError if the machine cannot be read or the archive not be written.
    """
    tree: Tree
    if sysroot.is_dir():
        tree = DiskTree(sysroot)
        affinity = process_affinity() if sysroot.resolve() == Path("/") else None
    else:
        tree, affinity = open_archive(sysroot, read_file(sysroot)), None
    recording = RecordingTree(tree)
    machine = build(read_facts(recording, affinity=affinity))
    files = {path: _cleaned(path, text) for path, text in recording.files.items()}
    if affinity is not None:
        files["proc/self/status"] = _status(files.get("proc/self/status", ""), affinity)
    directories = _directories(recording, files)
    again = build(read_facts(MemoryTree(files, str(archive), directories)))
    if again != machine:
        raise TopologyError(
            f"{archive}: not written: the capture would read back as another machine; this is a bug, please report it "
            f"with the output of `orchestrator topology --json`"
        )
    _write(archive, _packed(files, directories))
    return machine


def _directories(recording: RecordingTree, files: dict[str, str]) -> list[str]:
    """Directories and links that said something by their name alone, such as cpu12/node0 of an offline CPU."""
    named = {
        f"{directory}/{name}"
        for directory, names in recording.listed.items()
        for name in names
        if _DESCENDED.match(name) and not directory.endswith("/cache")
    }
    holding = {path.rsplit("/", depth)[0] for path in files for depth in range(1, path.count("/") + 1)}
    return sorted(named - holding)


def _cleaned(path: str, text: str) -> str:
    if path == "proc/cpuinfo":
        return sanitized(text)
    if path == "proc/self/status":
        return _only(text, lambda line: line.partition(":")[0] in STATUS_KEYS)
    if path == "proc/self/cgroup":
        return _only(text, lambda line: bool(_LIMITING & set(line.split(":")[1].split(","))))
    if path in MOUNT_TABLES:
        return _only(text, lambda line: MOUNT_TABLES[path](line) is not None)
    if path.endswith("meminfo"):
        return _only(text, lambda line: re.search(r"\bMem(?:Total|Free):", line) is not None)
    return text


def _only(text: str, wanted: Callable[[str], bool]) -> str:
    return "".join(f"{line}\n" for line in text.splitlines() if wanted(line))


def _status(text: str, affinity: frozenset[int]) -> str:
    # What decided on the live machine is sched_getaffinity, so that is what the capture says.
    others = _only(text, lambda line: not line.startswith("Cpus_allowed"))
    return f"Cpus_allowed_list:\t{format_cpulist(affinity)}\n{others}"


def _packed(files: dict[str, str], directories: list[str]) -> bytes:
    """A tar without owners and times: the same machine gives the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted([*files, *directories]):
            entry = tarfile.TarInfo(path)
            if path in files:
                content = files[path].encode("utf-8")
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
    return gzip.compress(plain.getvalue(), mtime=0)


def _write(archive: Path, content: bytes) -> None:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{archive.name}.", dir=archive.parent)
    except OSError as error:
        raise TopologyError(
            f"{archive}: cannot be written: {error.strerror}; name a file in a directory you may write to"
        ) from error
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)  # as open() would have made it; mkstemp gives it to the owner alone
        partial.replace(archive)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TopologyError(
            f"{archive}: cannot be written: {error.strerror}; name another file or make room"
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
