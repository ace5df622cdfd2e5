"""How does a terminal show what the doctor found? Worst first, in 100 columns. Pure."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from orchestrator.doctor.finding import Finding, Level
from orchestrator.doctor.host import Host, Unread

WIDTH: Final = 100
_CHECK: Final = 17
_INDENT: Final = " " * (9 + _CHECK)
_HEADS: Final[dict[Level, str]] = {
    "broken": "BROKEN",
    "costs": "COSTS",
    "note": "note",
    "ok": "ok",
    "unknown": "unknown",
}
_MORE: Final = ("broken", "costs", "note")


def table(host: Host, findings: Sequence[Finding]) -> str:
    """What matters with its cost and its command first, then a line for each thing that is well, then what cannot be read."""
    lines = [_head(host), _summary(findings), ""]
    for level in ("broken", "costs", "note"):
        for finding in findings:
            if finding.level == level:
                lines += [*_entry(finding), ""]
    well = [finding for finding in findings if finding.level == "ok"]
    groups = list(dict.fromkeys(finding.group for finding in well))
    for group in groups:
        lines += [line for finding in well if finding.group == group for line in _entry(finding)]
    hidden = [finding for finding in findings if finding.level == "unknown"]
    if hidden:
        lines += ["", "cannot be read here:"]
        for why in dict.fromkeys(finding.found for finding in hidden):
            checks = ", ".join(finding.check for finding in hidden if finding.found == why)
            lines += _wrap(f"{checks}: {why}", "  ", "    ")
    return "\n".join(lines)


def _head(host: Host) -> str:
    machine = host.machine
    name = "a machine that cannot be read" if isinstance(machine, Unread) else machine.model_name or machine.arch
    release = f", Linux {host.release}" if isinstance(host.release, str) else ""
    return f"{name}{release}"[:WIDTH]


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.level for finding in findings)
    words = {"broken": "broken", "costs": "cost speed", "note": "to note", "ok": "well", "unknown": "cannot be read"}
    return ", ".join(f"{counts[level]} {word}" for level, word in words.items() if counts[level])  # type: ignore[index]


def _entry(finding: Finding) -> Iterator[str]:
    yield from _wrapped(f"{_HEADS[finding.level]:<8} {finding.check}", finding.found)
    if finding.level in _MORE:
        if finding.cost:
            yield from _wrapped("", finding.cost)
        if finding.mend:
            # A command stays on one line where the width allows, so that it can be copied.
            start = _INDENT if len(finding.mend) + len(_INDENT) + 2 <= WIDTH else "  "
            yield from _wrap(finding.mend, f"{start}→ ", f"{start}  ")


def _wrapped(first: str, text: str) -> list[str]:
    start = f"{first:<{len(_INDENT)}}"
    return _wrap(text, start, _INDENT) or [start.rstrip()]


def _wrap(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
