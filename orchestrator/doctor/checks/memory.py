"""Is there memory enough, on the right node, in pages that do not cost? Pure.

Sources: Documentation/admin-guide/mm/transhuge.rst and hugetlbpage.rst, sysctl/kernel.rst (numa_balancing), sysctl/vm.rst (swappiness),
mm/mempolicy.c (a bound task is left out of NUMA balancing unless it asks for it), set_mempolicy(2).
"""

from __future__ import annotations

from typing import Final

from orchestrator.config.allocation import allocation_of
from orchestrator.config.words import counted
from orchestrator.doctor.finding import Finding, Level, unknown
from orchestrator.doctor.host import Host, MemoryLimit, Unread
from orchestrator.doctor.words import selected, share, size
from topology.model import Machine

_MIB: Final = 1 << 20
SUPERVISOR_AND_ROUTER: Final = 35 * _MIB
PER_GATEWAY: Final = 60 * _MIB
PER_WORKER: Final = 45 * _MIB
"""Private memory, measured with all-MiniLM-L6-v2 in fp32 after mixed load; the weights are shared by the workers of a node."""
DEFAULT_WEIGHTS: Final = 87 * _MIB
"""Of all-MiniLM-L6-v2 in fp32."""


def transparent_huge_pages(host: Host) -> Finding:
    check = "THP"
    if isinstance(host.thp_enabled, Unread):
        return unknown(check, "memory", host.thp_enabled)
    enabled = selected(host.thp_enabled)
    defrag = selected(host.thp_defrag) if isinstance(host.thp_defrag, str) else "unknown"
    found = f"enabled {enabled}, defrag {defrag}"
    groups = host.layout.instances or (None,)
    wanted = any(allocation_of(host.layout, group).huge_pages == "transparent" for group in groups)
    if enabled == "never" and wanted:
        return Finding(
            check=check, group="memory", level="costs", found=f"{found}, and the layout asks for transparent huge pages",
            cost="the layout's `huge_pages: transparent` does nothing",
            mend="echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )  # fmt: skip
    if enabled == "always" and defrag == "always":
        return Finding(
            check=check, group="memory", level="note", found=found,
            cost="a page fault may stop to compact memory (transhuge.rst); how long has not been measured here",
            mend="echo defer+madvise | sudo tee /sys/kernel/mm/transparent_hugepage/defrag",
        )  # fmt: skip
    return Finding(check=check, group="memory", level="ok", found=found)


def reserved_pages(host: Host) -> Finding:
    check = "huge page pool"
    if isinstance(host.pools, Unread):
        return unknown(check, "memory", host.pools)
    groups = host.layout.instances or (None,)
    wanted = any(allocation_of(host.layout, group).huge_pages == "reserved" for group in groups)
    total = sum(1024 * pool.page_kb * pool.total for pool in host.pools)
    free = sum(1024 * pool.page_kb * pool.free for pool in host.pools)
    if wanted and not free:
        return Finding(
            check=check, group="memory", level="costs", found=f"{size(total)} reserved, none free",
            cost="the layout's `huge_pages: reserved` does nothing: malloc takes ordinary pages",
            mend="echo N | sudo tee /proc/sys/vm/nr_hugepages, per node under /sys/devices/system/node/nodeM/hugepages",
        )  # fmt: skip
    if free and not wanted:
        return Finding(
            check=check, group="memory", level="note", found=f"{size(free)} of {size(total)} reserved pages lie unused",
            cost="memory that nothing here can use unless the layout says `huge_pages: reserved`",
            mend="echo 0 | sudo tee /proc/sys/vm/nr_hugepages, if nobody else wants them",
        )  # fmt: skip
    return Finding(
        check=check,
        group="memory",
        level="ok",
        found=f"{size(free)} of {size(total)} free" if total else "none reserved",
    )


def numa_balancing(host: Host) -> Finding:
    check = "NUMA balancing"
    if isinstance(host.numa_balancing, Unread):
        if _nodes(host) < 2 and not isinstance(host.machine, Unread):
            return Finding(check=check, group="memory", level="ok", found="not in this kernel, and one node needs none")
        return unknown(check, "memory", host.numa_balancing)
    nodes = _nodes(host)
    if host.numa_balancing == "0" or nodes < 2:
        found = "off" if host.numa_balancing == "0" else f"on, with {counted(nodes, 'node')}: nothing to balance"
        return Finding(check=check, group="memory", level="ok", found=found)
    bound = not isinstance(host.memory_policy, Unread) and host.memory_policy.ok
    return Finding(
        check=check,
        group="memory",
        level="note" if bound else "costs",
        found=f"on, {nodes} nodes",
        cost="the kernel leaves bound workers alone; router and gateways pay faults for its sampling"
        if bound
        else "it unmaps pages to sample them and may move weights while they are read: faults in every instance "
        "(numa_balancing in sysctl/kernel.rst)",
        mend="sudo sysctl kernel.numa_balancing=0",
    )


def _nodes(host: Host) -> int:
    machine: Machine | Unread = host.machine
    return 1 if isinstance(machine, Unread) else max(1, sum(node.has_memory for node in machine.nodes))


def libnuma(host: Host) -> Finding:
    if isinstance(host.libnuma, Unread):
        return unknown("libnuma", "memory", host.libnuma)
    if host.libnuma.ok:
        return Finding(check="libnuma", group="memory", level="ok", found=host.libnuma.said)
    if host.libnuma.died:
        return _deadly("libnuma", host.libnuma.said)
    several = _nodes(host) > 1
    return Finding(
        check="libnuma",
        group="memory",
        level="broken" if several else "ok",
        found=host.libnuma.said if several else "not there, and one node needs none",
        cost="with several nodes `up` refuses to start without it" if several else "",
        mend="apt-get install libnuma1, dnf install numactl-libs" if several else "",
    )


def policy(host: Host) -> Finding:
    """Whether a worker may bind its memory: tried."""
    check = "memory policy"
    if isinstance(host.memory_policy, Unread):
        return unknown(check, "memory", host.memory_policy)
    if host.memory_policy.ok:
        return Finding(check=check, group="memory", level="ok", found=host.memory_policy.said)
    if host.memory_policy.died:
        return _deadly(check, host.memory_policy.said)
    several = _nodes(host) > 1
    return Finding(
        check=check,
        group="memory",
        level="costs" if several else "ok",
        found=host.memory_policy.said if several else f"one node needs none ({host.memory_policy.said})",
        cost="memory is preferred or local, not bound: it goes to another node once this one is full"
        if several
        else "",
        mend="--cap-add SYS_NICE, or a seccomp profile that allows set_mempolicy and migrate_pages" if several else "",
    )


def _deadly(check: str, how: str) -> Finding:
    return Finding(
        check=check, group="memory", level="broken", found=how, cost="workers end as this child did, at every start",
        mend="a seccomp profile that allows get_mempolicy and set_mempolicy, or refuses them with an error (SCMP_ACT_ERRNO)",
    )  # fmt: skip


def swap(host: Host) -> Finding:
    if isinstance(host.swaps, Unread):
        return unknown("swap", "memory", host.swaps)
    if not host.swaps:
        return Finding(check="swap", group="memory", level="ok", found="none")
    total, used = sum(each.bytes for each in host.swaps), sum(each.used_bytes for each in host.swaps)
    tendency = f", swappiness {host.swappiness}" if isinstance(host.swappiness, str) else ""
    low = isinstance(host.swappiness, str) and host.swappiness.isdigit() and int(host.swappiness) <= 10
    return Finding(
        check="swap",
        group="memory",
        level="ok" if low and not used else "note",
        found=f"{size(total)}, {size(used)} of it used{tendency}",
        cost="" if low and not used else "weights that were swapped out are read from disk in the middle of a request",
        mend="" if low and not used else "sudo sysctl vm.swappiness=1, or MemorySwapMax=0 in the unit",
    )


def needed(host: Host) -> tuple[int, str] | None:
    """Bytes that the layout needs at least, and how that is counted; None where the model's size is not known."""
    weights = host.weights_bytes
    if weights is None:
        if host.layout.model is not None:
            return None
        weights = DEFAULT_WEIGHTS
    gateways = host.layout.gateways or 1
    copies = _nodes(host) if host.instances > 1 else 1
    total = SUPERVISOR_AND_ROUTER + gateways * PER_GATEWAY + host.instances * PER_WORKER + copies * weights
    each = "" if copies == 1 else f" on {copies} nodes"
    how = f"{counted(host.instances, 'instance')}, {counted(gateways, 'gateway')}, {size(weights)} of weights{each}"
    return total, how


def limit(host: Host) -> Finding:
    """Of the cgroup, else of the machine, against what runs or, where nothing does, what the layout needs."""
    check = "memory limit"
    group = host.running.memory if not isinstance(host.running, Unread) else host.memory
    if isinstance(group, MemoryLimit) and group.kills:
        its_limit = "without a limit of its own" if group.bytes is None else f"limit {size(group.bytes)}"
        return Finding(
            check=check, group="memory", level="costs",
            found=f"{group.kills} killed for want of memory: {group.where}, {its_limit}",
            cost="each is a worker to start anew and its batch to repeat",
            mend="raise memory.max (MemoryMax=, docker --memory), or plan fewer instances",
        )  # fmt: skip
    total, available = host.total_memory, host.available_memory
    if isinstance(group, MemoryLimit) and group.bytes is not None:
        limited, used, where = group.bytes, group.used_bytes, group.where
    elif isinstance(total, Unread):
        return unknown(check, "memory", total)
    else:
        limited, used, where = total, None if isinstance(available, Unread) else total - available, "this machine"
    if isinstance(host.running, Unread) or used is None:
        return _wanted(check, where, limited, host)
    return _used(check, where, limited, used)


def _wanted(check: str, where: str, limited: int, host: Host) -> Finding:
    need = needed(host)
    if need is None:
        return Finding(
            check=check, group="memory", level="unknown",
            found=f"{size(limited)} ({where}); the size of {host.layout.model} is known once the cache has it",
        )  # fmt: skip
    least, how = need
    level: Level = "broken" if limited < least else "note" if limited < 2 * least else "ok"
    return Finding(
        check=check,
        group="memory",
        level=level,
        found=f"{size(limited)} ({where}); about {size(least)} needed at least: {how}",
        cost={
            "broken": "workers are killed as they load, or while they compute",
            "note": "little is left for large batches: an engine's arena grows with every new shape (onnxruntime issue 9313)",
        }.get(level, ""),
        mend=""
        if level == "ok"
        else "raise memory.max (MemoryMax=, docker --memory), or give --instances a smaller number",
    )


def _used(check: str, where: str, limit_bytes: int, used: int) -> Finding:
    tight = used > 0.9 * limit_bytes
    return Finding(
        check=check,
        group="memory",
        level="costs" if tight else "ok",
        found=f"{size(used)} of {size(limit_bytes)} used ({share(used, limit_bytes)}; {where})",
        cost="close to it the kernel reclaims in the middle of requests, and beyond it kills" if tight else "",
        mend="raise memory.max (MemoryMax=, docker --memory), or plan fewer instances" if tight else "",
    )
