"""What does the doctor say of one thing? Pure."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from orchestrator.doctor.host import Unread

Level = Literal["broken", "costs", "note", "ok", "unknown"]
"""broken: prevents serving, or hurts it badly. costs: costs speed or latency. note: good to know, or costs only under conditions that
it names. ok: as it should be. unknown: cannot be read here, with why."""

Group = Literal["running", "limits", "cgroup", "memory", "cpu", "frequency", "kernel", "software"]

ORDER: Final[tuple[Level, ...]] = ("broken", "costs", "note", "ok", "unknown")
"""Worst first."""


class Finding(Struct, frozen=True, kw_only=True):
    check: str
    """One or two words: `governor`, `memory limit`."""
    group: Group
    level: Level
    found: str
    """What is there."""
    cost: str = ""
    """What it costs, with the number and where that comes from; empty where it costs nothing or nobody has measured it."""
    mend: str = ""
    """The command, or the setting, that changes it."""


def unknown(check: str, group: Group, why: Unread) -> Finding:
    """It cannot be read here."""
    return Finding(check=check, group=group, level="unknown", found=why.why)


def worst_first(findings: list[Finding]) -> list[Finding]:
    """By level; the order of the checks stays within one."""
    return sorted(findings, key=lambda each: ORDER.index(each.level))


def exit_code(findings: list[Finding]) -> int:
    """0, or 1 if anything is broken."""
    return int(any(each.level == "broken" for each in findings))
