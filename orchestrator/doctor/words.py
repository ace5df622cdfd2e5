"""How are sizes, shares and frequencies written in findings? Pure."""

from __future__ import annotations


def size(count: int) -> str:
    """`87 MiB`, `1.5 GiB`."""
    if count >= 1 << 30:
        return f"{count / (1 << 30):.1f} GiB"
    return f"{count / (1 << 20):.0f} MiB" if count >= 1 << 20 else f"{count / 1024:.0f} KiB"


def gigahertz(khz: int) -> str:
    return f"{khz / 1e6:.1f} GHz"


def share(part: float, whole: float) -> str:
    """`12 %`, `0.3 %`."""
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %"


def selected(text: str) -> str:
    """`madvise` of `always [madvise] never`; the text itself where nothing stands in brackets."""
    inside = text.partition("[")[2].partition("]")[0]
    return inside or text
