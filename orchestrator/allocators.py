"""How does a process get another memory allocator, or huge pages, and does it have them? Pure.

Sources: ld.so(8) for LD_PRELOAD (items between colons or spaces); glibc manual, "Memory Allocation Tunables"
(`glibc.malloc.hugetlb`: 1 = madvise(MADV_HUGEPAGE), 2 = MAP_HUGETLB, since 2.35); jemalloc(3), MALLOC_CONF, `opt.thp`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from orchestrator.config.schema import Allocator, HugePages

SONAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"),
    "jemalloc": ("libjemalloc.so.2",),
}
"""By preference: the minimal tcmalloc is the same allocator without a heap profiler."""

PACKAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "tcmalloc": {
        "debian": "apt-get install libtcmalloc-minimal4",
        "debian-t64": "apt-get install libtcmalloc-minimal4t64",
        "fedora": "dnf install gperftools-libs",
        "suse": "zypper install libtcmalloc_minimal4",
        "arch": "pacman -S gperftools",
    },
    "jemalloc": {
        "debian": "apt-get install libjemalloc2",
        "fedora": "dnf install jemalloc",
        "suse": "zypper install libjemalloc2",
        "arch": "pacman -S jemalloc",
    },
}

HUGETLB_GLIBC: Final = (2, 35)
"""The first glibc with `glibc.malloc.hugetlb`."""

_KNOWN: Final = re.compile(r"(?:^|/)lib(tcmalloc|jemalloc)[^/]*\.so[^/]*$")
_HUGETLB: Final = "glibc.malloc.hugetlb"
_TUNABLE: Final[Mapping[str, str]] = {"transparent": "1", "reserved": "2"}


def install_line(allocator: str, os_release: Mapping[str, str]) -> str:
    """The command that installs it on the distribution that /etc/os-release names; all of them where it names none we know."""
    packages = PACKAGES[allocator]
    names = [os_release.get("ID", ""), *os_release.get("ID_LIKE", "").split()]
    for name in names:
        family = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora"}.get(name, name.partition("-")[0])
        family = {"opensuse": "suse", "sles": "suse"}.get(family, family)
        if family == "debian" and _since_64_bit_time(os_release) and "debian-t64" in packages:
            family = "debian-t64"
        if family in packages:
            return packages[family]
    return " or ".join(packages[family] for family in ("debian", "fedora"))


def _since_64_bit_time(os_release: Mapping[str, str]) -> bool:
    """Debian 13 and Ubuntu 24.04 renamed libraries for their change to 64-bit times."""
    number = re.match(r"\d+", os_release.get("VERSION_ID", ""))
    if number is None:
        return False
    return int(number[0]) >= (24 if os_release.get("ID") == "ubuntu" else 13)


def allocator_of(path: str) -> str | None:
    """tcmalloc or jemalloc, if this is the path or the name of such a library."""
    found = _KNOWN.search(path)
    return found[1] if found else None


def preloaded_allocators(environment: Mapping[str, str]) -> list[str]:
    """Those that LD_PRELOAD brings, in its order."""
    return [name for item in _preload(environment) if (name := allocator_of(item)) is not None]


def without_allocators(environment: Mapping[str, str]) -> dict[str, str]:
    """The same environment, its LD_PRELOAD without allocators: what openvino needs to live."""
    if not preloaded_allocators(environment):
        return dict(environment)
    kept = [item for item in _preload(environment) if allocator_of(item) is None]
    return {**environment, "LD_PRELOAD": ":".join(kept)}


def worker_environment(
    allocator: Allocator, huge_pages: HugePages, library: str | None, engine: str | None, base: Mapping[str, str]
) -> dict[str, str]:
    """What a worker's environment says otherwise than `base`, the supervisor's own.

    `library` is the path of the allocator's library, None for `system`. What LD_PRELOAD brings beside allocators stays.
    """
    wanted: dict[str, str] = {}
    kept = [item for item in _preload(base) if allocator_of(item) is None]
    if library is not None:
        wanted["LD_PRELOAD"] = ":".join([library, *kept])
    elif engine == "openvino" and preloaded_allocators(base):
        wanted["LD_PRELOAD"] = ":".join(kept)
    if huge_pages in _TUNABLE and allocator == "system":
        others = [item for item in base.get("GLIBC_TUNABLES", "").split(":") if item and not item.startswith(_HUGETLB)]
        wanted["GLIBC_TUNABLES"] = ":".join([*others, f"{_HUGETLB}={_TUNABLE[huge_pages]}"])
    if huge_pages == "transparent" and allocator == "jemalloc":
        before = base.get("MALLOC_CONF", "")
        wanted["MALLOC_CONF"] = f"{before},thp:always" if before else "thp:always"
    return wanted


def mapped_allocator(maps: str) -> str:
    """The allocator whose library /proc/PID/maps shows; `system` where it shows none."""
    for line in maps.splitlines():
        name = allocator_of(line.rstrip().removesuffix(" (deleted)"))
        if name is not None:
            return name
    return "system"


def huge_bytes(smaps_rollup: str) -> int:
    """Bytes in huge pages, transparent and reserved, as /proc/PID/smaps_rollup sums them."""
    sizes = re.findall(r"^(?:AnonHugePages|Private_Hugetlb|Shared_Hugetlb):\s+(\d+) kB$", smaps_rollup, re.MULTILINE)
    return 1024 * sum(map(int, sizes))


def _preload(environment: Mapping[str, str]) -> list[str]:
    return [item for item in re.split(r"[: ]", environment.get("LD_PRELOAD", "")) if item]
