"""Does every thread run, and every page lie, where the plan says? Asked of the kernel, thread by thread and page by page."""

from __future__ import annotations

from typing import Any

from proof import WIDTH, bytes_per_node, check, cpus_of_threads, equal, note, orchestrator, pages_unbound, up

OWN_MEMORY_ON_NODE = 0.99
ASKED = ("--instances", "4", "--policy", "by-seqlen")


def prove() -> None:
    planned = orchestrator("plan", *ASKED)
    machine = orchestrator("topology")
    _plan_is_sound(planned, machine)
    with up("placement", *ASKED, "--max-seqlen", "256") as running:
        vector, short = running.embed("I like you. I love you")
        _, long = running.embed("The weather in the mountains was fine. " * 20)
        check("a text is answered with numbers", len(vector) == WIDTH, len(vector))
        check("a short and a long text go to different instances", short != long, (short, long))
        status = running.status()
        equal("as many instances as asked", len(status["instances"]), 4)
        for instance, plan in zip(status["instances"], planned["instances"], strict=True):
            equal(f"{instance['name']}: CPUs and memory are those that `plan` printed",
                  (instance["cpus"], instance["membind"]), (plan["cpus"], plan["membind"]))  # fmt: skip
            _lies_where_planned(instance)
        check("no instance is reported out of place", "NOT AS PLANNED" not in "".join(running.printed), running.printed)
        equal("status has no warnings that the plan had not", status["warnings"], planned["warnings"])


def _plan_is_sound(planned: Any, machine: Any) -> None:
    cpus = {cpu["cpu"]: cpu for cpu in machine["cpus"]}
    with_memory = {node["node"] for node in machine["nodes"] if node["has_memory"]}
    cores = [cpus[cpu]["core"] for instance in planned["instances"] for cpu in instance["cpus"]]
    check("no core is given twice, nor a sibling", len(cores) == len(set(cores)), cores)
    for instance in planned["instances"]:
        name, node = instance["name"], instance["node"]
        equal(f"{name}: all cores on its node", {cpus[cpu]["node"] for cpu in instance["cpus"]}, {node})
        if node in with_memory:
            equal(f"{name}: memory from its node", instance["membind"], [node])
        else:
            check(
                f"{name}: memory from nodes that have some",
                set(instance["membind"]) <= with_memory,
                instance["membind"],
            )


def _lies_where_planned(instance: Any) -> None:
    name, pid, wanted = instance["name"], instance["pid"], set(instance["cpus"])
    threads = cpus_of_threads(pid)
    stray = {tid: cpus for tid, cpus in threads.items() if not cpus <= wanted}
    check(f"{name}: all of its {len(threads)} threads only on CPUs {sorted(wanted)}", not stray, stray)
    nodes = instance["membind"]
    equal(f"{name}: every page is bound to node {nodes}", pages_unbound(pid, nodes), [])
    own, files = bytes_per_node(pid)
    there = sum(own[node] for node in nodes) / max(1, own.total())
    note(f"{name}: own {_in_words(own)}; mapped files {_in_words(files)}")
    check(f"{name}: its own memory on node {nodes}: {there:.2%}", there >= OWN_MEMORY_ON_NODE, _in_words(own))
    equal(f"{name}: status says so", (instance["verified"]["matches_plan"], instance["verified"]["policy"],
          instance["verified"]["cpus"], instance["verified"]["membind"], instance["verified"]["notes"]),
          (True, "bind", sorted(wanted), nodes, []))  # fmt: skip


def _in_words(bytes_: Any) -> str:
    return ", ".join(f"node {node} {count / 1e6:.1f} MB" for node, count in sorted(bytes_.items())) or "nothing"
