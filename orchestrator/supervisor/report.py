"""What does the supervisor say of the whole? The Status document, from what each part last reported. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator import __version__
from orchestrator.plan.model import Plan, PlannedInstance
from orchestrator.status import (
    CpuStatus,
    Event,
    GatewayStatus,
    InstanceNumbers,
    InstanceReport,
    InstanceStatus,
    MachineStatus,
    ModelStatus,
    RouterReport,
    RouterStatus,
    Status,
    Verified,
)
from orchestrator.supervisor.core import Child
from orchestrator.supervisor.deployment import LeftOut
from orchestrator.supervisor.states import State
from topology.model import Machine


class Observed:
    """What is known of one child beside its core: gathered by the runner."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.rss_bytes: int | None = None
        self.cpu_seconds: float | None = None
        self.verified: Verified | None = None
        self.ready_seconds: float | None = None
        self.engine_cpu_seconds = 0.0


class Totals:
    """Counters that outlive a router: what earlier routers counted, plus what the present one counts."""

    COUNTERS = (
        "served", "batches", "tokens", "padded_tokens", "stolen", "latency_sum_seconds", "sequences", "wait_seconds",
        "service_seconds", "predicted_seconds", "retried",
    )  # fmt: skip

    def __init__(self) -> None:
        self._earlier: dict[str, InstanceReport] = {}
        self._present: dict[str, InstanceReport] = {}

    def update(self, report: RouterReport) -> None:
        self._present = {instance.name: instance for instance in report.instances}

    def router_gone(self) -> None:
        self._earlier.update({name: self.of(name) for name in self._present})
        self._present = {}

    def of(self, name: str) -> InstanceReport:
        """The present report with the earlier counts added; zeros for an instance of which nothing is known."""
        present = self._present.get(name)
        earlier = self._earlier.get(name)
        if present is None:
            base = InstanceReport(name, 0, False)
            if earlier is not None:
                for counter in self.COUNTERS:
                    setattr(base, counter, getattr(earlier, counter))
                base.latency_buckets = list(earlier.latency_buckets)
            return base
        if earlier is None:
            return present
        both = InstanceReport(**{field: getattr(present, field) for field in present.__struct_fields__})
        for counter in self.COUNTERS:
            setattr(both, counter, getattr(present, counter) + getattr(earlier, counter))
        if len(earlier.latency_buckets) == len(present.latency_buckets):
            both.latency_buckets = [
                a + b for a, b in zip(earlier.latency_buckets, present.latency_buckets, strict=True)
            ]
        return both


def overall_state(
    *, draining: bool, router: State, gateways: Sequence[State], instances: Sequence[State], ever_served: bool
) -> str:
    """starting | ready | degraded | draining: degraded means that it serves, but not with all that was planned."""
    if draining:
        return "draining"
    everything = (router, *gateways, *instances)
    if all(state is State.READY for state in everything):
        return "ready"
    serving = router is State.READY and State.READY in gateways and State.READY in instances
    if ever_served:
        return "degraded"
    return "degraded" if serving and State.FAILED in everything else "starting"


def instance_status(
    planned: PlannedInstance, child: Child | None, seen: Observed, numbers: InstanceReport
) -> InstanceStatus:
    """`child` is None where it is planned and not there yet."""
    return InstanceStatus(
        name=planned.name,
        cpus=planned.cpus,
        node=planned.node,
        membind=planned.membind,
        threads=planned.threads,
        bucket=planned.bucket,
        max_seqlen=planned.max_seqlen,
        reasons=planned.reasons,
        state=child.state.value if child is not None else "initial",
        pid=seen.pid,
        incarnation=child.incarnation if child is not None else 0,
        restarts=child.restarts if child is not None else 0,
        verified=seen.verified if seen.pid is not None else None,
        ready_seconds=seen.ready_seconds,
        last_error=child.last_error if child is not None else None,
        rss_bytes=seen.rss_bytes,
        **{field: getattr(numbers, field) for field in InstanceNumbers.__struct_fields__},
        cpu_seconds=seen.cpu_seconds,
        engine_cpu_seconds=seen.engine_cpu_seconds,
        precision=planned.precision,
        engine=planned.engine,
    )


def left_out_status(left_out: LeftOut, numbers: InstanceReport) -> InstanceStatus:
    """Of an instance that the plan does without."""
    shown = instance_status(left_out.instance, None, Observed(), numbers)
    return msgspec.structs.replace(shown, state="failed", last_error=left_out.why)


def machine_status(machine: Machine, plan: Plan) -> MachineStatus:
    """The map of who runs where; it does not change while a plan is in force."""
    users: dict[int, str] = dict.fromkeys(plan.housekeeping.cpus, "housekeeping")
    for instance in plan.instances:
        users.update(dict.fromkeys(instance.cpus, instance.name))
    core_owner = {
        cpu.core: users[cpu.cpu]
        for cpu in machine.cpus
        if cpu.core is not None and users.get(cpu.cpu, "housekeeping") != "housekeeping"
    }
    cpus = [
        CpuStatus(
            cpu=cpu.cpu, package=cpu.package, node=cpu.node, core=cpu.core, smt_rank=cpu.smt_rank, llc=cpu.llc,
            online=cpu.online, allowed=cpu.allowed, used_by=users.get(cpu.cpu),
            sibling_of=core_owner.get(cpu.core) if cpu.core is not None and cpu.cpu not in users else None,
        )
        for cpu in machine.cpus
    ]  # fmt: skip
    cores = {cpu.core for cpu in machine.cpus if cpu.core is not None}
    return MachineStatus(machine.model_name, len(machine.packages), len(machine.nodes), len(cores), cpus)


def status(
    *,
    state: str,
    now_unix: float,
    uptime: float,
    window: float,
    pid: int,
    endpoint: str,
    plan: Plan,
    model: ModelStatus,
    router: RouterStatus,
    gateways: list[GatewayStatus],
    instances: list[InstanceStatus],
    machine: MachineStatus,
    warnings: Sequence[str],
    changing: str = "",
    events: Sequence[Event] = (),
) -> Status:
    return Status(
        version=__version__,
        state=state,
        time_unix=now_unix,
        uptime_seconds=uptime,
        window_seconds=window,
        pid=pid,
        endpoint=endpoint,
        policy=plan.policy,
        model=model,
        router=router,
        gateways=gateways,
        instances=instances,
        housekeeping_cpus=plan.housekeeping.cpus,
        unused_cpus=plan.unused_cpus,
        machine=machine,
        warnings=list(warnings),
        changing=changing,
        events=list(events),
    )
