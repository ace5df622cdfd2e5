"""Which machine has this shape? A builder of `Machine` for tests; loaded with runpy, since tests do not import each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from topology.model import Cpu, Machine, Node, Package


def build(
    *,
    packages: int = 1,
    nodes_per_package: int = 1,
    cores_per_node: int = 2,
    smt: int = 1,
    cores_per_llc: int | None = None,
    numbering: str = "siblings-last",
    offline: Collection[int] = (),
    disallowed: Mapping[int, str] | Collection[int] = (),
    isolated: Collection[int] = (),
    efficiency: Collection[int] = (),
    quota: float | None = None,
    memoryless: Collection[int] = (),
    memory_only: int = 0,
    mems_disallowed: Collection[int] = (),
    distances: Mapping[tuple[int, int], int] | None = None,
    nodes_named: bool = True,
) -> Machine:
    """Cores are counted node after node; `siblings-last` numbers every first thread before every second one, as servers
    do, `adjacent` the siblings of a core in a row, and `interleaved` deals the cores out to the packages in turn.

    `offline`, `disallowed` and `isolated` name CPUs, `efficiency` cores, the memory arguments nodes.
    """
    cpu_nodes = packages * nodes_per_package
    cores = cpu_nodes * cores_per_node
    per_llc = cores_per_llc or cores_per_node
    order = list(range(cores))
    if numbering == "interleaved":
        per_package = nodes_per_package * cores_per_node
        order = [package * per_package + k for k in range(per_package) for package in range(packages)]
    cpus: list[Cpu] = []
    for position, core in enumerate(order):
        node = core // cores_per_node
        for rank in range(smt):
            number = position * smt + rank if numbering == "adjacent" else rank * cores + position
            online = number not in offline
            refused = number in disallowed
            why = disallowed[number] if refused and isinstance(disallowed, Mapping) else "not in the cgroup's cpuset"
            cpus.append(
                Cpu(
                    cpu=number,
                    online=online,
                    package=node // nodes_per_package,
                    die=0,
                    node=node if online and nodes_named else None,
                    core=core if online else None,
                    smt_rank=rank if online else None,
                    l3=core // cores_per_node * 1000 + core % cores_per_node // per_llc if online else None,
                    llc=core // cores_per_node * 1000 + core % cores_per_node // per_llc if online else None,
                    kind=("efficiency" if core in efficiency else "performance") if efficiency else None,
                    isolated=number in isolated,
                    allowed=online and not refused,
                    why_not="offline" if not online else why if refused else None,
                )
            )
    cpus.sort(key=lambda cpu: cpu.cpu)
    everywhere = range(cpu_nodes + memory_only) if nodes_named else range(0)

    def distance(a: int, b: int) -> int:
        if distances is not None and (a, b) in distances:
            return distances[a, b]
        return 10 if a == b else 12 if a // nodes_per_package == b // nodes_per_package else 21

    nodes = tuple(
        Node(
            node=number,
            cpus=tuple(cpu.cpu for cpu in cpus if cpu.node == number and cpu.online),
            memory_bytes=None if number in memoryless else 64 << 30,
            free_bytes=None,
            distances={other: distance(number, other) for other in everywhere},
            has_memory=number not in memoryless,
            allowed=number not in mems_disallowed,
        )
        for number in everywhere
    )
    return Machine(
        cpus=tuple(cpus),
        nodes=nodes,
        packages=tuple(
            Package(number, tuple(cpu.cpu for cpu in cpus if cpu.package == number and cpu.online))
            for number in range(packages)
        ),
        smt=smt,
        quota_cpus=quota,
        model_name="built for a test",
        isa=(),
    )


def article() -> Machine:
    """The machine of the Hugging Face article: 2 sockets of 24 cores with 2 threads; node 0 is CPUs 0-23 and 48-71."""
    return build(packages=2, cores_per_node=24, smt=2)
