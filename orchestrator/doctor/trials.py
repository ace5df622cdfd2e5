"""What does this kernel or container really let a worker do? Tried in a child, because a refusal may be a signal.

`python -m orchestrator.doctor.trials WHERE` (JSON) tries one thing after the other and prints a line of JSON for each, so that the one
that killed it is known. Sources: pidfd_open(2), set_mempolicy(2), sched_setaffinity(2); Documentation/arch/x86/xstate.rst for AMX.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from orchestrator.doctor.host import Trial, Unread

NAMES: Final = ("affinity", "pidfd", "clock", "wakeup", "amx", "libnuma", "policy")
DEADLINE_SECONDS: Final = 20.0

_ARCH_PRCTL: Final = 158
"""The number of the system call on x86-64."""
_ARCH_REQ_XCOMP_PERM: Final = 0x1023
_XFEATURE_XTILEDATA: Final = 18
_CLOCK_READS: Final = 20_000
_WAKEUPS: Final = 200
_ASLEEP_SECONDS: Final = 0.001
"""The pause before each, in which the other core goes to sleep: about what an engine takes for a short text."""


class Where(msgspec.Struct, frozen=True):
    """What the child is bound to."""

    cpu: int
    other: int | None
    """A CPU of another core, None where there is none."""
    node: int
    nodes: int
    """How many nodes of the machine have memory."""


def tried(where: Where) -> Mapping[str, Trial | Unread]:
    """By name: what came of it in a child that is bound there."""
    command = [sys.executable, "-m", "orchestrator.doctor.trials", msgspec.json.encode(where).decode()]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=DEADLINE_SECONDS, check=False)
        printed, how = ended.stdout, _how(ended.returncode, ended.stderr)
    except subprocess.TimeoutExpired as error:
        printed, how = error.stdout or b"", f"it did not come back within {DEADLINE_SECONDS:g} s"
    except OSError as error:
        return dict.fromkeys(NAMES, Unread(f"no child can be started: {error.strerror}"))
    return _taken_apart(printed, how)


def _taken_apart(printed: bytes, how: str) -> dict[str, Trial | Unread]:
    results: dict[str, Trial | Unread] = {}
    for line in printed.splitlines():
        try:
            name, ok, said = msgspec.json.decode(line, type=tuple[str, bool, str])
        except msgspec.DecodeError:
            continue  # a library's own words
        results[name] = Trial(ok, said)
    died = False
    for name in NAMES:
        if name not in results:
            results[name] = Unread("the trial before it ended the child") if died else Trial(False, how, died=True)
            died = True
    return results


def _how(code: int, said: bytes) -> str:
    last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    return f"the child ended with it: {how}{f': {last}' if last else ''}"


def _affinity(where: Where) -> tuple[bool, str]:
    from workers.bind import BindError, bind_cpus

    try:
        bind_cpus([where.cpu])
    except BindError as error:
        return False, str(error)
    return True, f"a child bound itself to CPU {where.cpu}"


def _pidfd(_: Where) -> tuple[bool, str]:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError) as error:
        return False, f"pidfd_open: {error}"
    return True, "pidfd_open works"


def _clock(_where: Where) -> tuple[bool, str]:
    """Nanoseconds of one reading, the interpreter's call included: the least of several runs."""
    runs = []
    for _ in range(5):
        begun = time.perf_counter_ns()
        for _ in range(_CLOCK_READS // 5):
            time.monotonic_ns()
        runs.append((time.perf_counter_ns() - begun) / (_CLOCK_READS // 5))
    return True, f"{min(runs):.0f}"


def _wakeup(where: Where) -> tuple[bool, str]:
    """Microseconds from a write until its reader runs on another core, median; the interpreter's calls included."""
    if where.other is None:
        return False, "there is no second core"
    there, write = os.pipe()
    here, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(write)
            _woken(where.other, there, answer)
        finally:
            os._exit(0)
    os.close(there)
    os.close(answer)
    try:
        os.sched_setaffinity(0, [where.cpu])
        if os.read(here, 1):
            for _turn in range(_WAKEUPS):
                time.sleep(_ASLEEP_SECONDS)
                os.write(write, time.monotonic_ns().to_bytes(8))
        os.close(write)
        said = os.read(here, 64).decode()
    except OSError as error:
        return False, f"a process on CPU {where.other} could not be woken from CPU {where.cpu}: {error.strerror}"
    finally:
        os.waitpid(child, 0)
    return bool(said), said or f"no process could be bound to CPU {where.other}"


def _woken(cpu: int, there: int, answer: int) -> None:
    """Reads stamps until there are no more, and answers with the median of how late they came."""
    os.sched_setaffinity(0, [cpu])
    os.write(answer, b"!")
    late = []
    while stamp := os.read(there, 8):
        late.append(time.monotonic_ns() - int.from_bytes(stamp))
    os.write(answer, f"{statistics.median(late) / 1e3:.1f}".encode())


def _amx(_: Where) -> tuple[bool, str]:
    if platform.machine() != "x86_64":
        return False, "not an x86-64 machine"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0:
        return True, "arch_prctl(ARCH_REQ_XCOMP_PERM) grants the tile registers"
    return False, f"arch_prctl(ARCH_REQ_XCOMP_PERM): {os.strerror(ctypes.get_errno())}"


def _libnuma(_: Where) -> tuple[bool, str]:
    from workers.bind import BindError, PolicyForbiddenError, libnuma

    try:
        libnuma()
    except PolicyForbiddenError:
        return True, "libnuma.so.1 loads"
    except BindError as error:
        return False, str(error)
    return True, "libnuma.so.1 loads"


def _policy(where: Where) -> tuple[bool, str]:
    from workers.bind import BindError, bind_memory

    try:
        binding = bind_memory([where.node], where.nodes)
    except BindError as error:
        return False, str(error)
    return binding.policy == "bind", f"{binding.policy} to node {where.node}" + "".join(
        f"; {note}" for note in binding.notes
    )


_TRIALS: Final[tuple[tuple[str, Callable[[Where], tuple[bool, str]]], ...]] = (
    ("affinity", _affinity),
    ("pidfd", _pidfd),
    ("clock", _clock),
    ("wakeup", _wakeup),
    ("amx", _amx),
    ("libnuma", _libnuma),
    ("policy", _policy),
)


def main(words: list[str]) -> int:
    where = msgspec.json.decode(words[0], type=Where)
    for name, trial in _TRIALS:
        ok, said = trial(where)
        print(msgspec.json.encode((name, ok, said)).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
