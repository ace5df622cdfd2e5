"""Is the machine what the system's own tools say it is? And does a capture of it read back?"""

from __future__ import annotations

import json
import re

from proof import OUT, PROGRAM, check, equal, numbers, orchestrator, ran


def prove() -> None:
    machine = orchestrator("topology")
    _cores_as_lscpu(machine)
    _nodes_as_numactl(machine)
    equal("topology has no warnings", machine["warnings"], [])
    text = ran(*PROGRAM, "topology")
    check("topology for people ends with status 0", text.returncode == 0 and "node" in text.stdout.lower(), text.stderr)
    (OUT / "topology.txt").write_text(text.stdout)
    captured = ran(*PROGRAM, "topology", "--capture", str(OUT / "machine.tar.gz"))
    equal("topology --capture ends with status 0", captured.returncode, 0)
    # Free memory moves between two readings, so the capture is the one that the host compares with.
    (OUT / "machine.json").write_text(
        ran(*PROGRAM, "topology", "--json", "--sysroot", str(OUT / "machine.tar.gz")).stdout
    )
    again = json.loads((OUT / "machine.json").read_text())
    equal("the capture has the CPUs of the live machine", again["cpus"], machine["cpus"])


def _cores_as_lscpu(machine: dict) -> None:
    rows = json.loads(ran("lscpu", "-J", "-e=CPU,NODE,SOCKET,CORE,ONLINE").stdout)["cpus"]
    ours = machine["cpus"]
    equal("CPUs are lscpu's", [cpu["cpu"] for cpu in ours], [int(row["cpu"]) for row in rows])
    for field, theirs in (("node", "node"), ("package", "socket"), ("core", "core")):
        equal(
            f"CPUs share a {field} where lscpu says so",
            _groups((cpu["cpu"], cpu[field]) for cpu in ours),
            _groups((int(row["cpu"]), row[theirs]) for row in rows),
        )
    equal(
        "SMT width is lscpu's", machine["smt"], int(re.search(r"Thread\(s\) per core:\s*(\d+)", ran("lscpu").stdout)[1])
    )


def _nodes_as_numactl(machine: dict) -> None:
    text = ran("numactl", "-H").stdout
    theirs = {int(n): sorted(map(int, cpus.split())) for n, cpus in re.findall(r"^node (\d+) cpus:(.*)$", text, re.M)}
    equal("nodes and their CPUs are numactl's", {node["node"]: node["cpus"] for node in machine["nodes"]}, theirs)
    matrix = re.findall(r"^ +(\d+): +(.*)$", text, re.M)
    equal(
        "distances are numactl's",
        {node["node"]: list(node["distances"].values()) for node in machine["nodes"]},
        {int(node): list(map(int, row.split())) for node, row in matrix},
    )
    sizes = {int(n): int(size) for n, size in re.findall(r"^node (\d+) size: (\d+) MB", text, re.M)}
    equal(
        "memory per node is numactl's",
        {node["node"]: (node["memory_bytes"] or 0) >> 20 for node in machine["nodes"]},
        sizes,
    )
    equal("a node has memory where numactl sees some", {n["node"]: n["has_memory"] for n in machine["nodes"]},
          {node: size > 0 for node, size in sizes.items()})  # fmt: skip
    equal("nodes with memory are the kernel's", {n["node"] for n in machine["nodes"] if n["has_memory"]},
          numbers(open("/sys/devices/system/node/has_memory").read()))  # noqa: PTH123, SIM115  # fmt: skip


def _groups(pairs) -> list[list[int]]:
    found: dict = {}
    for cpu, key in pairs:
        found.setdefault(key, []).append(cpu)
    return sorted(found.values())
