"""Does each check tell the good host from the bad one, with what it costs and what mends it?

The trees are made, each from the healthy one by the files that are named; what was tried in a child is given as its result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.cli.doctor import document
from orchestrator.config.schema import HousekeepingConfig, InstanceGroup, Layout, LimitsConfig
from orchestrator.doctor.examine import CHECKS, examine
from orchestrator.doctor.finding import Finding, exit_code, worst_first
from orchestrator.doctor.host import Folder, Host, Idle, Trial, Unread
from orchestrator.doctor.render import WIDTH, table

CPU = "sys/devices/system/cpu"
UNIT = "sys/fs/cgroup/system.slice/orchestrator.service"
THP = "sys/kernel/mm/transparent_hugepage"
POOL = "sys/kernel/mm/hugepages/hugepages-2048kB"
NO = Trial(False, "Operation not permitted")

CAPTURES = Path(__file__).parents[2] / "data" / "topology"

Live = Callable[..., Host]
Of = Callable[[Host, str], Finding]


def of_each_cpu(name: str, value: str | None) -> dict[str, str | None]:
    return {f"{CPU}/cpu{cpu}/cpufreq/{name}": value for cpu in range(4)}


def cpuinfo(flags: str) -> dict[str, str]:
    return {
        "proc/cpuinfo": "".join(f"processor\t: {cpu}\nmodel name\t: T\nflags\t\t: lm {flags}\n\n" for cpu in range(4))
    }


LAYOUTS = {
    "isolated CPUs": Layout(version=1, instances=(InstanceGroup(name="a", cores=2),)),
    "SMT": Layout(version=1, instances=(InstanceGroup(name="a", cpus="0"),), housekeeping=HousekeepingConfig(cpus="2")),
    "interrupts": Layout(version=1, instances=(InstanceGroup(name="a", cpus="1"),)),
}

# (check, files, level, what must be said)
TREES: list[tuple[str, Mapping[str, str | None], str, str]] = [
    ("governor", {}, "ok", "performance on CPUs 0-3 (driver intel_pstate)"),
    ("governor", of_each_cpu("scaling_governor", "powersave"), "note", "with preference performance"),
    (
        "governor",
        {**of_each_cpu("scaling_governor", "powersave"), **of_each_cpu("energy_performance_preference", "power")},
        "costs", "down to 0.8 GHz of 3.8 GHz",
    ),
    ("governor", {f"{CPU}/cpu1/cpufreq/scaling_governor": "schedutil"}, "note", "schedutil with preference performance on CPU 1"),
    (
        "governor",
        {**of_each_cpu("scaling_governor", "powersave"), **of_each_cpu("scaling_driver", "acpi-cpufreq")},
        "costs", "tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    ),
    ("frequency limit", {}, "ok", "none"),
    ("frequency limit", {f"{CPU}/cpu2/cpufreq/scaling_max_freq": "1900000"}, "costs", "50% of the clock"),
    ("turbo", {}, "ok", "on"),
    ("turbo", {f"{CPU}/intel_pstate/no_turbo": "1"}, "costs", "at most 2.6 GHz of 3.8 GHz"),
    ("turbo", {f"{CPU}/intel_pstate/no_turbo": None, f"{CPU}/cpufreq/boost": "0"}, "costs", "cpufreq/boost"),
    ("turbo", {f"{CPU}/intel_pstate/no_turbo": None}, "unknown", "there is no /sys/devices/system/cpu/cpufreq/boost"),
    ("idle states", {}, "ok", "driver intel_idle, up to 2 µs"),
    ("SMT", {}, "ok", "off"),
    (
        "SMT",
        {f"{CPU}/cpu{cpu}/topology/core_cpus_list": "0-1" if cpu < 2 else "2-3" for cpu in range(4)},
        "note", "CPU 1 beside them idle",
    ),
    ("stolen time", {}, "ok", "0.0 %"),
    ("stolen time", {"proc/stat": "cpu  100 0 0 900 0 0 0 20 0 0"}, "note", "2.0 % of the CPU time"),
    ("stolen time", {"proc/stat": "cpu  100 0 0 900 0 0 0 200 0 0"}, "costs", "17 % of the CPU time"),
    ("stolen time", {"proc/stat": "cpu  1 2"}, "unknown", "does not begin with the ticks"),
    ("interrupts", {}, "ok", "irqbalance does not run"),
    (
        "interrupts",
        {"proc/interrupts": "      CPU0 CPU1 CPU2 CPU3\n 40:  1 0 0 0 PCI-MSI 1-edge eth0\n 41: 0 90000000 0 0 PCI-MSI 2-edge eth1",
         "proc/irq/41/smp_affinity_list": "1", "proc/77/comm": "irqbalance"},
        "note", "41 (2-edge eth1, 9000)",
    ),
    ("interrupts", {"proc/uptime": "soon"}, "unknown", "not a time"),
    ("instruction sets", {}, "ok", "amx_bf16"),
    ("instruction sets", cpuinfo("avx2 avx_vnni"), "ok", "no bf16 products"),
    ("instruction sets", cpuinfo("avx2"), "note", "issues 6004, 14642"),
    ("instruction sets", cpuinfo("sse4_2"), "costs", "no AVX2"),
    ("instruction sets", {"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\n"}, "note", "i8mm"),
    ("cpuset", {}, "ok", "4 CPUs of 4 (0-3), 4 physical cores"),
    ("cpuset", {f"{UNIT}/cpuset.cpus.effective": "0-1"}, "note", "orchestrator.service/cpuset.cpus.effective says so"),
    ("cpuset", {"proc/self/status": "Cpus_allowed_list:\t2\nMems_allowed_list:\t0-1"}, "note", "3 CPUs may not be used"),
    ("CPU quota", {}, "ok", "none"),
    ("CPU quota", {f"{UNIT}/cpu.max": "350000 100000"}, "note", "the plan stays within 3 cores; 0.5 of a core is left over"),
    ("CPU quota", {f"{UNIT}/cpu.max": "50000 100000"}, "costs", "less than one core"),
    ("CPU quota", {f"{UNIT}/cpu.max": "800000 100000"}, "ok", "no fewer than the 4"),
    ("throttling", {}, "ok", "never"),
    (
        "throttling",
        {f"{UNIT}/cpu.stat": "usage_usec 5\nnr_periods 1000\nnr_throttled 400\nthrottled_usec 12500000"},
        "costs", "stood still for 12.5 s in all",
    ),
    ("throttling", {f"{UNIT}/cpu.stat": "nr_periods 1000\nnr_throttled 5\nthrottled_usec 1000"}, "note", "0.5 % of its periods"),
    ("throttling", {f"{UNIT}/cpu.stat": None}, "ok", "nothing to throttle"),
    (
        "throttling",  # cgroup v1 counts in nanoseconds
        {"proc/self/cgroup": "4:cpu,cpuacct:/job", "proc/self/mountinfo": "1 1 0:1 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct",
         "cg/cpu/job/cpu.stat": "nr_periods 10\nnr_throttled 5\nthrottled_time 3000000000"},
        "costs", "3.0 s in all",
    ),
    ("memory limit", {}, "ok", "(this machine); about 449 MiB needed at least"),
    ("memory limit", {f"{UNIT}/memory.max": "268435456"}, "broken", "256 MiB"),
    ("memory limit", {f"{UNIT}/memory.max": "629145600"}, "note", "onnxruntime issue 9313"),
    (
        "memory limit",
        {f"{UNIT}/memory.max": "2147483648", f"{UNIT}/memory.events": "low 0\noom 2\noom_kill 2"},
        "costs", "2 killed for want",
    ),
    (
        "memory limit",
        {"proc/self/cgroup": "6:memory:/job", "proc/self/mountinfo": "1 1 0:1 / /cg/memory rw - cgroup cgroup rw,memory",
         "cg/memory/job/memory.limit_in_bytes": "104857600"},
        "broken", "/cg/memory/job/memory.limit_in_bytes",
    ),
    (
        "memory limit",
        {"proc/self/cgroup": "6:memory:/job", "proc/self/mountinfo": "1 1 0:1 / /cg/memory rw - cgroup cgroup rw,memory",
         "cg/memory/job/memory.limit_in_bytes": "9223372036854771712"},
        "ok", "this machine",
    ),
    ("NUMA balancing", {}, "ok", "off"),
    ("NUMA balancing", {"proc/sys/kernel/numa_balancing": "1"}, "note", "sysctl kernel.numa_balancing=0"),
    ("NUMA balancing", {"proc/sys/kernel/numa_balancing": None}, "unknown", "there is no /proc/sys/kernel/numa_balancing"),
    ("THP", {}, "ok", "enabled madvise, defrag madvise"),
    ("THP", {f"{THP}/enabled": "[always] madvise never", f"{THP}/defrag": "[always] madvise"}, "note", "transhuge.rst"),
    ("THP", {f"{THP}/enabled": "always madvise [never]"}, "ok", "enabled never"),
    ("huge page pool", {}, "ok", "none reserved"),
    ("huge page pool", {f"{POOL}/nr_hugepages": "512", f"{POOL}/free_hugepages": "512"}, "note", "1.0 GiB of 1.0 GiB"),
    ("swap", {}, "ok", "none"),
    ("swap", {"proc/swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 8388604 1024 -2"}, "note", "8.0 GiB, 1 MiB of it used"),
    ("clock source", {}, "ok", "tsc, 45 ns"),
    ("open files", {}, "ok", "65536 for this shell"),
    ("open files", {"proc/self/limits": "Max open files            1024     524288     files"}, "costs", "ulimit -n 4160"),
    ("open files", {"proc/self/limits": "Max open files            128     128     files"}, "broken", "the hard limit has to rise"),
    ("open files", {"proc/self/limits": "Max open files            unlimited  unlimited   files"}, "ok", ""),
    ("open files", {"proc/self/limits": "Max cpu time  unlimited unlimited seconds"}, "unknown", "no line of open files"),
    ("isolated CPUs", {}, "ok", "none"),
    ("isolated CPUs", {f"{CPU}/isolated": "0-3", f"{CPU}/nohz_full": "0-3"}, "ok", "pinned one by one"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "files", "level", "said"), TREES)
def test_a_tree_gives_this_finding(
    check: str, files: Mapping[str, str | None], level: str, said: str, live: Live, finding: Of
) -> None:
    found = finding(live(files, LAYOUTS.get(check)), check)
    assert found.level == level, found
    assert said in f"{found.found}\n{found.cost}\n{found.mend}"
    if found.level in ("broken", "costs", "note"):
        assert found.cost, "what it costs is missing"
    if found.level in ("broken", "costs"):
        assert found.mend, "what mends it is missing"


# (check, readings, level, what must be said)
TRIED: list[tuple[str, dict[str, Any], str, str]] = [
    ("affinity", {}, "ok", "works"),
    ("affinity", {"affinity": NO}, "broken", "sched_setaffinity"),
    ("memory policy", {}, "ok", "works"),
    ("memory policy", {"memory_policy": NO}, "costs", "--cap-add SYS_NICE"),
    ("libnuma", {"libnuma": Trial(False, "killed by SIGSYS", died=True)}, "broken", "SCMP_ACT_ERRNO"),
    ("memory policy", {"memory_policy": Trial(False, "killed by SIGSYS", died=True)}, "broken", "SCMP_ACT_ERRNO"),
    ("libnuma", {"libnuma": Trial(False, "libnuma is not usable")}, "broken", "apt-get install libnuma1"),
    ("AMX", {}, "ok", "works"),
    ("AMX", {"amx": NO}, "costs", "Linux 5.16"),
    ("AMX", {"amx": Unread("the trial before it ended the child")}, "unknown", "ended the child"),
    ("pidfd_open", {"pidfd": NO}, "note", "within 100 ms"),
    ("clock source", {"clock": "hpet", "clock_nanoseconds": 2100.0}, "costs", "echo tsc | sudo tee"),
    ("clock source", {"clock": "tsc", "clock_nanoseconds": 900.0}, "costs", "900 ns"),
    ("clock source", {"clock": "acpi_pm", "clocks": "acpi_pm", "clock_nanoseconds": Unread("no")}, "costs", "dmesg"),
    ("idle states", {}, "ok", "after 9 µs"),
    ("idle states", {"wakeup_microseconds": 140.0, "idle": Idle("intel_idle", 290)}, "costs", "cpupower idle-set -D 50"),
    ("idle states", {"wakeup_microseconds": Unread("no"), "idle": Idle("intel_idle", 290)}, "note", "4 × 290 µs"),
    ("idle states", {"wakeup_microseconds": Unread("no"), "idle": Idle("intel_idle", 2)}, "ok", "up to 2 µs"),
    ("idle states", {"wakeup_microseconds": 40.0, "idle": Idle("haltpoll", 1, 0)}, "costs", "haltpoll/parameters/guest_halt_poll_ns"),
    ("idle states", {"wakeup_microseconds": 40.0, "idle": Unread("no driver")}, "costs", "kvm.halt_poll_ns"),
    ("idle states", {"wakeup_microseconds": Unread("one core"), "idle": Unread("no driver")}, "unknown", "no driver"),
    ("port", {}, "ok", "works"),
    ("port", {"port": Trial(False, "127.0.0.1:8080: Address already in use")}, "broken", "sport = :8080"),
    ("port", {"port": Trial(False, "127.0.0.1:80: Permission denied")}, "broken", "CAP_NET_BIND_SERVICE"),
    ("cache folder", {}, "ok", "100.0 GiB free"),
    ("cache folder", {"cache": Folder("/c", "", 1 << 30)}, "note", "orchestrator models prune"),
    ("cache folder", {"cache": Folder("/c", "", 1 << 20)}, "costs", "orchestrator models prune"),
    ("cache folder", {"cache": Folder("/c", "user 7 may not write to /c")}, "broken", "--cache-dir"),
    ("runtime folder", {"runtime": Folder("/r", "others may write to it")}, "broken", "--runtime-dir"),
    ("engines", {}, "ok", "openvino 2026.4.1"),
    ("engines", {"engines": {}}, "broken", "onnxruntime is not installed"),
    ("engines", {"engines": {"onnxruntime": "1"}, "layout": Layout(version=1, precision="bf16")}, "broken", "openvino, which the layout"),
    ("allocator", {}, "ok", "none preloaded"),
    ("allocator", {"preload": "/usr/lib/libjemalloc.so.2"}, "note", "this shell brings jemalloc"),
    ("allocator", {"preload_file": "/usr/lib/libtcmalloc.so.4"}, "costs", "/etc/ld.so.preload brings tcmalloc"),
    (
        "allocator",
        {"preload_file": "/usr/lib/libtcmalloc.so.4", "layout": Layout(version=1, engine="openvino")},
        "broken", "aborts with it",
    ),
    ("layout", {"missing_libraries": ("x.yaml:2:12: allocator: jemalloc is not installed",)}, "broken", "x.yaml:2:12"),
    ("THP", {"layout": Layout(version=1, huge_pages="transparent"), "thp_enabled": "always madvise [never]"}, "costs", "does nothing"),
    ("huge page pool", {"layout": Layout(version=1, huge_pages="reserved")}, "costs", "none free"),
    ("memory limit", {"layout": Layout(version=1, model="big")}, "unknown", "the size of big is known once the cache has it"),
    ("memory limit", {"layout": Layout(version=1, model="big"), "weights_bytes": 80 << 30}, "broken", "80.0 GiB of weights"),
    ("open files", {"layout": Layout(version=1, limits=LimitsConfig(in_flight=1 << 20))}, "costs", "1048576"),
    ("NUMA balancing", {"numa_balancing": "1", "memory_policy": NO}, "costs", "faults in every instance"),
    ("topology", {"machine": Unread("/sys/devices/system/cpu: no CPU directories there")}, "broken", "no CPU directories"),
    ("orchestrator", {}, "ok", "none runs here"),
    ("orchestrator", {"answer": "starting"}, "note", "one is starting"),
    ("orchestrator", {"answer": "silent", "running": Unread("it did not answer within 10 s")}, "broken", "kill -CONT"),
    ("orchestrator", {"answer": "refused", "running": Unread("belongs to another user")}, "unknown", "another user"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "readings", "level", "said"), TRIED)
def test_what_was_tried_gives_this_finding(
    check: str, readings: dict[str, Any], level: str, said: str, live: Live, finding: Of
) -> None:
    found = finding(live(**readings), check)
    assert found.level == level, found
    assert said in f"{found.found}\n{found.cost}\n{found.mend}"


def test_one_node_needs_neither_libnuma_nor_a_policy_nor_balancing(live: Live, finding: Of) -> None:
    one = {"sys/devices/system/node/online": "0", "sys/devices/system/node/has_memory": "0",
           "sys/devices/system/node/node0/cpulist": "0-3", "sys/devices/system/node/node1/cpulist": None,
           "sys/devices/system/node/node1/meminfo": None, "sys/devices/system/node/node1/distance": None,
           "sys/devices/system/node/node0/distance": "10", "proc/sys/kernel/numa_balancing": "1"}  # fmt: skip
    host = live(one, libnuma=NO, memory_policy=NO)
    assert [finding(host, check).level for check in ("libnuma", "memory policy", "NUMA balancing")] == ["ok"] * 3


def test_siblings_that_run_the_router_are_not_called_idle(live: Live, finding: Of) -> None:
    paired = {f"{CPU}/cpu{cpu}/topology/core_cpus_list": "0-1" if cpu < 2 else "2-3" for cpu in range(4)}
    host = live(paired, worker_cpus=frozenset({0, 2}), housekeeping_cpus=frozenset({1}))
    assert "CPU 3 beside them idle, CPU 1 beside them run router and gateways" in finding(host, "SMT").found


def test_nothing_is_wrong_with_the_healthy_host(live: Live) -> None:
    findings = examine(live())
    assert {each.check: each.level for each in findings if each.level != "ok"} == {}
    assert exit_code(findings) == 0


def test_every_check_says_something_of_some_host() -> None:
    told = {check for check, *_ in (*TREES, *TRIED)}
    levels = {check: {level for name, _, level, _ in (*TREES, *TRIED) if name == check} for check in told}
    lonely = {check for check, found in levels.items() if found == {"ok"}}
    assert lonely == {"isolated CPUs"}, "checks without a bad host"  # workers cope with them
    # Those of a running orchestrator have tests of their own.
    assert len(CHECKS) - 4 <= len(told)


def test_an_empty_tree_is_broken_by_its_topology_and_nothing_crashes(
    read_tree: Callable[[Path], Host], tmp_path: Path
) -> None:
    levels = {each.check: each.level for each in examine(read_tree(tmp_path))}
    assert levels.pop("topology") == "broken"
    assert set(levels.values()) == {"unknown"}
    assert len(levels) >= 15


@pytest.mark.parametrize("capture", sorted(CAPTURES.glob("*.tar.gz")), ids=lambda path: path.name)
def test_a_captured_machine_is_examined_as_far_as_it_was_captured(
    capture: Path, read_tree: Callable[[Path], Host]
) -> None:
    host = read_tree(capture)
    levels = {each.check: each.level for each in examine(host)}
    assert levels["cpuset"] == levels["CPU quota"] == "ok"
    assert levels["SMT"] == "ok"  # two threads per core, the second ones run router and gateways
    assert levels["governor"] == levels["port"] == levels["memory policy"] == "unknown"
    assert "broken" not in levels.values()


@pytest.mark.parametrize("nonsense", ["", "\x00\x01", "-1", "9" * 40, "ünïcode\n\n", "a b c\nd e f"])
def test_no_file_of_nonsense_crashes_a_check(nonsense: str, live: Live) -> None:
    """Files that the topology does not need, each with nonsense for its content."""
    names = [
        "proc/stat", "proc/uptime", "proc/interrupts", "proc/swaps", "proc/sys/vm/swappiness", "proc/sys/kernel/numa_balancing",
        "proc/self/limits", "proc/irq/40/smp_affinity_list", f"{THP}/enabled", f"{THP}/defrag", f"{POOL}/nr_hugepages",
        f"{UNIT}/cpu.stat", f"{UNIT}/memory.max", f"{UNIT}/memory.events", f"{UNIT}/memory.current",
        "sys/devices/system/clocksource/clocksource0/current_clocksource", f"{CPU}/smt/control", f"{CPU}/nohz_full",
        f"{CPU}/intel_pstate/no_turbo", f"{CPU}/cpuidle/current_driver", f"{CPU}/cpu0/cpuidle/state1/latency",
        *of_each_cpu("scaling_governor", None), *of_each_cpu("scaling_max_freq", None),
    ]  # fmt: skip
    findings = examine(live(dict.fromkeys(names, nonsense)))
    assert len(findings) >= 25


def test_the_worst_comes_first_and_only_what_is_broken_fails(live: Live) -> None:
    slow = of_each_cpu("scaling_driver", "acpi-cpufreq") | of_each_cpu("scaling_governor", "userspace")
    host = live(slow, port=Trial(False, "taken"), pidfd=NO)
    findings = examine(host)
    assert findings[0].check == "port"
    assert [each.level for each in findings[:4]] == ["broken", "costs", "note", "ok"]
    assert findings == worst_first(findings)
    assert exit_code(findings) == 1
    assert exit_code([each for each in findings if each.level != "broken"]) == 0


def test_the_table_stays_within_its_width_and_shows_commands_whole(live: Live) -> None:
    changes = {**of_each_cpu("scaling_governor", "userspace"), f"{CPU}/isolated": "0-3",
               f"{THP}/enabled": "[always] madvise never", f"{THP}/defrag": "[always] madvise",
               "proc/swaps": "F T S U P\n/dev/sda2 partition 8388604 1024 -2", f"{CPU}/intel_pstate/no_turbo": "1"}  # fmt: skip
    host = live(
        changes, Layout(version=1, instances=(InstanceGroup(name="a", cores=2),)),
        port=Trial(False, "127.0.0.1:8080: taken"), amx=NO, affinity=NO, memory_policy=NO, libnuma=NO,
        cache=Folder("/c/" + "long" * 40, "user 7 may not write there"),
    )  # fmt: skip
    shown = table(host, examine(host))
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert "→ echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor\n" in shown
    assert shown.index("BROKEN") < shown.index("COSTS") < shown.index("note ") < shown.index("ok ")


def test_the_document_is_json_with_every_finding(live: Live) -> None:
    host = live(port=Trial(False, "taken"))
    findings = examine(host)
    told = json.loads(msgspec.json.encode(document(host, findings)))
    assert told["ok"] is False
    assert told["findings"][0] == {
        "check": "port", "group": "limits", "level": "broken", "found": "taken", "cost": "`up` refuses to start",
        "mend": "--port with another, or see who has it: ss -ltnp 'sport = :8080'",
    }  # fmt: skip
    assert len(told["findings"]) == len(findings)
