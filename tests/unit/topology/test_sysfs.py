"""Is a machine read right, whatever the kernel left out of its files?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from topology.model import Machine, TopologyError
from topology.sysfs import read_machine

CPU = "sys/devices/system/cpu"
NODE = "sys/devices/system/node"

Read = Callable[[dict[str, str]], Machine]
Builder = Callable[..., Any]


def cores(machine: Machine) -> list[list[int]]:
    groups: dict[int | None, list[int]] = {}
    for cpu in machine.cpus:
        if cpu.online:
            groups.setdefault(cpu.core, []).append(cpu.cpu)
    return sorted(groups.values())


def domains(machine: Machine, field: str) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for cpu in machine.cpus:
        if getattr(cpu, field) is not None:
            groups.setdefault(getattr(cpu, field), []).append(cpu.cpu)
    return sorted(groups.values())


PAIRS_OF_TWO_SOCKETS = [[n, n + 8] for n in range(8)]


@pytest.mark.parametrize("forms", [("list",), ("mask",), ("list", "mask")])
@pytest.mark.parametrize("names", [("new",), ("old",), ("new", "old")])
def test_either_half_of_a_pair_of_files_is_enough(
    two_sockets: Builder, read: Read, forms: tuple[str, ...], names: tuple[str, ...]
) -> None:
    machine = read(two_sockets(forms=forms, names=names).files())

    assert cores(machine) == PAIRS_OF_TWO_SOCKETS
    assert [package.cpus for package in machine.packages] == [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]
    assert [node.cpus for node in machine.nodes] == [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]
    assert domains(machine, "l3") == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
    assert domains(machine, "l2") == PAIRS_OF_TWO_SOCKETS
    assert [machine.cpu(n).smt_rank for n in range(16)] == [0] * 8 + [1] * 8
    assert machine.smt == 2
    assert machine.warnings == ()


def test_every_word_of_a_long_mask_counts(empty_tree: Builder, thread: Builder, read: Read) -> None:
    builder = empty_tree(forms=("mask",))
    builder.threads = {cpu: thread(core=(cpu % 64,), package=0, l3=0) for cpu in range(128)}

    assert cores(read(builder.files())) == [[n, n + 64] for n in range(64)]


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_cores_of_any_number_of_siblings(empty_tree: Builder, thread: Builder, read: Read, width: int) -> None:
    builder = empty_tree()
    builder.threads = {cpu: thread(core=(cpu // width,)) for cpu in range(4 * width)}
    machine = read(builder.files())

    assert machine.smt == width
    assert cores(machine) == [list(range(n * width, (n + 1) * width)) for n in range(4)]
    assert [cpu.smt_rank for cpu in machine.cpus] == list(range(width)) * 4


def test_cores_of_different_width_in_one_machine(empty_tree: Builder, thread: Builder, read: Read) -> None:
    builder = empty_tree()
    builder.threads = {0: thread(core=(0,)), 1: thread(core=(0,)), 2: thread(core=(1,)), 3: thread(core=(2,))}
    machine = read(builder.files())

    assert cores(machine) == [[0, 1], [2], [3]]
    assert machine.smt == 2


def test_equal_core_ids_in_two_packages_and_within_one_are_different_cores(
    empty_tree: Builder, thread: Builder, read: Read
) -> None:
    builder = empty_tree()  # the sets differ by the first part of the key, core_id is the last
    builder.threads = {cpu: thread(core=(cpu // 2, 7), package=cpu // 4, node=0) for cpu in range(8)}
    assert {text for path, text in builder.files().items() if path.endswith("core_id")} == {"7\n"}

    assert cores(read(builder.files())) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_cpu_ids_node_ids_and_package_ids_may_have_holes(empty_tree: Builder, thread: Builder, read: Read) -> None:
    builder = empty_tree(distances={0: [10, 20, 40], 8: [20, 10, 40], 252: [40, 40, 10]}, memory_kb={252: 4096})
    builder.threads = {
        3: thread(core=(0,), package=1, node=0),
        17: thread(core=(0,), package=1, node=0),
        1000: thread(core=(0,), package=65535, node=8),
    }
    machine = read(builder.files())

    assert [cpu.cpu for cpu in machine.cpus] == [3, 17, 1000]
    assert cores(machine) == [[3, 17], [1000]]
    assert [package.package for package in machine.packages] == [1, 65535]
    assert {node.node: node.distances for node in machine.nodes} == {
        0: {0: 10, 8: 20, 252: 40},
        8: {0: 20, 8: 10, 252: 40},
        252: {0: 40, 8: 40, 252: 10},
    }
    assert machine.nodes[2].cpus == ()
    assert machine.nodes[2].memory_bytes == 4096 * 1024


def test_nodes_are_ordered_by_number_and_not_by_name(empty_tree: Builder, thread: Builder, read: Read) -> None:
    builder = empty_tree(distances={node: [10 + abs(node - other) for other in range(12)] for node in range(12)})
    builder.threads = {cpu: thread(core=(cpu,), node=cpu) for cpu in range(12)}
    machine = read(builder.files())

    assert [node.node for node in machine.nodes] == list(range(12))
    assert machine.nodes[2].distances[10] == 18


def test_a_node_without_memory_and_a_node_without_cpus_are_both_kept(two_sockets: Builder, read: Read) -> None:
    builder = two_sockets()
    builder.memory_kb = {0: 65536, 1: 0, 2: 262144}
    builder.distances = {0: [10, 21, 14], 1: [21, 10, 24], 2: [14, 24, 10]}
    machine = read(builder.files())

    assert [(node.node, len(node.cpus), node.has_memory) for node in machine.nodes] == [
        (0, 8, True),
        (1, 8, False),
        (2, 0, True),
    ]


def test_a_blank_node_list_means_no_cpus_even_without_its_mask(two_sockets: Builder, read: Read) -> None:
    builder = two_sockets(forms=("list",))
    builder.memory_kb[2] = 4096
    builder.distances = {}
    files = builder.files()

    assert files[f"{NODE}/node2/cpulist"] == "\n"
    assert read(files).nodes[2].cpus == ()


def test_the_links_of_a_node_stand_in_for_its_lists(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    for node in (0, 1):
        del files[f"{NODE}/node{node}/cpulist"], files[f"{NODE}/node{node}/cpumap"]
    in_cpu = {f"{CPU}/cpu{n}/node{(n // 4) % 2}/x": "" for n in range(16)}
    in_node = {f"{NODE}/node{(n // 4) % 2}/cpu{n}/x": "" for n in range(16)}

    expected = [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]
    assert [node.cpus for node in read({**files, **in_cpu}).nodes] == expected
    assert [node.cpus for node in read({**files, **in_node}).nodes] == expected
    assert any("no NUMA node is known for CPUs 0-15" in warning for warning in read(files).warnings)


def test_a_kernel_without_node_directory_names_no_nodes(two_sockets: Builder, read: Read) -> None:
    files = {path: text for path, text in two_sockets().files().items() if not path.startswith(NODE)}
    machine = read(files)

    assert machine.nodes == ()
    assert {cpu.node for cpu in machine.cpus} == {None}
    assert cores(machine) == PAIRS_OF_TWO_SOCKETS


def test_old_kernels_list_offline_cpus_with_their_node(two_sockets: Builder, read: Read) -> None:
    builder = two_sockets()
    builder.threads[12].online = False
    files = builder.files()
    files[f"{NODE}/node1/cpulist"] = "4-7,12-15\n"
    machine = read(files)

    assert machine.nodes[1].cpus == (4, 5, 6, 7, 13, 14, 15)
    assert machine.cpu(12).node == 1
    assert (machine.cpu(12).online, machine.cpu(12).core, machine.cpu(12).why_not) == (False, None, "offline")
    assert [4] in cores(machine)


def test_siblings_that_are_offline_leave_a_core_of_one(two_sockets: Builder, read: Read) -> None:
    builder = two_sockets()
    files = builder.files()
    files[f"{CPU}/online"] = "0-7\n"  # some kernels leave the offline siblings in the sets of the others
    machine = read(files)

    assert cores(machine) == [[n] for n in range(8)]
    assert machine.smt == 1
    assert machine.packages[1].cpus == (4, 5, 6, 7)
    assert [cpu.cpu for cpu in machine.cpus if not cpu.online] == list(range(8, 16))


def test_possible_and_removed_cpus_are_not_part_of_the_machine(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    files[f"{CPU}/possible"] = "0-127\n"
    files[f"{CPU}/offline"] = "16-127\n"
    files[f"{CPU}/cpu16/uevent"] = ""  # some architectures make a directory for each possible CPU

    assert [cpu.cpu for cpu in read(files).cpus] == list(range(16))


def test_without_a_list_the_online_files_of_the_cpus_decide(two_sockets: Builder, read: Read) -> None:
    builder = two_sockets()
    builder.threads[15].online = False
    files = builder.files()
    del files[f"{CPU}/online"], files[f"{CPU}/present"], files[f"{CPU}/cpu0/online"]
    machine = read(files)

    assert [cpu.cpu for cpu in machine.cpus if cpu.online] == list(range(15))
    assert not machine.cpu(15).online


def test_l3_is_found_by_its_level_and_not_by_its_index(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    for cpu in range(16):
        for path in [path for path in files if path.startswith(f"{CPU}/cpu{cpu}/cache/index3/")]:
            files[path.replace("index3", "index12")] = files.pop(path)
        files[f"{CPU}/cpu{cpu}/cache/index3/level"] = "4\n"
        files[f"{CPU}/cpu{cpu}/cache/index3/type"] = "Unified\n"
        files[f"{CPU}/cpu{cpu}/cache/index3/shared_cpu_list"] = "0-15\n"
    machine = read(files)

    assert domains(machine, "l3") == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
    assert domains(machine, "llc") == [list(range(16))]


def test_an_instruction_cache_of_level_2_is_no_domain(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    for cpu in range(16):
        files[f"{CPU}/cpu{cpu}/cache/index9/level"] = "2\n"
        files[f"{CPU}/cpu{cpu}/cache/index9/type"] = "Instruction\n"
        files[f"{CPU}/cpu{cpu}/cache/index9/shared_cpu_list"] = "0-15\n"

    assert domains(read(files), "l2") == PAIRS_OF_TWO_SOCKETS


def test_without_l3_the_last_level_domain_is_l2_and_l3_is_unknown(
    empty_tree: Builder, thread: Builder, read: Read
) -> None:
    builder = empty_tree()
    builder.threads = {cpu: thread(core=(cpu,), l2=cpu // 4) for cpu in range(8)}
    machine = read(builder.files())

    assert {cpu.l3 for cpu in machine.cpus} == {None}
    assert domains(machine, "llc") == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_efficiency_cores_outside_the_l3_have_their_l2_as_last_level(
    empty_tree: Builder, thread: Builder, read: Read
) -> None:
    builder = empty_tree()
    builder.threads = {cpu: thread(core=(cpu,), l2=cpu, l3=0) for cpu in range(4)}
    builder.threads |= {cpu: thread(core=(cpu,), l2=9) for cpu in (4, 5)}
    machine = read(builder.files())

    assert domains(machine, "llc") == [[0, 1, 2, 3], [4, 5]]
    assert (machine.cpu(4).l3, machine.cpu(0).l3) == (None, 0)


def test_s390_socket_ids_repeat_from_book_to_book(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    for cpu in range(16):
        files[f"{CPU}/cpu{cpu}/topology/physical_package_id"] = "1\n"
        files[f"{CPU}/cpu{cpu}/topology/book_id"] = f"{(cpu // 4) % 2}\n"
    machine = read(files)

    assert [package.cpus for package in machine.packages] == [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]
    assert machine.warnings == ()


def test_a_package_without_an_id_is_one_by_its_set(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    for cpu in range(16):
        files[f"{CPU}/cpu{cpu}/topology/physical_package_id"] = "-1\n"

    assert [(package.package, len(package.cpus)) for package in read(files).packages] == [(0, 8), (1, 8)]


def test_dies_and_clusters_come_from_their_sets_and_defaults_are_no_dies(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    for cpu in range(16):
        half = {n for n in range(16) if (n // 2) % 4 == (cpu // 2) % 4}
        files[f"{CPU}/cpu{cpu}/topology/die_cpus_list"] = ",".join(map(str, sorted(half)))
        files[f"{CPU}/cpu{cpu}/topology/die_id"] = f"{(cpu // 2) % 2}\n"
        files[f"{CPU}/cpu{cpu}/topology/cluster_cpus_list"] = f"{cpu}\n"
        files[f"{CPU}/cpu{cpu}/topology/cluster_id"] = "-1\n"
    machine = read(files)

    assert domains(machine, "die") == [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]]
    assert {cpu.cluster for cpu in machine.cpus} == {None}


@pytest.mark.parametrize(
    ("capacities", "kinds"),
    [
        ([446, 446, 1024, 1024], ["efficiency", "efficiency", "performance", "performance"]),
        ([250, 250, 620, 1024], ["efficiency", "efficiency", "performance", "performance"]),
        ([1009, 1024, 1024, 1009], [None] * 4),
        ([1024] * 4, [None] * 4),
    ],
)
def test_core_kinds_follow_the_widest_gap_in_capacity(
    empty_tree: Builder, thread: Builder, read: Read, capacities: list[int], kinds: list[str | None]
) -> None:
    builder = empty_tree()
    builder.threads = {cpu: thread(core=(cpu,)) for cpu in range(4)}
    files = builder.files()
    for cpu, capacity in enumerate(capacities):
        files[f"{CPU}/cpu{cpu}/cpu_capacity"] = f"{capacity}\n"
    machine = read(files)

    assert [cpu.kind for cpu in machine.cpus] == kinds
    assert [cpu.capacity for cpu in machine.cpus] == capacities


def test_hybrid_x86_names_its_kinds_by_its_monitoring_units(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    files["sys/devices/cpu_core/cpus"] = "0-7\n"
    files["sys/devices/cpu_atom/cpus"] = "8-13\n"
    files["sys/devices/cpu_lowpower/cpus"] = "14-15\n"

    assert [cpu.kind for cpu in read(files).cpus] == ["performance"] * 8 + ["efficiency"] * 8


def test_arm_parts_tell_the_kinds_where_the_kernel_has_no_capacity(
    empty_tree: Builder, thread: Builder, read: Read
) -> None:
    builder = empty_tree()
    builder.threads = {cpu: thread(core=(cpu,)) for cpu in range(4)}
    files = builder.files()
    files["proc/cpuinfo"] = "".join(
        f"processor\t: {cpu}\nFeatures\t: fp asimd i8mm bf16 sve\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
        for cpu, part in enumerate(["0xd03", "0xd03", "0xd08", "0xd08"])
    )
    machine = read(files)

    assert [cpu.kind for cpu in machine.cpus] == ["efficiency"] * 2 + ["performance"] * 2
    assert machine.model_name == "Cortex-A53 + Cortex-A72"
    assert machine.arch == "aarch64"
    assert machine.isa == ("asimd", "bf16", "i8mm", "sve")


def test_isolated_cpus_are_marked_and_an_old_kernels_null_is_no_list(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    files[f"{CPU}/isolated"] = "6-7,14-15\n"
    assert [cpu.cpu for cpu in read(files).cpus if cpu.isolated] == [6, 7, 14, 15]

    files[f"{CPU}/isolated"] = "(null)\n"
    assert not any(cpu.isolated for cpu in read(files).cpus)


def test_a_list_cut_off_at_a_page_gives_way_to_its_mask(empty_tree: Builder, thread: Builder, read: Read) -> None:
    builder = empty_tree()
    builder.threads = {cpu: thread(core=(cpu,), package=cpu % 2, node=cpu % 2) for cpu in range(2048)}
    files = builder.files()
    for path in [path for path in files if path.endswith(("package_cpus_list", "core_siblings_list", "node1/cpulist"))]:
        files[path] = files[path][:4095]  # as kernels before 5.16 do with `1,3,5,…`
    machine = read(files)

    assert len(machine.packages[1].cpus) == len(machine.nodes[1].cpus) == 1024
    assert machine.warnings == ()


def test_without_sibling_sets_core_ids_within_packages_are_used_and_said(two_sockets: Builder, read: Read) -> None:
    files = two_sockets(names=()).files()
    machine = read(files)

    assert cores(machine) == PAIRS_OF_TWO_SOCKETS
    assert [package.package for package in machine.packages] == [0, 1]
    assert any("cores are taken from core ids" in warning for warning in machine.warnings)


def test_cpuinfo_alone_gives_packages_cores_and_instruction_sets(read: Read) -> None:
    machine = read(
        {
            "proc/cpuinfo": "".join(
                f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: Old Xeon\nphysical id\t: {cpu // 2 % 2}\n"
                f"core id\t\t: {cpu % 2 * 9}\nflags\t\t: fpu lm sse2 avx2\n\n"
                for cpu in (0, 1, 2, 3, 4, 5, 6, 7)
            )
        }
    )

    assert cores(machine) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert [package.cpus for package in machine.packages] == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert (machine.model_name, machine.arch, machine.isa, machine.source) == (
        "Old Xeon",
        "x86_64",
        ("avx2", "sse2"),
        "cpuinfo",
    )


def test_cpus_of_which_nothing_is_known_are_cores_of_their_own_and_said(read: Read) -> None:
    machine = read({f"{CPU}/online": "0-1\n", f"{CPU}/cpu0/online": "1\n", f"{CPU}/cpu1/online": "1\n"})

    assert cores(machine) == [[0], [1]]
    assert machine.packages == ()
    assert machine.warnings == ("nothing says which CPUs share a core with 0-1; each is counted as a core of its own",)


@pytest.mark.parametrize(
    ("cpuinfo", "model", "arch", "isa"),
    [
        (
            "processor\t: 0\ncpu\t\t: POWER10 (architected), altivec supported\nclock\t: 2GHz\nmachine\t: CHRP IBM\n",
            "POWER10 (architected), altivec supported",
            "ppc64",
            ("altivec", "mma", "vsx"),
        ),
        (
            "vendor_id: IBM/S390\nfeatures: zarch vx vxd nnpa\nprocessor 0: version = FF, machine = 8561\n\ncpu number: 0\n",
            "IBM/S390 8561",
            "s390x",
            ("nnpa", "vx", "vxd"),
        ),
        (
            "processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdcv_zba_zvfh\nmmu\t: sv48\nuarch\t: sifive,u74\n",
            "sifive,u74",
            "riscv64",
            ("rvv", "zvfh"),
        ),
    ],
)
def test_cpuinfo_of_other_architectures(read: Read, cpuinfo: str, model: str, arch: str, isa: tuple[str, ...]) -> None:
    machine = read({"proc/cpuinfo": cpuinfo})

    assert (machine.model_name, machine.arch, machine.isa) == (model, arch, isa)
    assert [cpu.cpu for cpu in machine.cpus] == [0]


def test_an_instruction_set_counts_only_if_every_cpu_has_it(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    files["proc/cpuinfo"] = files["proc/cpuinfo"].replace("avx512f", "", 1)

    assert read(files).isa == ("avx2",)


# ---------------------------------------------------------------- contradictions and damage


def test_siblings_that_disagree_are_one_core_and_said(two_sockets: Builder, read: Read) -> None:
    files = two_sockets(forms=("list",)).files()
    for name in ("core_cpus_list", "thread_siblings_list"):
        files[f"{CPU}/cpu0/topology/{name}"] = "0-1,8\n"
    machine = read(files)

    assert [0, 1, 8, 9] in cores(machine)
    assert machine.warnings == (
        "the kernel contradicts itself about who shares a core: {0-1,8} and {0,8}; {1,9} and {0-1,8}; counted as one",
    )


def test_a_cpu_in_two_nodes_goes_with_its_link_and_is_said(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    files[f"{NODE}/node0/cpulist"] = "0-4,8-11\n"
    assert read(files).cpu(4).node == 0

    files[f"{CPU}/cpu4/node1/x"] = ""
    machine = read(files)
    assert machine.cpu(4).node == 1
    assert machine.nodes[0].cpus == (0, 1, 2, 3, 8, 9, 10, 11)
    assert any("CPUs 4 are in the lists of several NUMA nodes" in warning for warning in machine.warnings)


def test_a_row_of_distances_that_does_not_fit_is_left_out_and_said(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    files[f"{NODE}/node1/distance"] = "21 10 17\n"
    machine = read(files)

    assert machine.nodes[0].distances == {0: 10, 1: 21}
    assert machine.nodes[1].distances == {}
    assert any("node1/distance has 3 entries for 2 online nodes" in warning for warning in machine.warnings)


def test_siblings_across_packages_are_said(two_sockets: Builder, read: Read) -> None:
    files = two_sockets(forms=("list",)).files()
    for cpu in (0, 4, 8, 12):
        for name in ("core_cpus_list", "thread_siblings_list"):
            files[f"{CPU}/cpu{cpu}/topology/{name}"] = "0,4,8,12\n"

    assert any("lie in more than one package" in warning for warning in read(files).warnings)


def test_online_cpus_missing_from_present_are_counted_and_said(two_sockets: Builder, read: Read) -> None:
    files = two_sockets().files()
    files[f"{CPU}/present"] = "0-7\n"
    machine = read(files)

    assert len(machine.cpus) == 16
    assert any("CPUs 8-15 are online and not in the list of present CPUs" in warning for warning in machine.warnings)


@pytest.mark.parametrize(
    ("path", "content", "warning"),
    [
        (
            f"{CPU}/online",
            "0-13\n",
            f"CPUs 14-15 are not in {CPU}/online, though their own files say online; counted as offline",
        ),
        (f"{CPU}/present", "\n", f"{CPU}/present is empty; the CPU directories are taken for it"),
        (f"{NODE}/node1/meminfo", "", "nodes 1 have no meminfo and the others do; read as unknown"),
        (f"{NODE}/node0/distance", "\n", "nodes 0 have no distance and the others do; read as unknown"),
        (
            f"{NODE}/node1/distance",
            "21 1",
            "node1/distance is 21 1: a node is 10 from itself and no other is nearer; check the tree",
        ),
        (
            f"{NODE}/node0/distance",
            "10 2",
            "node0/distance is 10 2: a node is 10 from itself and no other is nearer; check the tree",
        ),
        (
            f"{NODE}/online",
            "0\n",
            f"nodes [1] have directories and are not in {NODE}/online; they are left out",
        ),
        (f"{NODE}/online", "0-2\n", f"{NODE}/online names nodes [2] that have no directory; they are left out"),
    ],
)
def test_what_can_be_survived_is_said(two_sockets: Builder, read: Read, path: str, content: str, warning: str) -> None:
    assert warning in read({**two_sockets().files(), path: content}).warnings


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (f"{CPU}/online", "0-7,\n", "cpu/online: not a CPU list: '0-7,\\n', at position 4: a number is missing"),
        (f"{CPU}/online", "", "cpu/online: empty"),
        (f"{CPU}/online", "0-99\n", "cpu/online names CPUs 16-99, and there is no directory cpu16"),
        (f"{CPU}/present", "0-x\n", "at position 2: 'x' is not a digit"),
        (f"{CPU}/cpu3/topology/core_cpus_list", "3,zebra\n", "cpu3/topology/core_cpus_list: not a CPU list"),
        (f"{CPU}/cpu3/topology/physical_package_id", "zero\n", "physical_package_id: not a number: 'zero'"),
        (f"{CPU}/cpu3/cache/index2/level", "\x00\x01", "cache/index2/level: not a number"),
        (f"{NODE}/node1/meminfo", "Node 1 MemTo", "node1/meminfo: no line `MemTotal: … kB`"),
        (f"{NODE}/node1/distance", "10 far\n", "node1/distance: not a row of distances: '10 far'"),
        (f"{NODE}/online", "1-0\n", "node/online: not a CPU list: '1-0\\n', at position 0: the range 1-0 ends before"),
        ("proc/self/status", "Cpus_allowed_list:\tall\n", "proc/self/status: not a CPU list: 'all'"),
        ("proc/self/cgroup", "nonsense\n", "proc/self/cgroup: not a cgroup line: 'nonsense'"),
    ],
)
def test_damage_is_an_error_that_names_the_file_and_what_is_wrong(
    two_sockets: Builder, read: Read, path: str, content: str, message: str
) -> None:
    with pytest.raises(TopologyError) as caught:
        read({**two_sockets().files(), path: content})

    assert message in str(caught.value)
    assert str(caught.value).startswith("tree/")


def test_an_empty_number_is_unknown_and_said(two_sockets: Builder, read: Read) -> None:
    machine = read({**two_sockets().files(), f"{CPU}/cpu3/cpu_capacity": ""})

    assert machine.cpu(3).capacity is None
    assert machine.warnings == (f"{CPU}/cpu3/cpu_capacity is empty; read as unknown",)


def test_a_directory_that_is_no_root_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"no CPU directories there .* name a directory that holds sys/ and proc/"):
        read_machine(tmp_path)


def test_a_directory_in_place_of_a_file_is_unreadable(
    two_sockets: Builder, on_disk: Callable[[dict[str, str]], Path]
) -> None:
    root = on_disk(two_sockets().files())
    (root / CPU / "present").unlink()
    (root / CPU / "present").mkdir()

    with pytest.raises(TopologyError, match=r"cpu/present: cannot be read: Is a directory"):
        read_machine(root)


def test_a_tree_on_disk_reads_like_one_in_memory(
    two_sockets: Builder, read: Read, on_disk: Callable[[dict[str, str]], Path]
) -> None:
    files = two_sockets().files()

    assert read_machine(on_disk(files)) == read(files)


def test_the_live_machine_allows_what_the_scheduler_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = read_machine()
    first = next(cpu.cpu for cpu in machine.cpus if cpu.allowed)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {first})

    again = read_machine()
    assert [cpu.cpu for cpu in again.cpus if cpu.allowed] == [first]
    assert {cpu.why_not for cpu in again.cpus if cpu.online and not cpu.allowed} <= {
        "not in the CPU affinity of this process"
    } | {cpu.why_not for cpu in machine.cpus if not cpu.allowed}
