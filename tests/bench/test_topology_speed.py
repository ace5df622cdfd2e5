"""How long does reading a machine take? Target: a tree of 2 packages and 192 CPUs in under 40 ms.

Speed is compared with reading the same files and doing nothing with them, measured in the same run: a slow disk slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from topology.cpuset import format_cpulist, format_mask
from topology.sysfs import read_machine
from topology.tree import DiskTree, RecordingTree

CPUS, PACKAGES = 192, 2


def _files() -> dict[str, str]:
    """Every file a kernel of today offers: four cache levels, old and new names, lists and masks."""
    per = CPUS // 2 // PACKAGES
    files = {
        "sys/devices/system/cpu/online": f"0-{CPUS - 1}\n",
        "sys/devices/system/cpu/present": f"0-{CPUS - 1}\n",
        "sys/devices/system/node/online": f"0-{PACKAGES - 1}\n",
        "proc/cpuinfo": "".join(
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: A CPU\nflags\t: {'flag ' * 120}avx2\n\n"
            for cpu in range(CPUS)
        ),
    }
    for cpu in range(CPUS):
        core = cpu % (CPUS // 2)
        siblings = (core, core + CPUS // 2)
        package = [n for n in range(CPUS) if n % (CPUS // 2) // per == core // per]
        directory = f"sys/devices/system/cpu/cpu{cpu}"
        sets = {
            **dict.fromkeys(("core_cpus", "thread_siblings", "cluster_cpus"), siblings),
            **dict.fromkeys(("package_cpus", "core_siblings", "die_cpus"), package),
        }
        for name, cpus in sets.items():
            files[f"{directory}/topology/{name}"] = format_mask(cpus) + "\n"
            files[f"{directory}/topology/{name}_list"] = format_cpulist(cpus) + "\n"
        for name, number in (
            ("physical_package_id", core // per),
            ("core_id", core),
            ("die_id", 0),
            ("cluster_id", core),
        ):
            files[f"{directory}/topology/{name}"] = f"{number}\n"
        for index, (level, kind, cpus) in enumerate(
            [(1, "Data", siblings), (1, "Instruction", siblings), (2, "Unified", siblings), (3, "Unified", package)]
        ):
            cache = f"{directory}/cache/index{index}"
            files[f"{cache}/level"], files[f"{cache}/type"] = f"{level}\n", f"{kind}\n"
            files[f"{cache}/shared_cpu_list"] = format_cpulist(cpus) + "\n"
            files[f"{cache}/shared_cpu_map"] = format_mask(cpus) + "\n"
    for node in range(PACKAGES):
        cpus = [n for n in range(CPUS) if n % (CPUS // 2) // per == node]
        directory = f"sys/devices/system/node/node{node}"
        files[f"{directory}/cpulist"] = format_cpulist(cpus) + "\n"
        files[f"{directory}/distance"] = "10 21\n" if node == 0 else "21 10\n"
        files[f"{directory}/meminfo"] = f"Node {node} MemTotal: 1048576 kB\nNode {node} MemFree: 1024 kB\n"
    return files


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("machine")
    for path, text in _files().items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_reading_192_cpus(benchmark: Any, tree: Path) -> None:
    machine = benchmark(read_machine, tree)

    assert len({cpu.core for cpu in machine.cpus}) == 96
    benchmark.extra_info["target_seconds"] = 0.040


@pytest.mark.speed
def test_judging_a_tree_costs_less_than_three_times_reading_its_files(tree: Path) -> None:
    recording = RecordingTree(DiskTree(tree))
    from topology.sysfs import read_facts

    read_facts(recording)
    paths = list(recording.files)
    disk = DiskTree(tree)

    def best(work: Callable[[], object]) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    only_files = best(lambda: [disk.read(path) for path in paths])
    everything = best(lambda: read_machine(tree))
    assert everything < 3 * only_files, (
        f"{everything * 1e3:.1f} ms against {only_files * 1e3:.1f} ms for the files alone"
    )
