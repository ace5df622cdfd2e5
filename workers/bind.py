"""How does a worker take its cores and its memory node before anything else touches memory?

Theory of operation. The order matters: affinity and policy are per thread and inherited by later threads, and a page lies where it is first
touched; so this runs before numpy or an engine is imported. CPUs are a must: an affinity that the kernel refuses ends the start.
Memory is a ladder: bind (MPOL_BIND), else preferred (MPOL_PREFERRED), else the kernel's default of the local node, which with all
threads on the node's own cores still allocates there while it has room. Each rung that was refused becomes a note that status shows.

Traps of py-libnuma (all met here): importing it without libnuma.so.1 raises AttributeError; naming a node that does not exist passes a
null mask to libnuma and crashes; its setters return nothing, so success is what the kernel says when it is read back.
Source: set_mempolicy(2), numa(3), Documentation/admin-guide/mm/numa_memory_policy.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import POINTER, c_int
from pathlib import Path
from types import ModuleType

from workers.spec import Binding

LOCAL_MEMORY = "memory comes from the node of the thread that touches it first, while that has room"


class BindError(Exception):
    """The cores or the memory node cannot be had: says which, why and what to do."""


class PolicyForbiddenError(BindError):
    """libnuma is there, but this kernel or container refuses every memory policy. One can serve without."""


def bind(cpus: list[int], membind: list[int], nodes_on_machine: int) -> Binding:
    """Binds this process. BindError if the CPUs are refused, or if several nodes exist and libnuma does not."""
    bind_cpus(cpus)
    if not membind:
        return Binding("default", ["no memory node was asked for"])
    return bind_memory(membind, nodes_on_machine)


def bind_cpus(cpus: list[int]) -> None:
    """Restricts the calling thread, and all it will start, to these CPUs."""
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise BindError(
            f"cannot run on CPUs {cpus}: {error.strerror}; they may be offline or outside this container's cpuset; "
            f"this process may use {sorted(os.sched_getaffinity(0))}"
        ) from None
    got = os.sched_getaffinity(0)
    if got != set(cpus):
        raise BindError(f"asked for CPUs {cpus}, the kernel gave {sorted(got)}: some are offline or outside the cpuset")


def bind_memory(membind: list[int], nodes_on_machine: int) -> Binding:
    try:
        numa = libnuma()
    except PolicyForbiddenError as error:
        return Binding("default", [str(error), LOCAL_MEMORY])
    except BindError as error:
        if nodes_on_machine > 1:
            raise
        return Binding("default", [f"one node needs no policy: {error}"])
    usable = nodes_with_memory() & allowed_nodes()
    missing = sorted(set(membind) - usable)
    if missing:
        raise BindError(
            f"memory node {missing} does not exist, is offline or outside this container's cpuset; "
            f"this process may use memory of {sorted(usable)}"
        )
    notes: list[str] = []
    with _quiet_libnuma(notes):
        numa.memory.set_membind_nodes(*membind)
        bound = sorted(numa.memory.get_membind_nodes()) == sorted(membind) and _task_policy().startswith("bind")
    if bound:
        return Binding("bind", move_early_pages(numa, membind))
    notes.append(f"bind to node {membind} was refused; many containers forbid set_mempolicy (give it CAP_SYS_NICE)")
    with _quiet_libnuma(notes):
        numa.schedule.set_preferred_node(membind[0])
        preferred = _task_policy().startswith("prefer")
    if preferred:
        return Binding("preferred", notes)
    return Binding("default", [*notes, f"preferred was refused too: {LOCAL_MEMORY}"])


def nodes_with_memory(sysfs: Path = Path("/sys/devices/system/node")) -> set[int]:
    """Online nodes that have memory; {0} on a kernel without NUMA."""
    for name in ("has_memory", "online"):
        try:
            text = (sysfs / name).read_text().strip()
        except OSError:
            continue
        return kernel_list(text)
    return {0}


def allowed_nodes(status: Path = Path("/proc/self/status")) -> set[int]:
    """The nodes that the cpuset lets this process allocate on; {0} on a kernel without NUMA. To libnuma all others do not exist."""
    for line in status.read_text().splitlines():
        if line.startswith("Mems_allowed_list:"):
            return kernel_list(line.partition(":")[2])
    return {0}


def libnuma() -> ModuleType:
    """The package `numa`; BindError, with what mends it, where there is no libnuma; PolicyForbiddenError where it may do nothing."""
    try:
        import numa
    except (ImportError, AttributeError, OSError, TypeError) as error:
        raise BindError(
            f"libnuma is not usable ({type(error).__name__}: {error}); install it: apt-get install libnuma1 (dnf install numactl-libs)"
        ) from None
    if not numa.info.numa_available():
        # get_mempolicy(2) gave ENOSYS, or EPERM as under the seccomp profile of container engines. What libnuma's other calls
        # do then is undefined.
        raise PolicyForbiddenError(
            "memory policies are refused here, by a container's seccomp profile (give it CAP_SYS_NICE) or a kernel without NUMA"
        )
    return numa  # type: ignore[no-any-return]


def kernel_list(text: str) -> set[int]:
    """A kernel list such as `0-1,12`."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def move_early_pages(numa: ModuleType, membind: list[int]) -> list[str]:
    """Moves to the bound node what the interpreter touched before it was bound; a note if the kernel refuses.

    It is 8 MB where the process began on another node: a quarter of a small model's process. Source: migrate_pages(2).
    """
    migrate, nodes = numa.LIBNUMA.numa_migrate_pages, numa.LIBNUMA.numa_parse_nodestring
    migrate.argtypes = [c_int, POINTER(numa.bitmask_t), POINTER(numa.bitmask_t)]
    migrate.restype = c_int
    wanted = ",".join(map(str, membind)).encode("ascii")
    if migrate(0, nodes(b"all"), nodes(wanted)) < 0:
        return ["migrate_pages was refused: what the interpreter touched before it was bound stays where it was"]
    return []


def _task_policy() -> str:
    """The policy that the kernel applies to memory without one of its own, as numa_maps prints it."""
    try:
        with Path("/proc/self/numa_maps").open() as maps:
            return next(maps).split()[1]
    except (OSError, StopIteration, IndexError):
        return "unknown"


@contextmanager
def _quiet_libnuma(notes: list[str]) -> Iterator[None]:
    """libnuma reports a refused call by writing to standard error and in no other way; that text becomes a note."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    saved = os.dup(2)
    os.dup2(write, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(write)
        try:
            text = os.read(read, 4096).decode("utf-8", "replace").strip()
        except BlockingIOError:
            text = ""
        os.close(read)
        if text:
            notes.append(f"libnuma: {text}")
