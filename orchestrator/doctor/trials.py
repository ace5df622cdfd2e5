"""What does this kernel or container really let a worker do? Tried in a child, because a refusal may be a signal.

`python -m orchestrator.doctor.trials CPU NODE NODES` tries one thing after the other and prints a line of JSON for each, so that the one
that killed it is known. Sources: pidfd_open(2), set_mempolicy(2), sched_setaffinity(2); Documentation/arch/x86/xstate.rst for AMX.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from orchestrator.doctor.host import Trial, Unread

NAMES: Final = ("affinity", "pidfd", "clock", "amx", "libnuma", "policy")
DEADLINE_SECONDS: Final = 20.0

_ARCH_PRCTL: Final = 158
"""The number of the system call on x86-64."""
_ARCH_REQ_XCOMP_PERM: Final = 0x1023
_XFEATURE_XTILEDATA: Final = 18
_CLOCK_READS: Final = 20_000


def tried(cpu: int, node: int, nodes: int) -> Mapping[str, Trial | Unread]:
    """By name: what came of it in a child bound to `cpu` and `node`, on a machine of `nodes` nodes with memory."""
    command = [sys.executable, "-m", "orchestrator.doctor.trials", str(cpu), str(node), str(nodes)]
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


def _affinity(cpu: int, _node: int, _nodes: int) -> tuple[bool, str]:
    from workers.bind import BindError, bind_cpus

    try:
        bind_cpus([cpu])
    except BindError as error:
        return False, str(error)
    return True, f"a child bound itself to CPU {cpu}"


def _pidfd(_cpu: int, _node: int, _nodes: int) -> tuple[bool, str]:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError) as error:
        return False, f"pidfd_open: {error}"
    return True, "pidfd_open works"


def _clock(_cpu: int, _node: int, _nodes: int) -> tuple[bool, str]:
    """Nanoseconds of one reading, the interpreter's call included: the least of several runs."""
    runs = []
    for _ in range(5):
        begun = time.perf_counter_ns()
        for _ in range(_CLOCK_READS // 5):
            time.monotonic_ns()
        runs.append((time.perf_counter_ns() - begun) / (_CLOCK_READS // 5))
    return True, f"{min(runs):.0f}"


def _amx(_cpu: int, _node: int, _nodes: int) -> tuple[bool, str]:
    if platform.machine() != "x86_64":
        return False, "not an x86-64 machine"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0:
        return True, "arch_prctl(ARCH_REQ_XCOMP_PERM) grants the tile registers"
    return False, f"arch_prctl(ARCH_REQ_XCOMP_PERM): {os.strerror(ctypes.get_errno())}"


def _libnuma(_cpu: int, _node: int, _nodes: int) -> tuple[bool, str]:
    from workers.bind import BindError, PolicyForbiddenError, libnuma

    try:
        libnuma()
    except PolicyForbiddenError:
        return True, "libnuma.so.1 loads"
    except BindError as error:
        return False, str(error)
    return True, "libnuma.so.1 loads"


def _policy(_cpu: int, node: int, nodes: int) -> tuple[bool, str]:
    from workers.bind import BindError, bind_memory

    try:
        binding = bind_memory([node], nodes)
    except BindError as error:
        return False, str(error)
    return binding.policy == "bind", f"{binding.policy} to node {node}" + "".join(f"; {note}" for note in binding.notes)


_TRIALS: Final[tuple[tuple[str, Callable[[int, int, int], tuple[bool, str]]], ...]] = (
    ("affinity", _affinity),
    ("pidfd", _pidfd),
    ("clock", _clock),
    ("amx", _amx),
    ("libnuma", _libnuma),
    ("policy", _policy),
)


def main(words: list[str]) -> int:
    cpu, node, nodes = map(int, words)
    for name, trial in _TRIALS:
        ok, said = trial(cpu, node, nodes)
        print(msgspec.json.encode((name, ok, said)).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
