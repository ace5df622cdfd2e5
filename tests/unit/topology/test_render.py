"""Can a person read the machine off the terminal?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from topology.model import Machine
from topology.render import describe, summary

Read = Callable[[dict[str, str]], Machine]
Builder = Callable[..., Any]


def drawn_cpus(text: str) -> set[int]:
    """The CPU numbers in the cells of the map."""
    map_lines = text[text.index("package 0") :].partition("\n\n")[0].splitlines()
    cells = [line for line in map_lines if not re.match(r"\s*(package|node|offline) ?", line)]
    return {int(number) for line in cells for number in re.findall(r"\d+", re.sub(r"(L\d|cache) \d+  ", "", line))}


def test_the_map_of_two_sockets(two_sockets: Builder, read: Read) -> None:
    text = describe(read(two_sockets().files()), 80)

    assert text[text.index("node  cores") :] == (
        "node  cores  allowed     memory      free  CPUs\n"
        "   0      4        4   64.0 MiB  32.0 MiB  0-3,8-11\n"
        "   1      4        4  128.0 MiB  64.0 MiB  4-7,12-15\n"
        "\n"
        "    to  0  1\n"
        "node 0 10 21\n"
        "node 1 21 10\n"
        "\n"
        "package 0\n"
        "  node 0\n"
        "    L3 0  0/8   1/9   2/10  3/11\n"
        "package 1\n"
        "  node 1\n"
        "    L3 1  4/12  5/13  6/14  7/15\n"
        "\n"
        "0/96 siblings of one core"
    )


def test_every_state_of_a_cpu_has_its_sign(two_sockets: Builder, read: Read) -> None:
    builder = two_sockets()
    builder.threads[15].online = False
    files = builder.files()
    files["sys/devices/system/node/node1/cpulist"] = "4-7,12-15\n"
    files["sys/devices/system/cpu/isolated"] = "2\n"
    files["proc/self/status"] = "Cpus_allowed_list:\t0-5,8-12\n"
    for cpu in range(15):
        files[f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity"] = "512\n" if cpu % 4 == 3 else "1024\n"
    text = describe(read(files), 80, reserved={0, 8})

    assert "L3 0  *0/*8   1/9     ~2/10   3/11e" in text
    assert "L3 1  4/12    5/-13   -6/-14  -7e" in text
    assert "offline  15" in text
    assert "CPUs 6-7,13-14: not in the CPU affinity of this process" in text
    assert "6 performance cores, 2 efficiency cores" in text
    for sign in ("-5 online, this process may not use it", "*5 reserved", "~5 isolated", "5e efficiency core"):
        assert sign in text


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("threads", [1, 2])
def test_192_cpus_fit_the_terminal_and_are_all_drawn(
    two_sockets: Builder, read: Read, width: int, threads: int
) -> None:
    machine = read(two_sockets(cores=96 // threads, threads=threads).files())
    text = describe(machine, width)

    assert max(map(len, text.splitlines())) <= width
    assert drawn_cpus(text) == set(range(192))
    if width == 80:
        assert len(text.splitlines()) <= 45


def test_many_cache_domains_stay_in_the_width(empty_tree: Builder, thread: Builder, read: Read) -> None:
    builder = empty_tree(distances={n: [10 if n == m else 12 for m in range(32)] for n in range(32)})
    builder.threads = {
        cpu: thread(core=(cpu % 512,), package=0, node=cpu % 512 // 16, l3=cpu % 512 // 4) for cpu in range(1024)
    }
    text = describe(read(builder.files()), 80)

    assert max(map(len, text.splitlines())) <= 80
    assert drawn_cpus(text) == set(range(1024))
    assert "node 31  10 to 31, 12 to 0-30" in text


def test_eight_siblings_in_a_row_are_one_short_cell(empty_tree: Builder, thread: Builder, read: Read) -> None:
    builder = empty_tree()
    builder.threads = {cpu: thread(core=(cpu // 8,), l3=0) for cpu in range(16)}

    assert "L3 0  0/…/7   8/…/15" in describe(read(builder.files()))


def test_memory_without_cpus_and_closed_nodes_are_named(two_sockets: Builder, read: Read) -> None:
    builder = two_sockets()
    builder.memory_kb = {0: 65536, 1: 0, 2: 65536}
    builder.distances = {}
    files = builder.files() | {"proc/self/status": "Mems_allowed_list:\t0\n"}
    text = describe(read(files))

    assert "node 2: memory only" in text
    assert "this process may not allocate memory on nodes 2" in text
    assert re.search(r"^ +1 +4 +4 +none", text, re.MULTILINE)


def test_quota_and_warnings_are_said_in_full(two_sockets: Builder, read: Read) -> None:
    machine = replace(read(two_sockets().files()), quota_cpus=3.5, warnings=("a very " + "long " * 40 + "warning",))
    text = describe(machine, 60)

    assert "its cgroup grants the time of 3.5 CPUs" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("long") == 40


def test_a_machine_of_which_little_is_known_is_drawn_without_what_is_unknown(read: Read) -> None:
    text = describe(read({"proc/cpuinfo": "processor : 0\n\nprocessor : 1\n"}))

    assert text.startswith(
        "CPU model unknown\npackages unknown, no NUMA nodes named, 0 last-level cache domains, 2 cores"
    )
    assert "package unknown\n  0  1\n" in text


def test_the_summary_is_the_description_without_its_map(two_sockets: Builder, read: Read) -> None:
    machine = read(two_sockets().files())

    assert describe(machine).startswith(summary(machine))
    assert "package 0\n" not in summary(machine)
