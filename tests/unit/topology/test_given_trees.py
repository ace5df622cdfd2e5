"""Are captured machines read right? Runs where TOPOLOGY_TREES names a directory of trees with a truth file beside it.

`$TOPOLOGY_TREES/NAME/` is the root of a machine; `$TOPOLOGY_TRUTH` (default: `truth.json` in that directory) holds
`{"machines": [{"name", "online_cpus", "physical_cores", "packages", "numa_nodes", "l3_domains", …}]}`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from topology.capture import write_capture
from topology.model import Machine
from topology.sysfs import read_machine

TREES = os.environ.get("TOPOLOGY_TREES", "")
TRUTH = os.environ.get("TOPOLOGY_TRUTH", str(Path(TREES) / "truth.json"))


def _truths() -> list[Any]:
    if not TREES:
        return []
    machines = json.loads(Path(TRUTH).read_text("utf-8"))["machines"]
    return [
        pytest.param(machine, id=machine["name"]) for machine in machines if (Path(TREES) / machine["name"]).is_dir()
    ]


def _groups(machine: Machine, field: str) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for cpu in machine.cpus:
        if cpu.online and getattr(cpu, field) is not None:
            found.setdefault(getattr(cpu, field), []).append(cpu.cpu)
    return sorted(found.values())


@pytest.mark.skipif(not TREES, reason="TOPOLOGY_TREES names no directory of captured machines")
@pytest.mark.parametrize("truth", _truths())
def test_a_captured_machine_is_read_right_and_captures_back(truth: dict[str, Any], tmp_path: Path) -> None:
    root = Path(TREES) / truth["name"]
    machine = read_machine(root)

    assert [cpu.cpu for cpu in machine.cpus if cpu.online] == truth["online_cpus"]
    assert _groups(machine, "core") == sorted(truth["physical_cores"])
    assert _groups(machine, "package") == sorted(truth["packages"].values())
    assert _groups(machine, "l3") == sorted(truth["l3_domains"])
    assert {str(node.node): list(node.cpus) for node in machine.nodes} == {
        node: said["cpus"] for node, said in truth["numa_nodes"].items()
    }
    if truth["distances"] is not None:
        assert [list(node.distances.values()) for node in machine.nodes] == truth["distances"]
    assert machine.warnings == ()
    archive = tmp_path / "machine.tar.gz"
    assert write_capture(root, archive) == read_machine(archive) == machine
