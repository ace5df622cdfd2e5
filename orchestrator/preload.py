"""Where is the library of an allocator on this machine, and which command brings it where there is none?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from orchestrator.allocators import HUGETLB_GLIBC, SONAMES, install_line
from orchestrator.config.allocation import allocation_of, problem_at
from orchestrator.config.problem import Problem
from orchestrator.config.schema import Layout

_USUAL = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib", "/usr/local/lib64")
_ELF_MACHINE = slice(18, 20)
"""e_machine of the ELF header (elf(5)): x86-64, aarch64, …"""


class Libraries(msgspec.Struct, frozen=True):
    """What a layout needs of this machine, and what it lacks."""

    paths: dict[str, str]
    """Allocator → the library that is preloaded."""
    problems: list[Problem]


def libraries(layout: Layout, environment: Mapping[str, str]) -> Libraries:
    """The libraries of the layout's allocators; each that is missing is a problem at its place in the file."""
    paths: dict[str, str] = {}
    problems: list[Problem] = []
    for index, group in enumerate(layout.instances or (None,)):
        allocation = allocation_of(layout, group)
        allocator = allocation.allocator
        if allocator != "system" and allocator not in paths:
            found = find(allocator, environment)
            if found is not None:
                paths[allocator] = str(found)
            else:
                where = f"instances[{index}].allocator" if group is not None and group.allocator else "allocator"
                names = " nor ".join(SONAMES[allocator])
                what = (
                    f"{allocator} is not installed: neither {names}"
                    if " nor " in names
                    else (f"{allocator} is not installed: no {names}")
                )
                why = "looked for with ldconfig -p, in LD_LIBRARY_PATH and in the usual folders, for this architecture"
                mend = f"install it: {install_line(allocator, os_release())}; or say `allocator: system`"
                problems.append(problem_at(layout, where, what, why, mend))
        if allocator == "system" and allocation.huge_pages != "system" and not _glibc_has_tunable():
            where = f"instances[{index}].huge_pages" if group is not None and group.huge_pages else "huge_pages"
            what = f"{allocation.huge_pages} huge pages need glibc {'.'.join(map(str, HUGETLB_GLIBC))} or newer"
            problems.append(
                problem_at(layout, where, what, f"this is {libc()}", "leave huge_pages out, or use jemalloc")
            )
    unique = {(problem.where, problem.what): problem for problem in problems}
    return Libraries(paths, list(unique.values()))


def find(allocator: str, environment: Mapping[str, str]) -> Path | None:
    """The allocator's library as the dynamic loader would find it, for the architecture of this interpreter."""
    ours = _machine_of(Path(sys.executable))
    for soname in SONAMES[allocator]:
        for path in _candidates(soname, environment):
            # LD_PRELOAD separates its items by colons and spaces and knows no quotes.
            if not re.search(r"[: ]", str(path)) and _machine_of(path) == ours:
                return path
    return None


def _candidates(soname: str, environment: Mapping[str, str]) -> Iterator[Path]:
    for folder in filter(None, environment.get("LD_LIBRARY_PATH", "").split(":")):
        yield Path(folder) / soname
    yield from _cached(soname)
    multiarch = getattr(sys.implementation, "_multiarch", "")
    for folder in _USUAL:
        if multiarch and folder in ("/lib", "/usr/lib"):
            yield Path(folder) / multiarch / soname
        yield Path(folder) / soname


def _cached(soname: str) -> Iterator[Path]:
    """What the loader's cache says: lines of `libnuma.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libnuma.so.1`."""
    program = next((path for path in ("/sbin/ldconfig", "/usr/sbin/ldconfig") if Path(path).exists()), "ldconfig")
    try:
        printed = subprocess.run([program, "-p"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return  # no ldconfig (musl): the folders remain
    for line in printed.splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == soname and " => " in rest:
            yield Path(rest.rpartition(" => ")[2])


def _machine_of(path: Path) -> bytes | None:
    """e_machine of an ELF file; None if it is none, or is not there."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return None
    return head[_ELF_MACHINE] if head.startswith(b"\x7fELF") and len(head) == 20 else None


def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """The distribution's own description (os-release(5)); empty where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def libc() -> str:
    """`glibc 2.36`; `another C library` for musl and others."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or "another C library"
    except (ValueError, OSError):
        return "another C library"


def _glibc_has_tunable() -> bool:
    numbers = re.fullmatch(r"glibc (\d+)\.(\d+).*", libc())
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= HUGETLB_GLIBC
