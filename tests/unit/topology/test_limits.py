"""What may a process use, in every way that a kernel and a container can say it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from topology.facts import Limits
from topology.limits import read_limits
from topology.model import Machine, TopologyError
from topology.tree import MemoryTree

Read = Callable[[dict[str, str]], Machine]
Builder = Callable[..., Any]

V2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_CPUSET = "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"


def limits(files: dict[str, str], affinity: frozenset[int] | None = None) -> Limits:
    return read_limits(MemoryTree(files, "tree/"), affinity=affinity)


def v2(path: str, **files: str) -> dict[str, str]:
    """Files of cgroups by `level__name`, where `level` is how far down the path it lies and `_` in names stands for a dot."""
    tree = {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": V2}
    parts = path.strip("/").split("/")
    for key, text in files.items():
        level, _, name = key.partition("__")
        directory = "/".join(["sys/fs/cgroup", *parts[: int(level[1:])]])
        tree[f"{directory}/{name.replace('_', '.')}"] = text
    return tree


def test_without_cgroups_and_status_nothing_limits() -> None:
    assert limits({}) == Limits()


def test_the_affinity_of_a_tree_is_in_its_status_as_list_or_as_mask() -> None:
    assert limits({"proc/self/status": "Name:\tx\nCpus_allowed_list:\t0-3,8\n"}).affinity == {0, 1, 2, 3, 8}
    assert limits({"proc/self/status": "Cpus_allowed:\t00000001,80000000\n"}).affinity == {31, 32}
    assert limits({"proc/self/status": "Mems_allowed_list:\t1\n"}).mems_allowed == {1}


def test_the_affinity_of_the_live_machine_comes_from_the_scheduler() -> None:
    assert limits({"proc/self/status": "Cpus_allowed_list:\t0-3\n"}, frozenset({2})).affinity == {2}


def test_the_nearest_effective_cpuset_counts_and_not_its_parents() -> None:
    # A parent's effective set lacks the CPUs that it lent to the partition this process lives in.
    found = limits(
        v2("/a/b", l2__cpuset_cpus_effective="4-7\n", l1__cpuset_cpus_effective="0-3\n", l0__cpu_max="max\n")
    )

    assert found.cpuset == {4, 5, 6, 7}
    assert found.cpuset_where == "/sys/fs/cgroup/a/b/cpuset.cpus.effective"


def test_a_cgroup_without_the_controller_is_limited_by_its_ancestor() -> None:
    found = limits(v2("/a/b/c", l1__cpuset_cpus_effective="0-1\n", l1__cpuset_mems_effective="1\n"))

    assert (found.cpuset, found.cgroup_mems) == ({0, 1}, {1})


def test_a_blank_cpuset_of_version_2_is_inherited() -> None:
    assert limits(v2("/a/b", l2__cpuset_cpus="\n", l1__cpuset_cpus="2-3\n")).cpuset == {2, 3}


@pytest.mark.parametrize(
    ("own", "parent", "root", "quota", "level"),
    [
        ("200000 100000\n", "max 100000\n", "max\n", 2.0, "/a/b"),
        ("400000 100000\n", "150000 100000\n", "max\n", 1.5, "/a"),
        ("max 100000\n", "max 100000\n", "50000 200000\n", 0.25, ""),
        ("max 100000\n", "max 100000\n", "max\n", None, None),
        ("300000\n", "max 100000\n", "max\n", 3.0, "/a/b"),
    ],
)
def test_the_tightest_quota_of_all_levels_counts(
    own: str, parent: str, root: str, quota: float | None, level: str | None
) -> None:
    found = limits(v2("/a/b", l2__cpu_max=own, l1__cpu_max=parent, l0__cpu_max=root))

    assert found.quota_cpus == quota
    assert found.quota_where == ("" if level is None else f"/sys/fs/cgroup{level}/cpu.max")


def test_version_1_has_a_hierarchy_per_controller_and_nests_too() -> None:
    base = "sys/fs/cgroup"
    found = limits(
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/pod/box\n3:cpuset:/shield\n1:name=systemd:/x\n",
            "proc/self/mountinfo": V1_CPU + V1_CPUSET,
            f"{base}/cpu,cpuacct/pod/box/cpu.cfs_quota_us": "-1\n",
            f"{base}/cpu,cpuacct/pod/box/cpu.cfs_period_us": "100000\n",
            f"{base}/cpu,cpuacct/pod/cpu.cfs_quota_us": "350000\n",
            f"{base}/cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
            f"{base}/cpuset/shield/cpuset.cpus": "1-2\n",
            f"{base}/cpuset/shield/cpuset.mems": "0\n",
            f"{base}/cpuset/cpuset.cpus": "0-3\n",
        }
    )

    assert found.quota_cpus == 3.5
    assert (found.cpuset, found.cgroup_mems) == ({1, 2}, {0})


def test_a_container_sees_its_own_cgroup_at_the_mount_point() -> None:
    # Without a cgroup namespace the path is the host's, and mountinfo says which part of the hierarchy is mounted.
    found = limits(
        {
            "proc/self/cgroup": "3:cpuset:/docker/abc/inner\n",
            "proc/self/mountinfo": V1_CPUSET.replace(" / /sys", " /docker/abc /sys"),
            "sys/fs/cgroup/cpuset/inner/cpuset.cpus": "5\n",
            "sys/fs/cgroup/cpuset/cpuset.cpus": "0-7\n",
        }
    )

    assert found.cpuset == {5}


@pytest.mark.parametrize("path", ["/../../outside", "/elsewhere"])
def test_a_path_outside_what_is_mounted_falls_back_on_the_mount_point(path: str) -> None:
    found = limits(
        {
            "proc/self/cgroup": f"3:cpuset:{path}\n",
            "proc/self/mountinfo": V1_CPUSET,
            "sys/fs/cgroup/cpuset/cpuset.cpus": "0-7\n",
            "outside/cpuset.cpus": "9\n",
        }
    )

    assert found.cpuset == set(range(8))


def test_an_old_cpuset_mount_has_files_without_prefix() -> None:
    found = limits(
        {
            "proc/self/cpuset": "/batch\n",
            "proc/mounts": "none /dev/cpuset cpuset rw 0 0\n",
            "dev/cpuset/batch/cpus": "0,2\n",
            "dev/cpuset/batch/mems": "1\n",
        }
    )

    assert (found.cpuset, found.cgroup_mems) == ({0, 2}, {1})


def test_without_a_mount_table_the_usual_places_are_looked_at() -> None:
    assert limits({"sys/fs/cgroup/cpu.max": "100000 100000\n"}).quota_cpus == 1.0
    assert limits({"sys/fs/cgroup/cpuset/cpuset.cpus": "3\n"}).cpuset == {3}


def test_a_mount_point_with_spaces_is_found() -> None:
    files = {
        "proc/self/mountinfo": V2.replace("/sys/fs/cgroup", "/my\\040groups"),
        "my groups/cpu.max": "100000 50000\n",
    }

    assert limits(files).quota_cpus == 2.0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (v2("/a", l1__cpu_max="lots\n"), "tree/sys/fs/cgroup/a/cpu.max: not a quota: 'lots'"),
        (v2("/a", l1__cpu_max="100 0\n"), "tree/sys/fs/cgroup/a/cpu.max: not a quota: '100 0'"),
        (
            v2("/a", l1__cpuset_cpus_effective="3-\n"),
            "tree/sys/fs/cgroup/a/cpuset.cpus.effective: not a CPU list: '3-\\n'",
        ),
        (
            {"proc/self/mountinfo": V1_CPU, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "much\n"},
            "cpu.cfs_quota_us: not a quota: 'much' of a period '100000'",
        ),
        (
            {"proc/self/mountinfo": V1_CPU, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-7\n"},
            "cpu.cfs_quota_us: a quota of -7 in a period of 100000 microseconds cannot be",
        ),
    ],
)
def test_a_limit_of_nonsense_is_an_error_that_names_its_file(files: dict[str, str], message: str) -> None:
    with pytest.raises(TopologyError) as caught:
        limits(files)

    assert message in str(caught.value)


def test_each_cpu_that_is_left_out_has_its_reason(two_sockets: Builder, read: Read) -> None:
    builder = two_sockets()
    builder.threads[15].online = False
    machine = read(
        {
            **builder.files(),
            **v2(
                "/a", l1__cpuset_cpus_effective="0-7\n", l1__cpuset_mems_effective="0\n", l1__cpu_max="250000 100000\n"
            ),
            "proc/self/status": "Cpus_allowed_list:\t0-3,8-11\nMems_allowed_list:\t0-1\n",
        }
    )

    assert [cpu.cpu for cpu in machine.cpus if cpu.allowed] == [0, 1, 2, 3]
    assert machine.cpu(0).why_not is None
    assert machine.cpu(5).why_not == "not in the CPU affinity of this process"
    assert machine.cpu(9).why_not == "not in the cpuset of /sys/fs/cgroup/a/cpuset.cpus.effective"
    assert machine.cpu(15).why_not == "offline"
    assert [node.allowed for node in machine.nodes] == [True, False]
    assert machine.quota_cpus == 2.5


def test_limits_that_leave_nothing_are_said(two_sockets: Builder, read: Read) -> None:
    machine = read({**two_sockets().files(), "proc/self/status": "Cpus_allowed_list:\t64-127\n"})

    assert not any(cpu.allowed for cpu in machine.cpus)
    assert any("may use none of the online CPUs" in warning for warning in machine.warnings)
