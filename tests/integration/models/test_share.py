"""Do workers that load the same model hold one copy of its weights between them, and compute the same as before?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from orchestrator.models import ModelError, Prepared
from orchestrator.models.manifest import decode
from orchestrator.models.share import shared
from orchestrator.models.verify import load

VERSION = "1"

PROGRAM = """
import json, sys
import numpy as np
from orchestrator.models.verify import load
from pathlib import Path

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

import onnxruntime
run = load(Path(sys.argv[1]))
run(np.ones((1, 16), np.int32), np.ones((1, 16), np.int32))
print("loaded", flush=True)
sys.stdin.readline()
print(json.dumps(private()), flush=True)
sys.stdin.readline()
"""


def folder_of(model: Prepared) -> Path:
    return Path(model.status.artefact)


@pytest.fixture(scope="module")
def graph(minilm: Prepared) -> Path:
    folder = folder_of(minilm)
    return shared(folder.parent, folder.name, VERSION, [0])[0]


def test_answers_are_the_same_to_the_last_bit(minilm: Prepared, graph: Path) -> None:
    ids = np.random.default_rng(2).integers(1000, 9000, (3, 21), dtype=np.int32)
    mask = np.array([[1] * 21, [1] * 5 + [0] * 16, [1] * 12 + [0] * 9], np.int32)
    for of in (mask, np.ones_like(mask)):
        np.testing.assert_array_equal(load(graph)(ids, of), load(Path(minilm.artefact.path))(ids, of))


def test_it_is_made_once_and_its_manifest_names_its_parent(
    minilm: Prepared, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    folder = folder_of(minilm)
    assert shared(folder.parent, folder.name, VERSION, [0]) == {0: graph}
    assert decode(graph.with_name("manifest.json").read_bytes()).parent == folder.name


def test_each_node_has_a_file_of_its_own(minilm: Prepared) -> None:
    folder = folder_of(minilm)
    found = shared(folder.parent, folder.name, VERSION, [0, 3])
    assert sorted(found) == [0, 3]
    inodes = {path.with_name("model.onnx.data").stat().st_ino for path in found.values()}
    assert len(inodes) == 2


def test_a_failure_names_the_artefact_and_leaves_nothing_behind(
    minilm: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(minilm)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ModelError, match=rf"{folder.name}: the weights cannot be shared .* exit code 1"):
        shared(folder.parent, folder.name, "another release", [0])
    assert not list(folder.parent.glob("*.making"))


def test_two_processes_hold_most_of_the_weights_in_common(minilm: Prepared, graph: Path) -> None:
    """The packed products of MiniLM are 41 MiB, which each process holds alone where they are not shared."""
    alone, together = (_private(path) for path in (Path(minilm.artefact.path), graph))
    assert max(together) < min(alone) - 30_000, (alone, together)


def _private(graph: Path) -> list[int]:
    """KiB of memory that each of two processes has for itself while both have the graph loaded."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(graph)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    found = []
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "loaded\n"
    for child in children:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        found.append(int(json.loads(child.stdout.readline())))
    for child in children:
        child.communicate("\n", timeout=60)
        assert child.returncode == 0
    return found


def test_everything_it_needs_is_in_its_folder(graph: Path) -> None:
    manifest = decode(graph.with_name("manifest.json").read_bytes())
    assert {file.name for file in manifest.files} == {"model.onnx", "model.onnx.data"}
