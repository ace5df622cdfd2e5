"""How long does a core that sleeps take to wake up? Pure.

A request that is alone passes from process to process four times, and each time wakes a core that has nothing to do: gateway, router,
worker, and back. Sources: Documentation/admin-guide/pm/cpuidle.rst (states, their exit latencies), virt/guest-halt-polling.rst (a guest
spins for so long before it gives its core back), cpupower-idle-set(1).
"""

from __future__ import annotations

from typing import Final

from orchestrator.doctor.finding import Finding, unknown
from orchestrator.doctor.host import Host, Idle, Unread

HOPS: Final = 4
SLOW_MICROSECONDS: Final = 25.0
"""Measured in a virtual machine: 6 where the core spins, 32 to 47 where the hypervisor has to be asked for it."""
DEEP_MICROSECONDS: Final = 50
_SPIN_NANOSECONDS: Final = 2_000_000
_MEASURED: Final = (
    "with it, 0.50 in place of 0.72 ms were added to the engine's time (one request in flight, two cores, measured)"
)
_HALT_POLL: Final = "/sys/module/haltpoll/parameters/guest_halt_poll_ns"


def sleep(host: Host) -> Finding:
    check = "idle states"
    measured = None if isinstance(host.wakeup_microseconds, Unread) else host.wakeup_microseconds
    if measured is None and isinstance(host.idle, Unread):
        return unknown(check, "frequency", host.idle)
    idle = None if isinstance(host.idle, Unread) else host.idle
    found = _found(idle, measured)
    if measured is not None and measured >= SLOW_MICROSECONDS:
        cost = f"about {HOPS} × {measured:.0f} µs of a request that is alone; under load cores do not sleep. What mends it costs power"
        if idle is not None and idle.halt_poll_ns is not None:
            cost += f", and the host's time: a core spins for up to 2 ms before it halts; {_MEASURED}"
        return Finding(check=check, group="frequency", level="costs", found=found, cost=cost, mend=_mend(idle))
    if measured is None and idle is not None and idle.deepest > DEEP_MICROSECONDS:
        cost = f"up to {HOPS} × {idle.deepest} µs of a request that is alone (cpuidle.rst)"
        return Finding(check=check, group="frequency", level="note", found=found, cost=cost, mend=_mend(idle))
    return Finding(check=check, group="frequency", level="ok", found=found)


def _found(idle: Idle | None, measured: float | None) -> str:
    said = []
    if measured is not None:
        said.append(f"another core wakes up after {measured:.0f} µs (median, tried)")
    if idle is None:
        said.append("the kernel has no driver of idle states")
    else:
        said.append(f"driver {idle.driver}, up to {idle.deepest} µs by its own account")
        if idle.halt_poll_ns is not None:
            said.append(f"spins up to {idle.halt_poll_ns / 1e3:.0f} µs before it halts")
    return "; ".join(said)


def _mend(idle: Idle | None) -> str:
    if idle is not None and idle.halt_poll_ns is not None:
        return f"cpu_latency_us: 0 in the layout, or echo {_SPIN_NANOSECONDS} | sudo tee {_HALT_POLL}"
    if idle is not None and idle.deepest > DEEP_MICROSECONDS:
        return (
            f"cpu_latency_us: {DEEP_MICROSECONDS} in the layout, or sudo cpupower idle-set -D {DEEP_MICROSECONDS}, "
            "or tuned-adm profile latency-performance"
        )
    return "the hypervisor's own halt polling (kvm.halt_poll_ns on the host), or the boot parameter idle=poll"
