"""What does the doctor say of an orchestrator that runs, from its status and from what the kernel shows of its processes?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from orchestrator.doctor import files
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.host import Host, MemoryLimit, Process, Running, Throttling, Unread
from orchestrator.status import Status
from topology.tree import MemoryTree

Live = Callable[..., Host]
Of = Callable[[Host, str], Finding]
GIB = 1 << 30


def status(**instance: Any) -> Status:
    one = {
        "name": "short-0", "cpus": [0, 1], "node": 0, "membind": [0], "threads": 2, "bucket": None, "max_seqlen": 128,
        "reasons": [], "state": "ready", "pid": 12, "incarnation": 1, "restarts": 0, "ready_seconds": 1.0, "last_error": None,
        "rss_bytes": 1, "verified": verified(), **instance,
    }  # fmt: skip
    model = {
        "id": "m", "task": "t", "architecture": "a", "precision": "fp32", "engine": "onnxruntime", "max_seqlen": 128,
        "dimensions": 1, "digest": "", "artefact": "",
    }  # fmt: skip
    whole = {
        "version": "1", "state": "ready", "time_unix": 0.0, "uptime_seconds": 1.0, "window_seconds": 10.0, "pid": 10,
        "endpoint": "http://127.0.0.1:8080", "policy": "by-seqlen", "model": model, "router": {"state": "ready", "pid": 11},
        "gateways": [{"name": "gateway-0", "state": "ready", "pid": 13}], "instances": [one], "housekeeping_cpus": [],
        "unused_cpus": [], "machine": {"model_name": "", "packages": 1, "nodes": 1, "cores": 1, "cpus": []}, "warnings": [],
    }  # fmt: skip
    return msgspec.convert(whole, Status)


def verified(**more: Any) -> dict[str, Any]:
    return {
        "cpus": [0, 1],
        "membind": [0],
        "policy": "bind",
        "threads": 4,
        "matches_plan": True,
        "allocator": "system",
        **more,
    }


def running(of: Status, *processes: Process, **more: Any) -> Running:
    readings = {
        "throttling": Unread("no quota"),
        "memory": MemoryLimit("/sys/fs/cgroup/o/memory.max", None, None),
        **more,
    }
    return Running(of, processes, **readings)


def worker(**more: Any) -> Process:
    return Process("short-0", 12, "worker", **more)


CASES: list[tuple[str, Running, str, str]] = [
    ("orchestrator", running(status()), "ok", "1 of 1 instance ready"),
    ("orchestrator", running(status(restarts=3)), "note", "3 restarts of instances"),
    ("orchestrator", running(status(state="failed", last_error="exit 1")), "broken", "short-0 failed: exit 1"),
    ("placement", running(status()), "ok", "1 of 1 instance read back from the kernel, as planned"),
    (
        "placement",
        running(status(verified=verified(matches_plan=False, notes=["thread 9 may run on CPU [3], outside the plan"]))),
        "costs", "thread 9 may run on CPU [3]",
    ),
    ("placement", running(status(), worker(cpus=frozenset({0, 1}))), "ok", "as planned"),
    ("placement", running(status(), worker(cpus=frozenset({1, 7}))), "costs", "its threads may run on CPU 7, outside the plan"),
    ("remote memory", running(status(), worker(pages_by_node={0: 99, 1: 1})), "ok", "short-0 1.0 %"),
    ("remote memory", running(status(), worker(pages_by_node={0: GIB, 1: GIB})), "costs", "1.0 GiB of 2.0 GiB (50 %) not on node [0]"),
    ("remote memory", running(status(), worker(pages_by_node=None)), "unknown", "numa_maps"),
    ("swapped out", running(status(), worker()), "ok", "nothing"),
    ("swapped out", running(status(), worker(swapped_bytes=5 << 20)), "costs", "short-0 5 MiB"),
    ("allocators", running(status(verified=verified(allocator="jemalloc"))), "ok", "short-0 has jemalloc"),
    (
        "allocator", running(status(), Process("supervisor", 10, "supervisor", preload="/l/libjemalloc.so.2")),
        "note", "running orchestrator",
    ),
    ("open files", running(status(), Process("gateway-0", 13, "gateway", open_files=(100, 100))), "broken", "the running gateways"),
    ("throttling", running(status(), throttling=Throttling("/cg/cpu.stat", 100, 50, 4.0)), "costs", "running orchestrator's cgroup"),
    ("CPU quota", running(status(), quota_cpus=1.5), "note", "1.5 of 4 CPUs"),
    ("memory limit", running(status(), memory=MemoryLimit("/m", 10 * GIB, GIB)), "ok", "1.0 GiB of 10.0 GiB used"),
    ("memory limit", running(status(), memory=MemoryLimit("/m", 10 * GIB, 10 * GIB)), "costs", "(100 %; /m)"),
    ("memory limit", running(status()), "ok", "of 62.5 GiB used"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "what", "level", "said"), CASES)
def test_a_running_orchestrator_gives_this_finding(
    check: str, what: Running, level: str, said: str, live: Live, finding: Of
) -> None:
    found = finding(live(running=what, answer="status"), check)
    assert found.level == level, found
    assert said in f"{found.found}\n{found.cost}\n{found.mend}"


def test_anonymous_memory_is_summed_by_node_in_pages_of_their_size() -> None:
    maps = (
        "7f00 bind:0 file=/lib/libm.so mapped=90 mapmax=9 N1=90 kernelpagesize_kB=4\n"
        "7f10 bind:0 anon=3 dirty=3 N0=2 N1=1 kernelpagesize_kB=4\n"
        "7f20 bind:0 anon=2 dirty=2 N0=2 kernelpagesize_kB=2048\n"
    )
    tree = files.ProcessTree(MemoryTree({"proc/12/numa_maps": maps}, ""), 12)
    assert files.anonymous_by_node(tree) == {0: 2 * 4096 + 2 * (2 << 20), 1: 4096}
    assert files.anonymous_by_node(files.ProcessTree(MemoryTree({}, ""), 12)) is None


def test_another_process_has_its_own_limits_and_environment() -> None:
    tree = MemoryTree(
        {
            "proc/12/limits": "Max open files            1024     2048     files\n",
            "proc/12/environ": "A=1\0LD_PRELOAD=/l/libjemalloc.so.2\0B=2",
            "proc/12/task/12/status": "Cpus_allowed:\t3\nCpus_allowed_list:\t0-1\n",
            "proc/12/task/15/status": "Cpus_allowed_list:\t4\n",
            "proc/12/status": "Name: x\nVmSwap:\t    12 kB\n",
            "proc/self/limits": "Max open files            7     7     files\n",
        },
        "",
    )
    own = files.ProcessTree(tree, 12)
    assert files.open_files(own) == (1024, 2048)
    assert files.preload_of(own) == "/l/libjemalloc.so.2"
    assert files.swapped_bytes(own) == 12 * 1024
    assert files.cpus_of_threads(own) == {0, 1, 4}
    assert files.cpus_of_threads(files.ProcessTree(tree, 13)) is None
    assert files.preload_of(files.ProcessTree(tree, 13)) == ""
