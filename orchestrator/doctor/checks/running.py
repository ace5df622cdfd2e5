"""Is the running orchestrator where it was planned, and as well as it could be? Pure."""

from __future__ import annotations

from typing import Final

from orchestrator.config.words import counted, cpus_in_words
from orchestrator.doctor.finding import Finding, unknown
from orchestrator.doctor.host import Host, Unread
from orchestrator.doctor.words import share, size

REMOTE_MEMORY: Final = 0.05
"""Of an instance's anonymous memory: below it lies what the interpreter touched before it was bound."""


def state(host: Host) -> Finding:
    if isinstance(host.running, Unread):
        return _without_status(host, host.running)
    status = host.running.status
    ready = sum(each.state == "ready" for each in status.instances)
    found = f"pid {status.pid}, {status.state}: {ready} of {counted(len(status.instances), 'instance')} ready, {status.endpoint}"
    down = [
        f"{each.name} {each.state}: {each.last_error}"
        for each in status.instances
        if each.state in ("failed", "backoff")
    ]
    again = sum(each.restarts for each in status.instances)
    if down or (ready == 0 and status.state != "starting"):
        return Finding(
            check="orchestrator", group="running", level="broken", found="; ".join([found, *down]),
            cost=f"{counted(len(status.instances) - ready, 'instance')} of {len(status.instances)} do not serve",
            mend="orchestrator status; orchestrator logs INSTANCE",
        )  # fmt: skip
    if again:
        return Finding(
            check="orchestrator", group="running", level="note", found=f"{found}; {counted(again, 'restart')} of instances",
            cost="each takes a start-up of capacity", mend="orchestrator status says why the last one ended",
        )  # fmt: skip
    return Finding(check="orchestrator", group="running", level="ok", found=found)


def _without_status(host: Host, why: Unread) -> Finding:
    if not host.live or host.answer == "refused":
        return unknown("orchestrator", "running", why)
    if host.answer == "absent":
        return Finding(check="orchestrator", group="running", level="ok", found="none runs here")
    if host.answer == "starting":
        found = "one is starting: it holds the lock and has no status yet"
        return Finding(check="orchestrator", group="running", level="note", found=found)
    return Finding(
        check="orchestrator", group="running", level="broken", found=why.why, cost="nothing is supervised while it hangs",
        mend="kill -CONT, if it was stopped; else kill -KILL its pid (in the file `lock` of the runtime folder) and start it again",
    )  # fmt: skip


def placement(host: Host) -> Finding | None:
    """What the kernel says of each worker against the plan."""
    if isinstance(host.running, Unread):
        return None
    instances = host.running.status.instances
    astray = [
        f"{each.name}: {'; '.join(each.verified.notes)}"
        for each in instances
        if each.verified is not None and not each.verified.matches_plan
    ]
    now = {each.name: each.cpus for each in host.running.processes}
    told = {each.name for each in instances if each.verified is not None and not each.verified.matches_plan}
    for each in instances:  # what the supervisor has read back may be some seconds old
        stray = (now.get(each.name) or frozenset()) - set(each.cpus)
        if stray and each.name not in told:
            astray.append(f"{each.name}: its threads may run on {cpus_in_words(stray)}, outside the plan")
    read = sum(each.verified is not None for each in instances)
    if astray:
        return Finding(
            check="placement", group="running", level="costs", found=" | ".join(astray),
            cost="instances in each other's cores or away from their memory wait for one another",
            mend="whoever moved them (taskset, another supervisor): ps -eo pid,psr,comm; then restart the instance",
        )  # fmt: skip
    found = f"{read} of {counted(len(instances), 'instance')} read back from the kernel" + (
        ", as planned" if read else ""
    )
    return Finding(check="placement", group="running", level="ok", found=found)


def remote_memory(host: Host) -> Finding | None:
    """Anonymous memory of workers on nodes that the plan does not name."""
    if isinstance(host.running, Unread):
        return None
    planned = {each.name: set(each.membind) for each in host.running.status.instances}
    far, shown = [], []
    for process in host.running.processes:
        wanted = planned.get(process.name)
        if not wanted or not process.pages_by_node:
            continue
        total = sum(process.pages_by_node.values())
        away = sum(count for node, count in process.pages_by_node.items() if node not in wanted)
        shown.append(f"{process.name} {share(away, total)}")
        if total and away / total > REMOTE_MEMORY:
            far.append(
                f"{process.name}: {size(away)} of {size(total)} ({share(away, total)}) not on node {sorted(wanted)}"
            )
    if not shown:
        return unknown(
            "remote memory", "running", Unread("no worker's numa_maps can be read: another user's, or one node")
        )
    if far:
        return Finding(
            check="remote memory", group="running", level="costs", found="; ".join(far),
            cost="every access to it crosses between nodes; published: keeping to one node gained onnxruntime about 20 %",
            mend="orchestrator restart INSTANCE; if it comes back, free memory on its node",
        )  # fmt: skip
    return Finding(check="remote memory", group="running", level="ok", found=", ".join(shown))


def swapped(host: Host) -> Finding | None:
    if isinstance(host.running, Unread):
        return None
    out = [f"{each.name} {size(each.swapped_bytes)}" for each in host.running.processes if each.swapped_bytes]
    if not out:
        return Finding(check="swapped out", group="running", level="ok", found="nothing of its processes")
    return Finding(
        check="swapped out", group="running", level="costs", found=", ".join(out),
        cost="the next request that needs it waits for the disk",
        mend="free memory, then swapoff -a && swapon -a; sysctl vm.swappiness=1 or MemorySwapMax=0 for the future",
    )  # fmt: skip


def allocators(host: Host) -> Finding | None:
    """Which allocator each worker has: its memory map says."""
    if isinstance(host.running, Unread):
        return None
    named = {each.name: each.verified.allocator for each in host.running.status.instances if each.verified}
    own = {name: allocator for name, allocator in named.items() if allocator not in (None, "system")}
    if not own:
        return None
    return Finding(
        check="allocators",
        group="running",
        level="ok",
        found=", ".join(f"{name} has {which}" for name, which in own.items()),
    )
