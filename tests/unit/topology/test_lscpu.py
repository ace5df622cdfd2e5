"""Is a machine known only by pasted lscpu output read right, and is what had to be assumed said?"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from topology.build import build
from topology.lscpu import parse_lscpu
from topology.model import Machine, TopologyError
from topology.sysfs import read_machine

TABLE = """\
# The following is the parsable format, which can be fed to other
# programs. Each different item in every column has an unique ID
# starting usually from zero.
# CPU,Core,Socket,Node,,L1d,L1i,L2,L3
"""

SUMMARY = """\
Architecture:                         x86_64
CPU(s):                               16
On-line CPU(s) list:                  0-15
Model name:                           A Xeon
Thread(s) per core:                   2
Core(s) per socket:                   4
Socket(s):                            2
Flags:                                fpu avx2 avx512f amx_bf16
L2 cache:                             8 MiB (8 instances)
L3 cache:                             64 MiB (2 instances)
NUMA node(s):                         2
NUMA node0 CPU(s):                    0-3,8-11
NUMA node1 CPU(s):                    4-7,12-15
"""


def machine(text: str) -> Machine:
    return build(parse_lscpu(text, "pasted.txt"))


def groups(of: Machine, field: str) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for cpu in of.cpus:
        if getattr(cpu, field) is not None:
            found.setdefault(getattr(cpu, field), []).append(cpu.cpu)
    return sorted(found.values())


def rows(separator: str = ",") -> list[list[int]]:
    """CPU, core, socket, node, L1d, L1i, L2, L3 of two packages with the first threads numbered first."""
    return [[n, n % 8, n // 4 % 2, n // 4 % 2, n % 8, n % 8, n % 8, n // 4 % 2] for n in range(16)]


def parsable() -> str:
    return TABLE + "".join(f"{','.join(map(str, row[:4]))},,{','.join(map(str, row[4:]))}\n" for row in rows())


def extended() -> str:
    return "CPU NODE SOCKET CORE L1d:L1i:L2:L3 ONLINE\n" + "".join(
        f"{row[0]:>3} {row[3]:>4} {row[2]:>6} {row[1]:>4} {':'.join(map(str, row[4:]))} yes\n" for row in rows()
    )


def as_json() -> str:
    keys = ("cpu", "core", "socket", "node")
    return json.dumps(
        {
            "cpus": [
                {**dict(zip(keys, row, strict=False)), "l1d:l1i:l2:l3": ":".join(map(str, row[4:])), "online": True}
                for row in rows()
            ]
        }
    )


def old_json() -> str:
    return json.dumps(
        {
            "cpus": [
                {"cpu": str(row[0]), "core": str(row[1]), "socket": str(row[2]), "node": str(row[3])} for row in rows()
            ]
        }
    )


@pytest.mark.parametrize("form", [parsable, extended, as_json, old_json])
def test_every_form_with_a_row_per_cpu_says_cores_packages_and_nodes(form: Callable[[], str]) -> None:
    found = machine(form())

    assert groups(found, "core") == [[n, n + 8] for n in range(8)]
    assert [package.cpus for package in found.packages] == [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]
    assert [node.cpus for node in found.nodes] == [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]
    assert len(found.warnings) == 1
    assert "every online CPU counts as allowed" in found.warnings[0]
    if form is not old_json:
        assert groups(found, "l3") == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
        assert groups(found, "l2") == groups(found, "core")


def test_the_summary_adds_model_and_instruction_sets_to_the_rows() -> None:
    found = machine(SUMMARY + "\n" + parsable())

    assert (found.model_name, found.arch, found.isa) == ("A Xeon", "x86_64", ("amx_bf16", "avx2", "avx512f"))
    assert len(found.warnings) == 1


def test_offline_cpus_of_a_row_are_offline() -> None:
    found = machine("CPU NODE SOCKET CORE ONLINE\n0 0 0 0 yes\n1 0 0 1 yes\n2 - - - no\n")

    assert [(cpu.cpu, cpu.online, cpu.core) for cpu in found.cpus] == [(0, True, 0), (1, True, 1), (2, False, None)]


def test_physical_core_ids_count_within_their_socket() -> None:
    found = machine("# CPU,Core,Socket,Node\n0,7,0,0\n1,7,1,0\n2,7,0,0\n3,7,1,0\n")

    assert groups(found, "core") == [[0, 2], [1, 3]]


def test_the_summary_alone_assumes_siblings_and_says_so() -> None:
    found = machine(SUMMARY)

    assert groups(found, "core") == [[n, n + 8] for n in range(8)]
    assert groups(found, "l3") == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]]
    assert groups(found, "l2") == groups(found, "core")
    assert found.packages[1].cpus == found.nodes[1].cpus
    assert any("siblings such as 0,8 are assumed, `lscpu -p` would tell" in warning for warning in found.warnings)
    assert any("package taken to be one node" in warning for warning in found.warnings)


def test_a_summary_of_power_assumes_adjacent_siblings() -> None:
    found = machine(
        "Architecture: ppc64le\nCPU(s): 16\nOn-line CPU(s) list: 0-15\nThread(s) per core: 8\nSocket(s): 1\n"
        "NUMA node0 CPU(s): 0-15\nNUMA node252 CPU(s):\n"
    )

    assert groups(found, "core") == [list(range(8)), list(range(8, 16))]
    assert [(node.node, len(node.cpus)) for node in found.nodes] == [(0, 16), (252, 0)]


def test_a_summary_without_smt_needs_no_assumption() -> None:
    found = machine(
        "CPU(s): 4\nOn-line CPU(s) list: 0-3\nOff-line CPU(s) list: 4-7\nThread(s) per core: 1\nSocket(s): 1\n"
    )

    assert groups(found, "core") == [[0], [1], [2], [3]]
    assert [cpu.cpu for cpu in found.cpus if not cpu.online] == [4, 5, 6, 7]
    assert len(found.warnings) == 1


def test_packages_that_cannot_be_told_apart_stay_unknown() -> None:
    found = machine(
        SUMMARY.replace("NUMA node1 CPU(s):                    4-7,12-15\n", "").replace("0-3,8-11", "0-15")
    )

    assert found.packages == ()
    assert any("which CPUs lie in which package is unknown" in warning for warning in found.warnings)


def test_the_json_summary_is_read_with_its_children() -> None:
    text = json.dumps(
        {
            "lscpu": [
                {
                    "field": "Architecture:",
                    "data": "aarch64",
                    "children": [{"field": "Byte Order:", "data": "Little Endian"}],
                },
                {"field": "CPU(s):", "data": "2", "children": [{"field": "On-line CPU(s) list:", "data": "0,1"}]},
                {"field": "Model name:", "data": "N1", "children": [{"field": "Thread(s) per core:", "data": "1"}]},
            ]
        }
    )

    assert (machine(text).arch, len(machine(text).cpus), machine(text).model_name) == ("aarch64", 2, "N1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "pasted.txt: no output of lscpu in it; paste that of"),
        ("", "pasted.txt: no output of lscpu in it"),
        (TABLE + "0,0,0\n", "pasted.txt:5: 3 columns where the heading has 9"),
        (TABLE + "0,x,0,0,,0,0,0,0\n", "pasted.txt:5: column CORE: not a number: 'x'"),
        (TABLE + "0,0,0,0,,0,0,0,0\n0,0,0,0,,0,0,0,0\n", "pasted.txt:6: CPU 0 a second time"),
        (SUMMARY.replace("0-15", "0-"), "pasted.txt: On-line CPU(s) list: not a CPU list: '0-'"),
        (SUMMARY.replace("Socket(s):                            2", "Socket(s): two"), "Socket(s): not a count: 'two'"),
        ('{"lscpu": [', "pasted.txt: not the JSON of `lscpu -J`"),
        ("[" * 10, "no output of lscpu in it"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_line(text: str, message: str) -> None:
    with pytest.raises(TopologyError) as caught:
        machine(text)

    assert message in str(caught.value)


def test_read_machine_takes_a_file_of_lscpu_output(tmp_path: Path) -> None:
    file = tmp_path / "host.txt"
    file.write_text(parsable())

    assert read_machine(file).source == "lscpu"
    assert len(read_machine(file).cpus) == 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00binary", "neither a directory, nor a capture, nor text of lscpu"),
        (b"\x1f\x8bgarbage", "not a readable archive"),
        (gzip.compress(b"no tar" * 200), "not a readable archive"),
        (gzip.compress(b"no tar" * 200)[:-9], "not a readable archive"),
    ],
)
def test_a_file_of_neither_kind_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "what"
    file.write_bytes(content)

    with pytest.raises(TopologyError, match=message):
        read_machine(file)


def test_read_machine_takes_a_pipe_which_can_be_read_only_once() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, parsable().encode())
        os.close(writing)

        assert len(read_machine(Path(f"/dev/fd/{reading}")).cpus) == 16
    finally:
        os.close(reading)
