"""A healthy two-socket host as a tree of files, and what the doctor reads of it with some of them changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from orchestrator.config.schema import Layout
from orchestrator.doctor.examine import examine
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.host import Folder, Host, Trial, Unread
from orchestrator.doctor.read import Asked, read_host

CPU = "sys/devices/system/cpu"
FLAGS = "lm avx2 avx512f avx512_vnni avx512_bf16 amx_tile amx_bf16 amx_int8"


def healthy() -> dict[str, str]:
    """Two sockets of two cores, no SMT, a node each; cgroup v2, frequency driver of its own, nothing wrong."""
    files = {
        f"{CPU}/online": "0-3", f"{CPU}/present": "0-3", f"{CPU}/smt/control": "off", f"{CPU}/isolated": "",
        f"{CPU}/nohz_full": "(null)", f"{CPU}/intel_pstate/no_turbo": "0",
        f"{CPU}/cpuidle/current_driver": "intel_idle",
        "sys/devices/system/node/online": "0-1", "sys/devices/system/node/has_memory": "0-1",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        "sys/kernel/mm/transparent_hugepage/defrag": "always defer defer+madvise [madvise] never",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0",
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "0",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
        "sys/devices/system/clocksource/clocksource0/available_clocksource": "tsc hpet acpi_pm",
        "proc/cpuinfo": "".join(
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: Test Xeon\nflags\t\t: {FLAGS}\n\n" for cpu in range(4)
        ),
        "proc/sys/kernel/numa_balancing": "0", "proc/sys/kernel/osrelease": "6.12.0", "proc/sys/vm/swappiness": "60",
        "proc/swaps": "Filename\tType\tSize\tUsed\tPriority",
        "proc/meminfo": "MemTotal:       65536000 kB\nMemFree:  60000000 kB\nMemAvailable:   60000000 kB",
        "proc/stat": "cpu  100000 0 20000 900000 100 0 50 10 0 0\ncpu0 1 2 3",
        "proc/uptime": "10000.50 39000.10",
        "proc/interrupts": "           CPU0       CPU1       CPU2       CPU3\n"
        "  40:   5000   0   0   0   PCI-MSI 1-edge   eth0-rx\n LOC:  9 9 9 9  Local timer interrupts",
        "proc/irq/40/smp_affinity_list": "0",
        "proc/self/status": "Cpus_allowed_list:\t0-3\nMems_allowed_list:\t0-1",
        "proc/self/limits": "Limit        Soft Limit    Hard Limit   Units\nMax open files            65536     65536     files",
        "proc/self/cgroup": "0::/system.slice/orchestrator.service",
        "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        "sys/fs/cgroup/system.slice/orchestrator.service/cpu.max": "max 100000",
        "sys/fs/cgroup/system.slice/orchestrator.service/cpu.stat": "usage_usec 5\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0",
        "sys/fs/cgroup/system.slice/orchestrator.service/memory.max": "max",
        "sys/fs/cgroup/system.slice/orchestrator.service/memory.current": "104857600",
    }  # fmt: skip
    for cpu in range(4):
        node = cpu // 2
        files |= {
            f"{CPU}/cpu{cpu}/topology/core_cpus_list": f"{cpu}",
            f"{CPU}/cpu{cpu}/topology/package_cpus_list": f"{2 * node}-{2 * node + 1}",
            f"{CPU}/cpu{cpu}/topology/physical_package_id": f"{node}",
            f"{CPU}/cpu{cpu}/cpuidle/state0/latency": "0",
            f"{CPU}/cpu{cpu}/cpuidle/state1/latency": "2",
            f"{CPU}/cpu{cpu}/cpuidle/state1/disable": "0",
            f"{CPU}/cpu{cpu}/cpuidle/state2/latency": "290",
            f"{CPU}/cpu{cpu}/cpuidle/state2/disable": "1",
            f"{CPU}/cpu{cpu}/cpufreq/scaling_governor": "performance",
            f"{CPU}/cpu{cpu}/cpufreq/scaling_driver": "intel_pstate",
            f"{CPU}/cpu{cpu}/cpufreq/scaling_min_freq": "800000",
            f"{CPU}/cpu{cpu}/cpufreq/scaling_max_freq": "3800000",
            f"{CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq": "3800000",
            f"{CPU}/cpu{cpu}/cpufreq/base_frequency": "2600000",
            f"{CPU}/cpu{cpu}/cpufreq/energy_performance_preference": "performance",
        }
    for node in range(2):
        files |= {
            f"sys/devices/system/node/node{node}/cpulist": f"{2 * node}-{2 * node + 1}",
            f"sys/devices/system/node/node{node}/meminfo": f"Node {node} MemTotal:  32768000 kB\nNode {node} MemFree: 3000000 kB",
            f"sys/devices/system/node/node{node}/distance": "10 21" if node == 0 else "21 10",
        }
    return files


Read = Callable[..., Host]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read({path: text or None, …}, layout=…)`: the healthy tree with these files changed or taken away, as the doctor reads it."""

    def made(changes: Mapping[str, str | None] | None = None, layout: Layout | None = None) -> Host:
        files: dict[str, str | None] = {**healthy(), **(changes or {})}
        for name, content in files.items():
            if content is None:
                continue
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        return _read(tmp_path, layout or Layout(version=1))

    return made


def _read(sysroot: Path, layout: Layout) -> Host:
    asked = Asked(
        sysroot=sysroot, layout=layout, cache=sysroot, runtime=sysroot, status=Unread("none runs"), answer="absent"
    )
    return read_host(asked, os.environ)


@pytest.fixture
def read_tree() -> Callable[[Path], Host]:
    """What the doctor reads of this tree or capture, as it is."""
    return lambda path: _read(path, Layout(version=1))


@pytest.fixture
def live(read: Read) -> Callable[..., Host]:
    """The same host as if all had been tried on it with success; the arguments replace readings."""

    def made(changes: Mapping[str, str | None] | None = None, layout: Layout | None = None, **readings: object) -> Host:
        fine = Trial(True, "works")
        host = msgspec.structs.replace(
            read(changes, layout), live=True, affinity=fine, memory_policy=fine, libnuma=fine, amx=fine, pidfd=fine, port=fine,
            clock_nanoseconds=45.0, wakeup_microseconds=9.0, cache=Folder("/var/cache/orchestrator", "", 100 << 30),
            runtime=Folder("/run/orchestrator", "", 1 << 30), engines={"onnxruntime": "1.31.1", "openvino": "2026.4.1"},
            preload_file=Unread("there is none"),
        )  # fmt: skip
        return msgspec.structs.replace(host, **readings)

    return made


@pytest.fixture
def finding() -> Callable[[Host, str], Finding]:
    """The finding of one check; an error names those there are."""

    def of(host: Host, check: str) -> Finding:
        found = examine(host)
        for each in found:
            if each.check == check:
                return each
        raise AssertionError(f"no finding {check!r} among {sorted(each.check for each in found)}")

    return of
