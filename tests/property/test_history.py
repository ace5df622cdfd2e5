"""Does the past stay whole and bounded, whatever documents come?"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.history import COARSE_POINTS, FINE_POINTS
from orchestrator.status import (
    GatewayStatus,
    InstanceStatus,
    MachineStatus,
    ModelStatus,
    Quantiles,
    RouterStatus,
    Status,
)
from orchestrator.supervisor.past import INSTANCE_COLUMNS, Past

NAMES = [f"one-{number}" for number in range(4)]
STATES: list[Any] = ["ready", "starting", "backoff", "failed"]

instances = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(STATES), st.floats(0, 1e5), st.none() | st.floats(0, 1e4), st.integers(0, 999)),
)
# Seconds until the next document, who is there, and by how much the refusals grow (None: the router begins anew).
steps = st.lists(
    st.tuples(st.sampled_from([0.1, 1.1, 2.0, 7.0, 61.0, 700.0]), instances, st.none() | st.integers(0, 5)), max_size=60
)


def document(at: float, there: dict[str, tuple[Any, float, float | None, int]], refused: int) -> Status:
    return Status(
        version="", state="ready", time_unix=1e9 + at, uptime_seconds=at, window_seconds=10.0, pid=1, endpoint="",
        policy="by-seqlen", model=ModelStatus("m", "t", "a", "fp32", "e", 1, 1, "d", "a"),
        router=RouterStatus("ready", rejected={"queue_full": refused}), gateways=[GatewayStatus("gateway-0", "ready")],
        instances=[
            InstanceStatus(
                name=name, cpus=[], node=None, membind=[], threads=1, bucket=None, max_seqlen=1, reasons=[], state=state,
                pid=1, incarnation=1, restarts=0, verified=None, ready_seconds=None, last_error=None, rss_bytes=None,
                sequences_per_second=rate, latency_ms=Quantiles(p99, p99, p99), queue_depth=queue,
            )
            for name, (state, rate, p99, queue) in there.items()
        ],
        housekeeping_cpus=[], unused_cpus=[], machine=MachineStatus("", 1, 1, 1, []), warnings=[],
    )  # fmt: skip


@given(steps)
def test_every_column_has_a_value_per_point_and_no_growth_is_lost_or_told_twice(script: Any) -> None:
    past = Past()
    at, refused, grown, pending, shown = 0.0, 0, 0, 0, -1
    for wait, there, more in script:
        at += wait
        begins_anew = more is None
        refused = 0 if begins_anew else refused + more
        pending = 0 if begins_anew else pending + more
        past.record(document(at, there, refused))
        past.validate()
        if int(at // 2) > shown:  # only then a point was made, and what had grown is in it
            shown = int(at // 2)
            grown, pending = grown + pending, 0
    for step, most in ((2, FINE_POINTS), (60, COARSE_POINTS + 1)):
        found = past.document(step, 1e9, version="", pid=1, time_unix=1e9 + at, uptime_seconds=at)  # type: ignore[arg-type]
        assert len(found.points) <= most
        assert found.points == sorted(set(found.points))
        for one in found.instances:
            columns = [one.state, one.sequences_per_second, one.tokens_per_second, one.latency_ms.p50, one.latency_ms.p99,
                       one.queue_depth, one.batch_mean, one.padding_ratio, one.busy_ratio, one.cpu_ratio, one.rss_bytes]  # fmt: skip
            assert len(columns) == len(INSTANCE_COLUMNS)
            assert {len(column) for column in columns} == {len(found.points)}
            assert [state is None for state in one.state] == [queue is None for queue in one.queue_depth]
        assert {growth.uptime_seconds for growth in found.grown} <= set(found.points)
        if all(more is not None for _, _, more in script):
            assert sum(growth.count for growth in found.grown) == grown
