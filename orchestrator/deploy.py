"""From a plan and a model to the specification of every process."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec

from orchestrator.allocators import worker_environment
from orchestrator.assemble import AppError, Options, Prelude
from orchestrator.claims import Claims
from orchestrator.config.schema import Layout, ProcessLimits
from orchestrator.gateway.spec import Caches, GatewaySpec, Limits
from orchestrator.keys import KeysError, read_keys
from orchestrator.listening import Listening
from orchestrator.paths import socket_name
from orchestrator.plan.model import PlannedInstance
from orchestrator.router.spec import RouterSpec
from orchestrator.supervisor.backoff import Flapping
from orchestrator.supervisor.core import Timing
from orchestrator.supervisor.deployment import ChildPlan, Deployment
from orchestrator.supervisor.recycle import Ceiling
from workers.lane import SCHEME
from workers.spec import Artefact, WorkerSpec

MOST_GATEWAYS = 8
"""One gateway serves about 7,000 short requests a second; more than eight are a matter of a layout file."""


def deploy(
    before: Prelude, layout: Layout, options: Options, listening: Listening, claims: Claims, world: int = 0
) -> Deployment:
    """From plan and model to the specification of every process.

    A router of another `world` has sockets of its own: while a model takes the place of another one, two routers run.
    """
    prepared, planned = before.prepared, before.plan
    front = f"ipc://{options.runtime / socket_name('front', world)}"
    back = f"ipc://{options.runtime / socket_name('back', world)}"
    local = f"{SCHEME}{options.runtime / socket_name('local', world)}"
    housekeeping = planned.housekeeping
    description = {"model": msgspec.to_builtins(prepared.status), "tokenizer": prepared.tokenizer}
    router = RouterSpec(
        front=front,
        back=back,
        local=local,
        plan=planned,
        description=description,
        cpus=housekeeping.cpus,
        pixel_bytes=4 * math.prod(prepared.artefact.pixels) if prepared.artefact.pixels is not None else 0,
    )
    limits = Limits(
        body_bytes=int(layout.limits.body_mb * (1 << 20)),
        batch=layout.limits.batch,
        in_flight=layout.limits.in_flight,
        truncate=layout.limits.truncate,
        default_timeout_ms=layout.limits.timeout_ms,
    )
    caches = Caches(
        token_bytes=int(layout.caches.tokens_mb * (1 << 20)),
        answer_bytes=int(layout.caches.answers_mb * (1 << 20)),
        join=layout.caches.join,
    )
    count = layout.gateways or (1 if housekeeping.shared else max(1, min(MOST_GATEWAYS, len(housekeeping.cpus) - 1)))
    try:
        keys = read_keys(Path(layout.keys_file)) if layout.keys_file is not None else ()
    except KeysError as error:
        raise AppError(str(error), unworkable=True) from None
    nodes = sum(node.has_memory for node in before.machine.nodes)

    def gateway(name: str) -> Callable[[int], GatewaySpec]:
        return lambda _: GatewaySpec(
            name=name,
            listen_fds=list(listening.fds),
            router=local,
            model=prepared.status,
            tokenizer=prepared.tokenizer,
            limits=limits,
            cpus=housekeeping.cpus,
            caches=caches,
            access=layout.logs.access,
            keys=keys,
        )

    def worker(instance: PlannedInstance) -> Callable[[int], WorkerSpec]:
        return lambda incarnation: WorkerSpec(
            name=instance.name,
            incarnation=incarnation,
            cpus=instance.cpus,
            membind=instance.membind,
            nodes_on_machine=nodes,
            threads=instance.threads,
            endpoint=local,
            max_seqlen=instance.max_seqlen,
            warmup=(
                warmup_shapes(instance, planned.max_batch_tokens)
                if prepared.artefact.pixels is None
                else image_shapes(prepared.artefact, planned.max_batch_tokens)
            ),
            costs=str(options.cache / "costs"),
            artefact=before.artefacts[instance.name],
        )

    return Deployment(
        plan=planned,
        machine=before.machine,
        model=prepared.status,
        children=[
            ChildPlan("router", "router", lambda _: router),
            *(
                ChildPlan(
                    instance.name,
                    "worker",
                    worker(instance),
                    instance.threads,
                    environment=worker_environment(
                        instance.allocator,
                        instance.huge_pages,
                        before.libraries.get(instance.allocator),
                        instance.engine,
                        os.environ,
                    ),
                )
                for instance in planned.instances
            ),
            *(
                ChildPlan(f"gateway-{number}", "gateway", gateway(f"gateway-{number}"), pass_fds=listening.fds)
                for number in range(count)
            ),
        ],
        listening=listening,
        endpoint=listening.endpoint,
        control_socket=options.runtime / "control.sock",
        timing=Timing(start=layout.supervision.start_timeout_s, drain=layout.supervision.drain_timeout_s),
        flapping=Flapping(layout.supervision.flap_failures, layout.supervision.flap_window_s),
        parallel_starts=layout.supervision.parallel_starts,
        ceiling=Ceiling(
            None if layout.supervision.max_rss_mb is None else int(layout.supervision.max_rss_mb * (1 << 20)),
            layout.supervision.max_age_s,
        ),
        limits=resource_limits(layout.supervision.limits),
        warnings=before.machine.warnings,
        description=description,
        chore=claims.attend,
    )


def resource_limits(limits: ProcessLimits) -> dict[int, int]:
    """RLIMIT_… → value, of those that the layout names."""
    named = {
        resource.RLIMIT_NOFILE: limits.nofile,
        resource.RLIMIT_CORE: None if limits.core_mb is None else limits.core_mb << 20,
        resource.RLIMIT_AS: None if limits.address_space_mb is None else limits.address_space_mb << 20,
    }
    return {which: value for which, value in named.items() if value is not None}


def image_shapes(artefact: Artefact, max_batch_tokens: int) -> list[tuple[int, int]]:
    """(batch, length): one image, and as many as a batch holds."""
    return sorted({(1, artefact.positions), (max(1, max_batch_tokens // artefact.positions), artefact.positions)})


def warmup_shapes(instance: PlannedInstance, max_batch_tokens: int) -> list[tuple[int, int]]:
    """(batch, length): the shortest and the longest of its bucket alone, and the largest batch of the shortest."""
    low = max(8, instance.bucket.min if instance.bucket else 1)
    high = min(instance.bucket.max if instance.bucket else instance.max_seqlen, instance.max_seqlen)
    low = min(low, high)
    return sorted({(1, low), (1, high), (max(1, max_batch_tokens // low), low)})
