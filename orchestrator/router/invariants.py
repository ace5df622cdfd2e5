"""Do the router's books add up? For tests, after each step: it looks at everything. Pure."""

from __future__ import annotations

from orchestrator.router.core import RouterCore
from orchestrator.router.events import IN_FLIGHT, Item
from orchestrator.router.policy import prefetch_from
from orchestrator.router.roster import NO_LANE


def validate(core: RouterCore) -> None:
    """AssertionError, with what was found and what was expected, if an invariant of the core does not hold."""
    counts = core.ledger.counts
    if counts.submitted != counts.queued + counts.in_flight + counts.settled:
        raise AssertionError(f"submitted ≠ queued + in flight + settled: {counts}")
    waiting = _check_lanes(core)
    flying = _check_instances(core)
    _expect("queued", counts.queued, len(waiting))
    _expect("in flight", counts.in_flight, len(flying))
    _expect("items held once", len({id(item) for item in (*waiting, *flying)}), len(waiting) + len(flying))
    _expect("states of items in flight", {item.state for item in flying} | {IN_FLIGHT}, {IN_FLIGHT})
    _check_requests(core, [*waiting, *flying])
    tenants = {request.tenant or request.client for request in core.ledger.requests.values()}
    _expect("tenants with requests in progress", len(core.ledger.tenants), len(tenants))
    if any(item.request.unsettled == 0 for item in waiting):
        raise AssertionError("a sequence waits that nobody wants")


def _check_lanes(core: RouterCore) -> list[Item]:
    waiting = []
    for lane in core.roster.lanes:
        lane.queue.validate()
        here = lane.queue.waiting()
        waiting += here
        _expect(f"lane of what waits in lane {lane.index}", {item.lane for item in here} | {lane.index}, {lane.index})
        _expect("idle homes", sorted(one.name for one in lane.idle), sorted(one.name for one in lane.homes if one.idle))
        for home in lane.homes:
            if prefetch_from(home) < lane.prefetch_due:
                raise AssertionError(f"{home.name} could prefetch before its lane looks again")
    _expect("idle instances", core.roster.idle, sum(len(lane.idle) for lane in core.roster.lanes))
    return waiting


def _check_instances(core: RouterCore) -> list[Item]:
    flying = []
    for name, one in core.roster.instances.items():
        if one.prefetched is not None and one.running is None:
            raise AssertionError(f"{name} has a batch prefetched and none running")
        _expect(f"{name} serves", one.serves, one.connected and name not in core.roster.withheld)
        if not one.connected and one.running is not None:
            raise AssertionError(f"{name} is gone and holds a batch")
        if not one.connected and not one.planned:
            raise AssertionError(f"{name} is gone, is not planned, and is still known")
        for flight in (one.running, one.prefetched):
            if flight is not None:
                flying += flight.items
                _expect("holder of the batch", (flight.instance, flight.incarnation), (name, one.incarnation))
                if not flight.items:
                    raise AssertionError(f"batch {flight.batch_id} of {name} is empty")
    _expect("lanes of items in flight", {item.lane for item in flying} | {NO_LANE}, {NO_LANE})
    return flying


def _check_requests(core: RouterCore, held: list[Item]) -> None:
    unanswered: dict[int, int] = {}
    for item in held:
        if item.request.unsettled:
            unanswered[id(item.request)] = unanswered.get(id(item.request), 0) + 1
    requests = core.ledger.requests.values()
    _expect("unanswered sequences", {id(request): request.unsettled for request in requests}, unanswered)
    for request in requests:
        if request.deadline < core.ledger.next_deadline:
            raise AssertionError("a request expires before anybody looks")


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{what}: {found}, expected {expected}")
