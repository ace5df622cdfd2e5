"""Do the cores run as fast as they can? Pure.

Sources: Documentation/admin-guide/pm/cpufreq.rst (governors, boost), intel_pstate.rst and amd-pstate.rst (in active mode `powersave` is no
slow governor: the energy-performance preference decides).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from orchestrator.config.words import cpus_in_words
from orchestrator.doctor.finding import Finding, Level, unknown
from orchestrator.doctor.host import Frequency, Host, Unread
from orchestrator.doctor.words import gigahertz

_ACTIVE = frozenset({"intel_pstate", "amd-pstate-epp", "amd_pstate_epp"})
_SLOW = frozenset({"power", "balance_power"})


def governor(host: Host) -> Finding:
    if isinstance(host.frequencies, Unread):
        return unknown("governor", "frequency", host.frequencies)
    groups: dict[tuple[str, str], list[Frequency]] = defaultdict(list)
    for each in host.frequencies:
        groups[each.governor or "none named", each.preference or ""].append(each)
    found = ", ".join(
        f"{name}{f' with preference {preference}' if preference else ''} on {cpus_in_words(each.cpu for each in cpus)}"
        for (name, preference), cpus in groups.items()
    )
    driver = next((each.driver for each in host.frequencies if each.driver), None)
    found += f" (driver {driver})" if driver else ""
    levels = [_level(name, preference, driver) for name, preference in groups]
    level: Level = "costs" if "costs" in levels else "note" if "note" in levels else "ok"
    if level == "ok":
        return Finding(check="governor", group="frequency", level=level, found=found)
    return Finding(
        check="governor",
        group="frequency",
        level=level,
        found=found,
        cost=_range(host.frequencies, level),
        mend="echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )


def _level(governor: str, preference: str, driver: str | None) -> Level:
    if governor == "performance":
        return "ok"
    if driver in _ACTIVE:
        return "costs" if preference in _SLOW else "note"
    return "costs" if governor in ("powersave", "userspace") else "note"


def _range(frequencies: Sequence[Frequency], level: Level) -> str:
    lowest = min((each.lowest for each in frequencies if each.lowest), default=None)
    highest = max((each.highest for each in frequencies if each.highest), default=None)
    span = f"down to {gigahertz(lowest)} of {gigahertz(highest)}" if lowest and highest else "below what they can"
    when = "cores are kept" if level == "costs" else "after a pause cores begin"
    return f"{when} {span} (cpufreq.rst, intel_pstate.rst)"


def limit(host: Host) -> Finding | None:
    """A ceiling that somebody set under what the hardware can."""
    if isinstance(host.frequencies, Unread):
        return None
    capped = [each for each in host.frequencies if each.limit and each.highest and each.limit < each.highest]
    if not capped:
        return Finding(check="frequency limit", group="frequency", level="ok", found="none")
    lowest = min(capped, key=lambda each: each.limit or 0)
    assert lowest.limit is not None
    assert lowest.highest is not None
    return Finding(
        check="frequency limit",
        group="frequency",
        level="costs",
        found=f"{cpus_in_words(each.cpu for each in capped)}: scaling_max_freq is {gigahertz(lowest.limit)}",
        cost=f"of {gigahertz(lowest.highest)} that the hardware can: {lowest.limit / lowest.highest:.0%} of the clock",
        mend=f"echo {lowest.highest} | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_max_freq",
    )


def turbo(host: Host) -> Finding:
    if isinstance(host.no_turbo, str):
        off, mend = host.no_turbo == "1", "echo 0 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo"
    elif isinstance(host.boost, str):
        off, mend = host.boost == "0", "echo 1 | sudo tee /sys/devices/system/cpu/cpufreq/boost"
    else:
        return unknown("turbo", "frequency", Unread(f"{host.boost.why}, nor intel_pstate/no_turbo"))
    if not off:
        return Finding(check="turbo", group="frequency", level="ok", found="on")
    frequencies = host.frequencies if not isinstance(host.frequencies, Unread) else ()
    base = max((each.base for each in frequencies if each.base), default=None)
    highest = max((each.highest for each in frequencies if each.highest), default=None)
    cost = f"at most {gigahertz(base)}" if base else "at most the base frequency"
    # With turbo off intel_pstate shows the base frequency as the highest.
    cost += f" of {gigahertz(highest)}" if base and highest and highest > base else ""
    return Finding(check="turbo", group="frequency", level="costs", found="switched off", cost=cost, mend=mend)
