"""Is what the administrator took away left alone? An offline CPU, a cpuset, a quota: each as the kernel enforces it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proof import PROGRAM, WIDTH, check, cpus_of_threads, equal, limited, orchestrator, ran, up


def prove() -> None:
    _an_offline_cpu()
    _a_cpuset()
    _a_quota()


def _an_offline_cpu() -> None:
    switch = Path("/sys/devices/system/cpu/cpu5/online")
    switch.write_text("0")
    try:
        machine, plan = orchestrator("topology"), orchestrator("plan")
        equal("cpu5, offline, is listed as offline",
              [(cpu["online"], cpu["allowed"]) for cpu in machine["cpus"] if cpu["cpu"] == 5], [(False, False)])  # fmt: skip
        check("cpu5, offline, is nowhere in the plan", 5 not in _used(plan) | set(plan["unused_cpus"]), plan)
        why = ran(*PROGRAM, "plan", "--why-not", "5").stdout
        check("plan --why-not 5 says that it is offline", "offline" in why, why)
    finally:
        switch.write_text("1")
    check("cpu5 is back once it is online", all(cpu["online"] for cpu in orchestrator("topology")["cpus"]))


def _a_cpuset() -> None:
    # CPUs of both nodes, memory of one: an instance on the other node must not be bound to memory it may not have.
    inside = limited(AllowedCPUs="2-5", AllowedMemoryNodes="1")
    allowed = {2, 3, 4, 5}
    machine = orchestrator("topology", inside=inside)
    equal("cpuset: topology allows what it holds", {cpu["cpu"] for cpu in machine["cpus"] if cpu["allowed"]}, allowed)
    plan = orchestrator("plan", inside=inside)
    check("cpuset: the plan stays inside", bool(_used(plan)) and _used(plan) <= allowed, plan)
    check("cpuset: memory only from node 1", all(i["membind"] == [1] for i in plan["instances"]), plan["instances"])
    why = ran(*PROGRAM, "plan", "--why-not", "0", inside=inside).stdout
    check("cpuset: plan --why-not 0 names it", "cpuset" in why, why)
    with up("cpuset", "--max-seqlen", "64", inside=inside) as running:
        status = running.status()
        check("cpuset: a text is answered", len(running.embed("rain")[0]) == WIDTH)
        for part in [*status["instances"], *status["gateways"], status["router"]]:
            used = set().union(*cpus_of_threads(part["pid"]).values())
            check(f"cpuset: {part.get('name', 'router')} only on CPUs inside", used <= allowed, used)
        for instance in status["instances"]:
            verified = instance["verified"]
            equal(
                f"cpuset: {instance['name']} is where it was planned",
                (verified["matches_plan"], verified["notes"]),
                (True, []),
            )


def _a_quota() -> None:
    inside = limited(CPUQuota="150%")
    equal("quota: topology says 1.5 CPUs", orchestrator("topology", inside=inside)["quota_cpus"], 1.5)
    free, tight = orchestrator("plan"), orchestrator("plan", inside=inside)
    threads = sum(instance["threads"] for instance in tight["instances"])
    check("quota: no more threads than whole CPUs of it", threads <= 1, tight["instances"])
    check("quota: fewer than without it", threads < sum(instance["threads"] for instance in free["instances"]), free)
    check("quota: the plan names it", "quota" in str(tight), tight)
    refused = ran(*PROGRAM, "plan", "--instances", "4", inside=inside)
    check("quota: four instances are refused with the reason", refused.returncode == 78 and "quota" in refused.stderr,
          (refused.returncode, refused.stdout[-300:], refused.stderr))  # fmt: skip


def _used(plan: Any) -> set[int]:
    return {cpu for instance in plan["instances"] for cpu in instance["cpus"]} | set(plan["housekeeping"]["cpus"])
