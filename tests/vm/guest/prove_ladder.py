"""What happens where memory cannot be bound? Forbidden, it serves and says so; without libnuma, it refuses and says what mends it."""

from __future__ import annotations

import ctypes.util
from pathlib import Path

from proof import CACHE, PROGRAM, WIDTH, check, cpus_of_threads, equal, limited, ran, up

FORBIDDEN = {
    "set_mempolicy": "~set_mempolicy",
    "every policy call": "~get_mempolicy set_mempolicy set_mempolicy_home_node mbind migrate_pages move_pages",
}
"""The second is what container engines forbid to a container without CAP_SYS_NICE."""


def prove() -> None:
    for name, calls in FORBIDDEN.items():
        _serves_all_the_same(name, calls)
    _without_libnuma()


def _serves_all_the_same(name: str, calls: str) -> None:
    inside = limited(SystemCallFilter=calls, SystemCallErrorNumber="EPERM")
    with up(f"forbidden-{name.replace(' ', '-')}", "--instances", "2", "--max-seqlen", "64", inside=inside) as running:
        check(f"{name} forbidden: a text is answered", len(running.embed("rain")[0]) == WIDTH)
        status = running.status()
        for instance in status["instances"]:
            verified, about = instance["verified"], f"{name} forbidden: {instance['name']}"
            equal(f"{about} says that it has no policy", verified["policy"], "default")
            check(
                f"{about} says why", any("refused" in said or "forbid" in said for said in verified["notes"]), verified
            )
            used = set().union(*cpus_of_threads(instance["pid"]).values())
            equal(f"{about} still has its cores", used, set(instance["cpus"]))
        check(
            f"{name} forbidden: status warns", any("memory" in said for said in status["warnings"]), status["warnings"]
        )


def _without_libnuma() -> None:
    library = next(Path("/usr/lib").glob("*/libnuma.so.1")).resolve()
    assert ctypes.util.find_library("numa"), "libnuma is not installed in the first place"
    hidden = library.with_name("hidden")
    link = library.with_name("libnuma.so.1")
    library.rename(hidden)
    link.unlink()
    ran("ldconfig")
    try:
        done = ran(*PROGRAM, "up", "--port", "0", "--runtime-dir", "/run/proof-libnuma", "--cache-dir", CACHE)
        equal("without libnuma on several nodes: status 78", done.returncode, 78)
        check("without libnuma: says what to install", "apt-get install libnuma1" in done.stderr, done.stderr)
        check("without libnuma: no traceback", "Traceback" not in done.stderr, done.stderr)
        equal("without libnuma: topology works", ran(*PROGRAM, "topology").returncode, 0)
    finally:
        hidden.rename(library)
        link.symlink_to(library.name)
        ran("ldconfig")
