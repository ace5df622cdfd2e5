"""Are whole machines read right? Captured by `topology --capture` in guests of tests/vm, from a real kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from topology.model import Machine
from topology.sysfs import read_machine

CAPTURES = Path(__file__).parents[2] / "data" / "topology"


def machine(name: str) -> Machine:
    return read_machine(CAPTURES / f"{name}.tar.gz")


def groups(machine: Machine, field: str) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for cpu in machine.cpus:
        found.setdefault(getattr(cpu, field), []).append(cpu.cpu)
    return sorted(found.values())


@pytest.mark.parametrize("name", ["two-sockets", "memory-only", "without-memory"])
def test_two_sockets_of_two_cores_with_two_threads(name: str) -> None:
    read = machine(name)
    assert groups(read, "package") == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups(read, "node") == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert groups(read, "core") == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert groups(read, "l3") == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [cpu.smt_rank for cpu in read.cpus] == [0, 1] * 4
    assert all(cpu.online and cpu.allowed for cpu in read.cpus)
    assert (read.smt, read.quota_cpus, read.arch, read.warnings) == (2, None, "x86_64", ())


def test_nodes_have_the_distances_that_the_firmware_says() -> None:
    assert [node.distances for node in machine("two-sockets").nodes] == [{0: 10, 1: 21}, {0: 21, 1: 10}]


def test_a_node_with_memory_and_no_cpu_is_a_node() -> None:
    read = machine("memory-only")
    assert [(node.node, node.cpus, node.has_memory) for node in read.nodes] == [
        (0, (0, 1, 2, 3), True),
        (1, (4, 5, 6, 7), True),
        (2, (), True),
    ]
    assert read.nodes[2].distances == {0: 17, 1: 28, 2: 10}


def test_a_node_with_cpus_and_no_memory_is_a_node() -> None:
    read = machine("without-memory")
    assert [(node.node, node.cpus, node.has_memory) for node in read.nodes] == [
        (0, (0, 1, 2, 3), True),
        (1, (4, 5, 6, 7), False),
    ]
