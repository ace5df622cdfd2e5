"""What do the cores give to workers, and who takes from them? Pure.

Sources: Documentation/admin-guide/kernel-parameters.txt (isolcpus, nohz_full), cpusets; core-api/irq/irq-affinity.rst; proc(5) for steal;
arch/x86/xstate.rst for AMX; onnxruntime issues 6004 and 14642 for saturation. Times are of all-MiniLM-L6-v2 at 1×128 on one core of a Xeon
with AMX, measured by this project.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.config.words import counted, cpus_in_words
from orchestrator.doctor.finding import Finding, Level, unknown
from orchestrator.doctor.host import Host, Trial, Unread, isa_of
from orchestrator.doctor.words import share
from topology.cpuset import format_cpulist
from topology.model import Machine

NOTED_STEAL, COSTLY_STEAL = 0.01, 0.05
MANY_INTERRUPTS = 1000.0
"""A second, on the CPUs of all instances: fewer are lost in the noise of a batch."""
_MEASURED = "1×128 on an AMX Xeon: fp32 22.0 ms, int8 6.3, bf16 5.7"


def machine(host: Host) -> Finding | None:
    """Only where it cannot be read: without it nothing can be placed."""
    if isinstance(host.machine, Unread):
        return Finding(
            check="topology",
            group="cpu",
            level="broken",
            found=host.machine.why,
            mend="orchestrator topology says more",
        )
    return None


def smt(host: Host) -> Finding:
    if isinstance(host.machine, Unread):
        return unknown("SMT", "cpu", host.machine)
    if host.machine.smt < 2:
        said = host.smt_control if isinstance(host.smt_control, str) else "one thread per core"
        return Finding(check="SMT", group="cpu", level="ok", found=f"off or not there ({said})")
    beside = _siblings(host.machine, host.worker_cpus)
    ours, idle = ([cpu for cpu in beside if (cpu in host.housekeeping_cpus) is kept] for kept in (True, False))
    return Finding(
        check="SMT",
        group="cpu",
        level="note" if idle else "ok",
        found=f"{host.machine.smt} threads per core; instances use one of each"
        + (f", {cpus_in_words(idle)} beside them idle" if idle else "")
        + (f", {cpus_in_words(ours)} beside them run router and gateways" if ours else ""),
        cost="whatever else runs there takes execution units from an instance: keep other services off them (AllowedCPUs=), "
        "or switch SMT off"
        if idle
        else "",
        mend="echo off | sudo tee /sys/devices/system/cpu/smt/control" if idle else "",
    )


def _siblings(machine: Machine, busy: frozenset[int]) -> list[int]:
    cores = {cpu.core for cpu in machine.cpus if cpu.cpu in busy and cpu.core is not None}
    return sorted(cpu.cpu for cpu in machine.cpus if cpu.core in cores and cpu.cpu not in busy and cpu.online)


def isolated(host: Host) -> Finding | None:
    if isinstance(host.machine, Unread):
        return None
    apart = {cpu.cpu for cpu in host.machine.cpus if cpu.isolated}
    tickless = host.nohz_full if isinstance(host.nohz_full, str) and host.nohz_full not in ("", "(null)") else ""
    found = cpus_in_words(apart) if apart else "none"
    found += f"; nohz_full {tickless}" if tickless else ""
    used = apart & host.worker_cpus
    if used and host.widest_instance > 1:
        # isolcpus= in kernel-parameters.txt; workers.isolated does it.
        found += f"; {cpus_in_words(used)} have instances, whose threads are pinned one by one: the kernel does not spread them"
    return Finding(check="isolated CPUs", group="cpu", level="ok", found=found)


def stolen(host: Host) -> Finding:
    if isinstance(host.stolen, Unread):
        return unknown("stolen time", "cpu", host.stolen)
    gone, ticks = host.stolen
    part = gone / ticks if ticks else 0.0
    level: Level = "costs" if part >= COSTLY_STEAL else "note" if part >= NOTED_STEAL else "ok"
    return Finding(
        check="stolen time",
        group="cpu",
        level=level,
        found=f"{share(gone, ticks)} of the CPU time since boot went to other guests",
        cost="that share of every instance's time, at moments of the hypervisor's choosing (/proc/stat)"
        if level != "ok"
        else "",
        mend="dedicated cores from the provider, or fewer guests on the host" if level != "ok" else "",
    )


def interrupts(host: Host) -> Finding:
    check = "interrupts"
    if isinstance(host.interrupts, Unread):
        return unknown(check, "cpu", host.interrupts)
    if isinstance(host.uptime_seconds, Unread):
        return unknown(check, "cpu", host.uptime_seconds)
    balance = "irqbalance runs" if host.irqbalance else "irqbalance does not run"
    uptime = max(host.uptime_seconds, 1.0)
    rates = [
        (sum(each.counts.get(cpu, 0) for cpu in host.worker_cpus) / uptime, each.number, each.name)
        for each in host.interrupts
    ]
    total = sum(rate for rate, _, _ in rates)
    found = f"{total:.0f} a second of devices on the CPUs of instances, on average since boot; {balance}"
    house = _others(host)
    if total < MANY_INTERRUPTS or not house:
        return Finding(check=check, group="cpu", level="ok", found=found)
    most = sorted(rates, reverse=True)[:3]
    names = ", ".join(f"{number} ({name}, {rate:.0f})" for rate, number, name in most)
    away = format_cpulist(house)
    return Finding(
        check=check,
        group="cpu",
        level="note",
        found=f"{found}; most of them {names}",
        cost="each stops a batch for as long as it takes (irq-affinity.rst); how long has not been measured here",
        mend=f"IRQBALANCE_BANNED_CPULIST={format_cpulist(host.worker_cpus)} in /etc/default/irqbalance"
        if host.irqbalance
        else f"for i in {' '.join(str(number) for _, number, _ in most)}; do echo {away} | sudo tee /proc/irq/$i/smp_affinity_list; done",
    )


def _others(host: Host) -> list[int]:
    """Online CPUs on cores without an instance."""
    if isinstance(host.machine, Unread):
        return []
    beside = {*host.worker_cpus, *_siblings(host.machine, host.worker_cpus)}
    return [cpu.cpu for cpu in host.machine.cpus if cpu.online and cpu.cpu not in beside]


def instruction_sets(host: Host) -> Finding:
    check = "instruction sets"
    if isinstance(host.machine, Unread):
        return unknown(check, "cpu", host.machine)
    isa = isa_of(host)
    if not isa or host.machine.arch not in ("x86_64", "i686"):
        shown = ", ".join(_named(isa, ("asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "mma", "vsx"))) or "none known"
        return Finding(
            check=check, group="cpu", level="note", found=f"{host.machine.arch or 'another architecture'}: {shown}",
            cost="speeds of int8 and bf16 have not been measured on it", mend="orchestrator optimize MODEL measures them",
        )  # fmt: skip
    shown = ", ".join(
        _named(isa, ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"))
    )
    if "avx2" not in isa:
        return Finding(
            check=check, group="cpu", level="costs", found=f"no AVX2 ({shown or 'none of AVX'})",
            cost="products run on vectors of half the width or less; int8 gains nothing",
            mend="in a virtual machine: the host's own CPU model (qemu -cpu host)",
        )  # fmt: skip
    if not isa & {"avx_vnni", "avx512_vnni"}:
        return Finding(
            check=check, group="cpu", level="note", found=f"{shown}; no VNNI",
            cost="int8 products can saturate (onnxruntime issues 6004, 14642); the accuracy bar refuses what does",
            mend="orchestrator optimize MODEL shows what is left",
        )  # fmt: skip
    if not isa & {"avx512_bf16", "amx_bf16"}:
        return Finding(check=check, group="cpu", level="ok", found=f"{shown}; no bf16 products, int8 is the fast one")
    return Finding(check=check, group="cpu", level="ok", found=f"{shown}: int8 and bf16 are fast ({_MEASURED})")


def _named(isa: frozenset[str], wanted: Iterable[str]) -> list[str]:
    return [name for name in wanted if name in isa]


def amx(host: Host) -> Finding | None:
    """Linux gives the tile registers to a process that asks for them, since 5.16."""
    if "amx_tile" not in isa_of(host):
        return None
    if isinstance(host.amx, Unread):
        return unknown("AMX", "cpu", host.amx)
    if host.amx.ok:
        return Finding(check="AMX", group="cpu", level="ok", found=host.amx.said)
    return Finding(
        check="AMX",
        group="cpu",
        level="costs",
        found=f"the CPU has it, the kernel refuses it: {host.amx.said}",
        cost=f"bf16 and int8 fall back to AVX-512 or fp32 ({_MEASURED})",
        mend="Linux 5.16 or newer, on the host as well as in the guest; no seccomp filter of arch_prctl",
    )


def affinity(host: Host) -> Finding:
    trial: Trial | Unread = host.affinity
    if isinstance(trial, Unread):
        return unknown("affinity", "cpu", trial)
    if trial.ok:
        return Finding(check="affinity", group="cpu", level="ok", found=trial.said)
    return Finding(
        check="affinity",
        group="cpu",
        level="broken",
        found=trial.said,
        cost="no worker starts: cores are a must",
        mend="allow sched_setaffinity, and the CPUs in this container's cpuset",
    )


def usable(host: Host) -> Finding | None:
    """How many of the machine's cores this process has."""
    if isinstance(host.machine, Unread):
        return None
    online = [cpu for cpu in host.machine.cpus if cpu.online]
    mine = [cpu for cpu in online if cpu.allowed]
    cores = len({cpu.core for cpu in mine})
    found = f"{counted(len(mine), 'CPU')} of {len(online)} ({format_cpulist(cpu.cpu for cpu in mine)}), {counted(cores, 'physical core')}"
    if len(mine) == len(online):
        return Finding(check="cpuset", group="cgroup", level="ok", found=found)
    if not mine:
        return Finding(
            check="cpuset", group="cgroup", level="broken", found=found, cost="nothing can be placed",
            mend="widen the cpuset (AllowedCPUs=, --cpuset-cpus) or the affinity (taskset)",
        )  # fmt: skip
    by = host.cpuset if isinstance(host.cpuset, str) else "the affinity of this shell (taskset)"
    return Finding(
        check="cpuset", group="cgroup", level="note", found=found,
        cost=f"{counted(len(online) - len(mine), 'CPU')} may not be used; {by} says so",
        mend="if that is not meant: AllowedCPUs=, --cpuset-cpus, taskset",
    )  # fmt: skip
