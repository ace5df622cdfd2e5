"""Which features of the kernel are there, and what does reading the clock cost? Pure.

Sources: pidfd_open(2) (Linux 5.3), Documentation/timers and clocksource drivers: tsc and, in guests, kvm-clock and hyperv are read in
user space (vdso(7)); hpet and acpi_pm are registers of a device behind a system call.
"""

from __future__ import annotations

from typing import Final

from orchestrator.doctor.finding import Finding, unknown
from orchestrator.doctor.host import Host, Unread

_IN_USER_SPACE: Final = (
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
    "timebase",
    "tod",
    "riscv_clocksource",
)
SLOW_CLOCK_NANOSECONDS: Final = 500.0
"""A read in user space takes 20 to 60, the interpreter's call included; a system call for it some hundreds, a device thousands."""


def clock(host: Host) -> Finding:
    check = "clock source"
    if isinstance(host.clock, Unread):
        return unknown(check, "kernel", host.clock)
    measured = None if isinstance(host.clock_nanoseconds, Unread) else host.clock_nanoseconds
    found = host.clock + (f", {measured:.0f} ns to read" if measured is not None else "")
    slow = measured is not None and measured >= SLOW_CLOCK_NANOSECONDS
    if host.clock in _IN_USER_SPACE and not slow:
        return Finding(check=check, group="kernel", level="ok", found=found)
    others = host.clocks.split() if isinstance(host.clocks, str) else []
    better = next((name for name in _IN_USER_SPACE if name in others and name != host.clock), None)
    return Finding(
        check=check,
        group="kernel",
        level="costs" if slow or measured is None else "note",
        found=found,
        cost=f"{measured:.0f} ns, several times per request in router, gateway and worker"
        if measured is not None
        else "each reading is a system call or a device access, several times per request",
        mend=f"echo {better} | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource"
        if better
        else "dmesg | grep -i tsc says why the kernel gave the TSC up (tsc=reliable if it is wrong)",
    )


def pidfd(host: Host) -> Finding:
    release = host.release if isinstance(host.release, str) else "unknown"
    if isinstance(host.pidfd, Unread):
        return unknown("pidfd_open", "kernel", host.pidfd)
    if host.pidfd.ok:
        return Finding(check="pidfd_open", group="kernel", level="ok", found=f"works (Linux {release})")
    return Finding(
        check="pidfd_open",
        group="kernel",
        level="note",
        found=f"{host.pidfd.said} (Linux {release})",
        cost="the end of a child is noticed within 100 ms in place of at once",
        mend="Linux 5.3 or newer, and a seccomp profile that allows it",
    )
