"""Which lines do the same as the plan by hand? Pure.

The script runs its arguments once per instance, bound as the orchestrator would bind it: `sh start.sh python3 serve.py`.
"""

from __future__ import annotations

from orchestrator.plan.model import Plan, PlannedInstance
from topology.cpuset import format_cpulist


def numactl_script(plan: Plan) -> str:
    """A POSIX shell script with one numactl line per instance."""
    lines = ["#!/bin/sh", "# Runs the command in the arguments once per instance."]
    for instance in plan.instances:
        lengths = f", {instance.bucket.min} to {instance.bucket.max} tokens" if instance.bucket is not None else ""
        lines += [f"# {instance.name}{lengths}", f'{_line(instance)} "$@" &']
    return "\n".join([*lines, "wait"])


def _line(instance: PlannedInstance) -> str:
    bind = f" --membind={format_cpulist(instance.membind)}" if instance.membind else ""
    cpus = f"--physcpubind={format_cpulist(instance.cpus)}"
    return f"OMP_NUM_THREADS={instance.threads} numactl {cpus}{bind} --"
