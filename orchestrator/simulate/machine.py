"""What machine is `2x24`? Packages × cores, one NUMA node per package, with `2x24x2` two hardware threads per core. Pure.

CPUs are numbered as servers do: every first thread before every second one, package after package.
"""

from __future__ import annotations

import re
from typing import Final

from topology.model import Cpu, Machine, Node, Package

MOST_CPUS: Final = 4096
_BYTES_PER_NODE: Final = 64 << 30
_NEAR: Final = 10
_FAR: Final = 21


class ShapeError(ValueError):
    """What was written is no machine: says what and why."""


def machine_of(shape: str) -> Machine:
    """The machine of this shape. ShapeError if it is none."""
    matched = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})(?:x([0-9]{1,2}))?", shape.strip().lower())
    if matched is None:
        raise ShapeError(
            f"{shape!r} is no machine; write PACKAGESxCORES, such as 2x24, or 2x24x2 for two threads per core"
        )
    packages, cores, smt = (int(number) for number in matched.groups(default="1"))
    if not packages or not cores or not smt:
        raise ShapeError(f"{shape!r} has no CPU; each number is 1 or more")
    if packages * cores * smt > MOST_CPUS:
        raise ShapeError(f"{shape!r} has {packages * cores * smt} CPUs; at most {MOST_CPUS}")
    every = packages * cores
    cpus = tuple(
        Cpu(
            cpu=rank * every + core,
            online=True,
            package=core // cores,
            die=0,
            node=core // cores,
            core=core,
            smt_rank=rank,
            l2=core,
            l3=core // cores,
            llc=core // cores,
            allowed=True,
        )
        for rank in range(smt)
        for core in range(every)
    )

    def on(package: int) -> tuple[int, ...]:
        return tuple(cpu.cpu for cpu in cpus if cpu.package == package)

    nodes = tuple(
        Node(
            node=number,
            cpus=on(number),
            memory_bytes=_BYTES_PER_NODE,
            free_bytes=None,
            distances={other: _NEAR if other == number else _FAR for other in range(packages)},
            has_memory=True,
        )
        for number in range(packages)
    )
    return Machine(
        cpus=cpus,
        nodes=nodes,
        packages=tuple(Package(number, on(number)) for number in range(packages)),
        smt=smt,
        quota_cpus=None,
        model_name=f"simulated {shape}",
        isa=(),
        source="simulated",
    )
