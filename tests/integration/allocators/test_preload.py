"""Does a worker really start with the library that the layout names, and is one that cannot be had refused?

The library is what this system has under the allocator's name, or a small library of the system under that name: what is proven is the
mechanism, not the allocator's speed.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.preload import find


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a libtcmalloc_minimal.so.4: the real one, or libz, libm or the like under its name."""
    made = tmp_path / "lib"
    made.mkdir()
    library = find("tcmalloc", {}) or _some_library()
    shutil.copyfile(library, made / "libtcmalloc_minimal.so.4")
    return made


def _some_library() -> Path:
    """The file of a library that this interpreter has mapped: one that surely loads."""
    maps = Path("/proc/self/maps").read_text()
    ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
    paths = {line.rpartition(" ")[2] for line in (maps + Path("/proc/self/maps").read_text()).splitlines()}
    return next(Path(path) for path in sorted(paths) if Path(path).name.startswith("libm.so"))


def check(layout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "check", str(layout)],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment}, check=False,
    )  # fmt: skip


def test_a_worker_has_the_preloaded_library_mapped_and_serves(
    folder: Path, tmp_path: Path, start_system: Callable[..., Any]
) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text("version: 1\nallocator: tcmalloc\ninstances: [{name: all, cores: 1}]\n")
    system = start_system("--layout", str(layout), environment={"LD_LIBRARY_PATH": str(folder)})
    (instance,) = system.status().instances
    assert instance.verified is not None
    assert instance.verified.allocator == "tcmalloc"
    assert instance.verified.matches_plan
    library = str(folder / "libtcmalloc_minimal.so.4")
    assert library in Path(f"/proc/{instance.pid}/maps").read_text()
    assert library not in Path(f"/proc/{system.status().router.pid}/maps").read_text()
    assert len(system.embed("rain")) == 384


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
def test_a_worker_on_openvino_starts_without_the_allocator_that_the_supervisor_inherited(
    folder: Path, tmp_path: Path, start_system: Callable[..., Any]
) -> None:
    library = str(folder / "libtcmalloc_minimal.so.4")
    system = start_system(
        "--model", str(_tiny_model(tmp_path)), "--engine", "openvino", "--instances", "1", environment={"LD_PRELOAD": library}
    )  # fmt: skip
    status = system.status()
    (instance,) = status.instances
    assert instance.engine == "openvino"
    assert library in Path(f"/proc/{system.process.pid}/maps").read_text()
    assert library not in Path(f"/proc/{instance.pid}/maps").read_text()
    assert instance.verified.allocator == "system"
    assert any("LD_PRELOAD brings tcmalloc, with which openvino aborts" in warning for warning in status.warnings)
    assert system.embed("rain")


def _tiny_model(tmp_path: Path) -> Path:
    spec = importlib.util.spec_from_file_location(
        "tiny_models", Path(__file__).parents[2] / "data" / "models" / "tiny_models.py"
    )
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    return Path(tiny.write(tmp_path / "tiny", tiny.CASES["bert-mean-normalised"]))


def test_a_library_that_is_not_there_is_refused_at_its_place_with_the_package(tmp_path: Path) -> None:
    if find("jemalloc", {}) is not None:
        pytest.skip("jemalloc is installed here")
    layout = tmp_path / "layout.yaml"
    layout.write_text("version: 1\nallocator: jemalloc\n")
    refused = check(layout)
    assert refused.returncode == 78
    assert f"{layout}:2:12: allocator: jemalloc is not installed" in refused.stdout
    assert "jemalloc2" in refused.stdout or "install jemalloc" in refused.stdout


def test_neither_text_nor_another_machines_library_under_the_name_is_taken(folder: Path, tmp_path: Path) -> None:
    library = folder / "libtcmalloc_minimal.so.4"
    assert find("tcmalloc", {"LD_LIBRARY_PATH": str(folder)}) == library
    image = bytearray(library.read_bytes())
    image[18:20] = b"\xf3\x00" if image[18:20] != b"\xf3\x00" else b"\x3e\x00"  # e_machine: RISC-V, x86-64
    library.write_bytes(image)
    assert find("tcmalloc", {"LD_LIBRARY_PATH": str(folder)}) != library
    library.write_text("/* GNU ld script */")
    assert find("tcmalloc", {"LD_LIBRARY_PATH": str(folder)}) != library
    spaced = tmp_path / "a b"
    folder.rename(spaced)
    assert find("tcmalloc", {"LD_LIBRARY_PATH": str(spaced)}) is None or find("tcmalloc", {}) is not None


def test_openvino_on_the_command_line_does_not_slip_past_an_allocator_in_the_file(tmp_path: Path, folder: Path) -> None:
    layout = tmp_path / "layout.yaml"
    layout.write_text("version: 1\nallocator: tcmalloc\n")
    refused = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "up", "--engine", "openvino", "--port", "0",
         "--layout", str(layout), "--runtime-dir", str(tmp_path / "run"), "--cache-dir", str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=60, env={**os.environ, "LD_LIBRARY_PATH": str(folder)}, check=False,
    )  # fmt: skip
    assert refused.returncode == 78
    assert f"{layout}:2:12: allocator: tcmalloc does not go with engine openvino" in refused.stderr
