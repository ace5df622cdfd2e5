"""Does simulated time pass as it would? Small worlds whose figures can be worked out by hand, and the real core's invariants throughout."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec
import pytest

from orchestrator.config.schema import Policy
from orchestrator.plan.model import Plan
from orchestrator.router.core import RouterCore
from orchestrator.router.invariants import validate
from orchestrator.simulate.costs import Crowd, TrueCosts
from orchestrator.simulate.mixes import MIXES
from orchestrator.simulate.traffic import ClosedLoop, OpenLoop, Trace
from orchestrator.simulate.world import Delays, Settings, World, capacity

PlanOf = Callable[..., Plan]
TraceOf = Callable[..., Trace]
POLICIES = get_args(Policy)
TWO = (("small", 1, 32), ("large", 33, 512))


def test_a_lone_request_takes_its_service_time_and_the_messages(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf
) -> None:
    delays = Delays(front=1e-3, back=2e-3, submit=3e-3, done=4e-3, reply=5e-3, worker=6e-3)
    world = World(
        planned("by-seqlen", ("all", 1, 512)), costs, trace((0.5, 100)), Settings(seconds=2.0, noise=0.0, delays=delays)
    )
    world.run()
    # 10 ms of computing; in and out by the front, to the worker and back, and the shares of router and worker.
    assert world.row("x").latency.p50_ms == pytest.approx(10 + 2 * 1 + 2 * 2 + 3 + 4 + 5 + 6)


def test_what_arrives_while_the_worker_is_busy_waits_for_it(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    world = World(
        planned("least-loaded", ("all", 1, 512)),
        costs,
        trace((0.0, 400), (0.01, 20)),
        Settings(seconds=1.0, noise=0.0, delays=no_delays),
    )
    world.run()
    row = world.row("x")
    assert row.classes["long"].p50_ms == pytest.approx(40.0)
    assert row.classes["short"].p50_ms == pytest.approx(40.0 - 10.0 + 2.0)


def test_a_bucket_of_its_own_keeps_short_text_from_waiting_behind_long(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    world = World(
        planned("by-seqlen-strict", *TWO),
        costs,
        trace((0.0, 400), (0.01, 20)),
        Settings(seconds=1.0, noise=0.0, delays=no_delays),
    )
    world.run()
    assert world.row("x").classes["short"].p50_ms == pytest.approx(2.0)


def test_an_instance_with_costs_of_its_own_takes_as_long_as_these_say(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    points = [msgspec.structs.replace(point, seconds=point.seconds / 4) for point in costs.file.points]
    fast = TrueCosts(msgspec.structs.replace(costs.file, points=points))
    world = World(
        planned("by-seqlen-strict", *TWO), costs, trace((0.0, 400), (0.1, 20)),
        Settings(seconds=1.0, noise=0.0, delays=no_delays), of_instance={"large": fast},
    )  # fmt: skip
    world.run()
    row = world.row("x")
    assert row.classes["long"].p50_ms == pytest.approx(10.0)
    assert row.classes["short"].p50_ms == pytest.approx(2.0)


def test_who_computes_beside_others_is_the_slower_the_more_cores_they_have(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    crowded = TrueCosts(msgspec.structs.replace(costs.file, crowded=[Crowd(20, 1.5), Crowd(40, 2.0)]))
    three = (*TWO, ("other", 1, 32))
    world = World(
        planned("by-seqlen-strict", *three), crowded, trace((0.0, 400), (0.001, 30)),
        Settings(seconds=1.0, noise=0.0, delays=no_delays),
    )  # fmt: skip
    world.run()
    row = world.row("x")
    assert row.classes["long"].p50_ms == pytest.approx(40.0)  # nobody else computed when it began
    assert row.classes["short"].p50_ms == pytest.approx(3.0 * (1 + 0.75 / 2))  # of two others one did


def test_a_front_end_on_cores_of_instances_holds_their_batches_up(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    settings = Settings(seconds=1.0, noise=0.0, delays=msgspec.structs.replace(no_delays, front_cpu=1e-3))
    shared = planned("by-seqlen", ("all", 1, 512))
    apart = msgspec.structs.replace(shared, housekeeping=msgspec.structs.replace(shared.housekeeping, shared=False))
    for plan, milliseconds in ((shared, 41.0), (apart, 40.0)):
        world = World(plan, costs, trace((0.0, 400)), settings)
        world.run()
        assert world.row("x").latency.p50_ms == pytest.approx(milliseconds)


def test_utilisation_is_the_share_of_the_window_that_the_engine_was_busy(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    world = World(
        planned("by-seqlen-strict", *TWO),
        costs,
        trace((0.5, 400)),
        Settings(seconds=1.0, warm_up=0.5, noise=0.0, delays=no_delays),
    )
    world.run()
    assert [one.utilisation for one in world.row("x").instances] == [0.0, pytest.approx(0.08)]


def test_what_is_due_in_the_warm_up_is_not_counted(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    world = World(
        planned("least-loaded", ("all", 1, 512)),
        costs,
        trace((0.1, 20), (0.6, 20)),
        Settings(seconds=1.0, warm_up=0.5, noise=0.0, delays=no_delays),
    )
    world.run()
    row = world.row("x")
    assert (row.latency.count, row.per_second) == (1, 2.0)


def test_a_request_that_cannot_wait_is_refused_and_counted(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    plan = planned("by-seqlen-strict", ("all", 1, 512), queue_limit=1)
    world = World(
        plan,
        costs,
        trace((0.0, 500), (0.001, 500), (0.002, 500), (0.003, 500)),
        Settings(seconds=1.0, noise=0.0, delays=no_delays),
    )
    world.run()
    row = world.row("x")
    assert row.refused == {"queue_full": 2}
    assert row.latency.count == 2


def test_a_deadline_that_passes_in_the_queue_is_a_refusal(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    world = World(
        planned("least-loaded", ("all", 1, 512)),
        costs,
        trace((0.0, 500), (0.001, 500)),
        Settings(seconds=1.0, noise=0.0, timeout_ms=20, delays=no_delays),
    )
    world.run()
    # The first is in flight when its deadline passes; the second never starts.
    assert world.row("x").refused == {"deadline": 2}


def test_spilled_is_what_a_larger_instance_took_and_stolen_what_a_smaller_one_did(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    def taken(*arrivals: tuple[float, int]) -> tuple[int | None, int | None]:
        world = World(
            planned("by-seqlen", *TWO), costs, trace(*arrivals), Settings(seconds=1.0, noise=0.0, delays=no_delays),
        )  # fmt: skip
        world.run()
        row = world.row("x")
        return row.spilled, row.stolen

    assert taken((0.0, 32), (0.0001, 32)) == (1, 0)
    assert taken((0.0, 500), (0.0001, 500)) == (0, 1)


def test_more_threads_shorten_only_what_scales(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, no_delays: Delays
) -> None:
    world = World(
        planned("least-loaded", ("all", 1, 512), threads=4),
        costs,
        trace((0.0, 400)),
        Settings(seconds=1.0, noise=0.0, delays=no_delays),
    )
    world.run()
    assert world.row("x").latency.p50_ms == pytest.approx(40.0 * (0.5 + 0.5 / 4))


@pytest.mark.parametrize("policy", POLICIES)
def test_the_books_of_the_core_add_up_after_every_event(policy: Policy, costs: TrueCosts, planned: PlanOf) -> None:
    looked = 0

    def check(core: RouterCore) -> None:
        nonlocal looked
        looked += 1
        validate(core)

    plan = planned(policy, *TWO, ("large-1", 33, 512), queue_limit=20)
    traffic = OpenLoop(900.0, MIXES["mixed"], 0.5, bursty=True)
    world = World(plan, costs, traffic, Settings(seconds=0.5, timeout_ms=60), check=check)
    world.run()
    counts = world.core.ledger.counts
    assert counts.submitted == counts.settled > 200
    assert looked > 400


def figures(policy: Policy, seed: int, costs: TrueCosts, plan: Plan) -> bytes:
    world = World(plan, costs, OpenLoop(300.0, MIXES["mixed"], 2.0, bursty=True), Settings(seconds=2.0, seed=seed))
    world.run()
    return msgspec.json.encode(world.row(policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_seeds_give_equal_figures_to_the_last_digit_and_others_do_not(
    policy: Policy, costs: TrueCosts, planned: PlanOf
) -> None:
    plan = planned(policy, *TWO)
    assert figures(policy, 7, costs, plan) == figures(policy, 7, costs, plan)
    assert figures(policy, 7, costs, plan) != figures(policy, 8, costs, plan)


def test_policies_are_compared_on_the_same_requests_at_the_same_times() -> None:
    traffic = OpenLoop(200.0, MIXES["mixed"], 2.0)
    assert list(traffic.arrivals(3)) == list(traffic.arrivals(3))


def test_clients_that_wait_never_have_more_in_flight_than_there_are(costs: TrueCosts, planned: PlanOf) -> None:
    most = 0

    def look(core: RouterCore) -> None:
        nonlocal most
        most = max(most, core.ledger.counts.queued + core.ledger.counts.in_flight)

    plan = planned("shortest-completion", *TWO)
    world = World(plan, costs, ClosedLoop(5, MIXES["mixed"], 1.0), Settings(seconds=1.0), check=look)
    world.run()
    assert most == 5


def test_a_slow_instance_gets_less_although_nobody_said_so(costs: TrueCosts, planned: PlanOf) -> None:
    plan = planned("shortest-completion", ("a", 1, 512), ("b", 1, 512))
    world = World(
        plan,
        costs,
        OpenLoop(60.0, MIXES["mixed"], 10.0),
        Settings(seconds=10.0, slow={"b": 4.0}),
    )
    world.run()
    fast, slow = world.row("x").instances
    assert slow.sequences < fast.sequences / 3


def test_capacity_is_what_all_instances_could_do_one_at_a_time(costs: TrueCosts, planned: PlanOf) -> None:
    assert capacity(planned("by-seqlen", *TWO), costs, [(100, 0.5), (200, 0.5)]) == pytest.approx(2 / 0.015)


def test_a_worker_given_more_than_its_credit_is_an_error_of_the_router(
    costs: TrueCosts, planned: PlanOf, trace: TraceOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.simulate.world.CREDIT", 0)
    world = World(planned("least-loaded", ("all", 1, 512)), costs, trace((0.0, 20)), Settings(seconds=1.0))
    with pytest.raises(AssertionError, match="beyond its credit"):
        world.run()
