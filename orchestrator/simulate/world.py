"""What happens when? The router that ships, on a virtual clock, with simulated workers and clients. Pure.

Theory of operation. A heap of events in order of time. What reaches the router is handled by the real `RouterCore`, one event after the
other as in its process, each taking the time that the process was measured to take: a router that cannot keep up queues
here as it does there. Its Dispatch actions reach a worker after a message's delay. A worker is that of `workers.loop`: one batch at a
time, the next in its socket, at most two in all. A batch takes the true cost (`TrueCosts`), which the router does not
know, times log-normal noise. Timers fire on the next whole millisecond, as the poller's do.

Cores compute the slower the more others compute beside them, as far as the cost table says by how much (`crowding`). Where
housekeeping shares the cores of instances, a batch is held up by what router and gateway take for it (`Delays.front_cpu`).

Left out: gateways on cores of their own (assumed to keep up), failures. Everything random comes from streams of their own, seeded by
text, so that a run is the same to the last digit on every machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush
from math import ceil, exp, inf
from random import Random
from typing import Any, Final, assert_never

import msgspec

from orchestrator.bench.rows import InstanceRow, LoadRow, latency
from orchestrator.plan.model import Plan, PlannedInstance
from orchestrator.router.core import RouterCore
from orchestrator.router.events import (
    BatchDone,
    Client,
    Dispatch,
    Drained,
    Event,
    Flight,
    Held,
    Note,
    Refuse,
    Reply,
    Request,
    Seconds,
    Tick,
    WorkerHello,
)
from orchestrator.simulate.costs import TrueCosts
from orchestrator.simulate.traffic import Arrival, Traffic

CREDIT: Final = 2
"""Batches that a worker holds: one running, one prefetched."""
_CLIENT: Final = Client(b"simulated")


class Delays(msgspec.Struct, frozen=True):
    """Seconds. A message between two processes took about 0.1 ms on the machine of the measurements, and the router's process 45 µs of
    CPU per request, a little more than half of it when the request comes."""

    front: Seconds = 0.15e-3
    """Between client and router, each way, with the gateway's part."""
    back: Seconds = 0.1e-3
    """Between router and worker, each way."""
    submit: Seconds = 25e-6
    """The router, per request."""
    done: Seconds = 12e-6
    """The router, per batch that comes back."""
    reply: Seconds = 8e-6
    """The router, per answer."""
    worker: Seconds = 60e-6
    """The worker, between two batches: decoding one, answering the other."""
    front_cpu: Seconds = 0.0
    """Gateway and router per sequence, taken from the instance that computes it, where housekeeping shares cores with instances."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    seconds: Seconds
    """Requests come for so long."""
    warm_up: Seconds = 0.0
    """Requests due before are not counted."""
    seed: int = 1
    noise: float = 0.08
    """Standard deviation of the logarithm of a service time; 8 % is what repeated runs of one shape differ by."""
    timeout_ms: int = 0
    """Deadline of each request; 0 = none."""
    goodput_ms: float = 100.0
    delays: Delays = Delays()
    slow: dict[str, float] = {}
    """Instance → factor on its true service times, which nobody tells the router."""


class _Worker:
    __slots__ = (
        "batches", "bucket_min", "busy", "costs", "crosses", "name", "padded", "sequences", "slow", "threads", "tokens", "waiting",
        "working",
    )  # fmt: skip

    def __init__(self, planned: PlannedInstance, costs: TrueCosts, crosses: bool, slow: float) -> None:
        self.name = planned.name
        self.costs = costs
        self.threads = planned.threads
        self.crosses = crosses
        self.slow = slow
        self.bucket_min = planned.bucket.min if planned.bucket else 1
        self.waiting: deque[Flight] = deque()
        self.working = False
        self.busy: Seconds = 0.0
        """Within the window that is counted; so are the following."""
        self.batches = self.sequences = self.tokens = self.padded = 0


class World:
    """One run. `measured`: workers say with HELLO what batches cost, as they do; else the router starts with its defaults.
    `of_instance`: what computes with something else than `costs`. `check` is called with the core after each event that it
    handled: for tests."""

    def __init__(
        self,
        plan: Plan,
        costs: TrueCosts,
        traffic: Traffic,
        settings: Settings,
        *,
        measured: bool = True,
        crossing: frozenset[str] = frozenset(),
        of_instance: Mapping[str, TrueCosts] | None = None,
        check: Callable[[RouterCore], None] | None = None,
    ) -> None:
        self.core = RouterCore(plan)
        self._plan = plan
        by_name = of_instance or {}
        self._traffic = traffic
        self._settings = settings
        self._check = check
        self._measured = measured
        self._workers: dict[str, _Worker] = {
            planned.name: _Worker(
                planned,
                by_name.get(planned.name, costs),
                planned.name in crossing,
                settings.slow.get(planned.name, 1.0),
            )
            for planned in plan.instances
        }
        self._threads = sum(worker.threads for worker in self._workers.values())
        self._computing = 0
        """Threads of the instances that are in a batch."""
        self._front_cpu = settings.delays.front_cpu if plan.housekeeping.shared else 0.0
        self._arrivals = traffic.arrivals(settings.seed)
        self._noise = Random(f"{settings.seed} noise")
        self._clients = Random(f"{settings.seed} clients")
        self._heap: list[tuple[Seconds, int, Callable[[Seconds, Any], None], Any]] = []
        self._sequence = 0
        self._router_free: Seconds = 0.0
        self._wake: Seconds = inf
        self._armed: Seconds = inf
        self._open: dict[int, Arrival] = {}
        """By request id, what is not answered yet."""
        self._coming = 0
        """Requests that are due later and known already."""
        self._flying = 0
        """Batches that are not back yet."""
        self._requests = 0
        self._latencies: dict[str, list[float]] = {}
        self._answered = self._good = 0
        self._refused: dict[str, int] = {}
        self._spilled = self._stolen = 0
        self.now: Seconds = 0.0
        self.events = 0

    def run(self) -> None:
        """Until every request that came has been answered or refused, and every batch is back."""
        for planned in self._plan.instances:
            worker = self._workers[planned.name]
            costs = worker.costs.measured(worker.threads, worker.crosses, planned.max_seqlen) if self._measured else ()
            self._tell(WorkerHello(planned.name, 1, planned.max_seqlen, costs=costs), 0.0, 0.0)
        self._router_free = 0.0
        self._next_arrival()
        heap = self._heap
        while self._open or self._coming or self._flying:
            if not heap:
                raise AssertionError(f"nothing happens any more, and {len(self._open)} requests have no answer")
            self.now, _, happens, what = heappop(heap)
            happens(self.now, what)
            self.events += 1

    def _at(self, time: Seconds, happens: Callable[[Seconds, Any], None], what: Any) -> None:
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, happens, what))

    # ---- clients ------------------------------------------------------------------------------------------------

    def _next_arrival(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is not None:
            self._coming += 1
            self._at(arrival.due, self._arrive, arrival)

    def _arrive(self, now: Seconds, arrival: Arrival) -> None:
        self._next_arrival()
        self._send(now, arrival)

    def _send(self, now: Seconds, arrival: Arrival) -> None:
        self._coming -= 1
        self._requests += 1
        self._open[self._requests] = arrival
        request = Request(_CLIENT, self._requests, [arrival.length], timeout_ms=self._settings.timeout_ms)
        self._at(now + self._settings.delays.front, self._submit, request)

    def _answer(self, now: Seconds, request_id: int) -> None:
        arrival = self._open.pop(request_id)
        settings = self._settings
        took = now - arrival.due
        if settings.warm_up <= arrival.due:
            self._latencies.setdefault(arrival.kind, []).append(took)
        if settings.warm_up <= now <= settings.seconds:
            self._answered += 1
            self._good += took * 1e3 <= settings.goodput_ms
        self._follow_up(now)

    def _refuse(self, now: Seconds, refused: Refuse) -> None:
        arrival = self._open.pop(refused.request.request_id)
        if self._settings.warm_up <= arrival.due:
            self._refused[refused.reason] = self._refused.get(refused.reason, 0) + 1
        self._follow_up(now + refused.retry_after_ms * 1e-3)

    def _follow_up(self, now: Seconds) -> None:
        arrival = self._traffic.next_of_client(self._clients, now)
        if arrival is not None:
            self._coming += 1
            self._at(now, self._send, arrival)

    # ---- the router ---------------------------------------------------------------------------------------------

    def _submit(self, now: Seconds, request: Request) -> None:
        self._tell(request, now, self._settings.delays.submit)

    def _done(self, now: Seconds, done: BatchDone) -> None:
        self._flying -= 1
        delays = self._settings.delays
        self._tell(done, now, delays.done + delays.reply * done.rows)

    def _tick(self, now: Seconds, _: None) -> None:
        if now != self._armed:
            return  # an earlier one was set since
        self._armed = inf
        if self._wake <= now:
            self._tell(Tick(), now, 0.0)
        elif self._wake < inf:
            self._arm(self._wake)

    def _arm(self, wake: Seconds) -> None:
        if wake < self._armed:
            self._armed = wake
            self._at(wake, self._tick, None)

    def _tell(self, event: Event, now: Seconds, cost: Seconds) -> None:
        """The router's process comes to this event when it has done with those before it, and its messages leave when it has done
        with this one."""
        now = max(now, self._router_free)
        leaves = self._router_free = now + cost
        delays = self._settings.delays
        for action in self.core.handle(event, now):
            match action:
                case Dispatch():
                    self._flying += 1
                    self._at(leaves + delays.back, self._deliver, action.flight)
                case Reply():
                    if not action.request.unsettled:
                        self._at(leaves + delays.front, self._answer, action.request.request_id)
                case Refuse():
                    self._at(leaves + delays.front, self._refuse, action)
                case Note() | Held() | Drained():
                    pass
                case _:
                    assert_never(action)
        if self._check is not None:
            self._check(self.core)
        wake = self.core.next_wake(now)
        if wake < inf:
            wake = now + max(0, ceil((wake - now) * 1e3)) * 1e-3
        self._wake = wake
        self._arm(wake)

    # ---- workers ------------------------------------------------------------------------------------------------

    def _deliver(self, now: Seconds, flight: Flight) -> None:
        worker = self._workers[flight.instance]
        if worker.working + len(worker.waiting) >= CREDIT:
            raise AssertionError(f"{worker.name} was given batch {flight.batch_id} beyond its credit of {CREDIT}")
        if worker.working:
            worker.waiting.append(flight)
        else:
            self._compute(now, worker, flight)

    def _compute(self, now: Seconds, worker: _Worker, flight: Flight) -> None:
        settings = self._settings
        n = len(flight.items)
        true = worker.costs.seconds(worker.threads, worker.crosses, n, flight.longest) * worker.slow
        if self._computing and worker.costs.crowds:
            beside = self._computing / (self._threads - worker.threads)
            true *= 1.0 + (worker.costs.crowding(flight.longest) - 1.0) * beside
        sigma = settings.noise
        service = true * exp(sigma * self._noise.gauss(0.0, 1.0) - 0.5 * sigma * sigma) if sigma else true
        worker.working = True
        self._computing += worker.threads
        end = now + settings.delays.worker + service + self._front_cpu * n
        counted = min(end, settings.seconds) - max(now, settings.warm_up)
        if counted > 0.0:
            worker.busy += counted
        if settings.warm_up <= now <= settings.seconds:
            worker.batches += 1
            worker.sequences += n
            worker.tokens += sum([item.length for item in flight.items])
            worker.padded += flight.longest * n
            if not flight.home:
                if flight.longest < worker.bucket_min:
                    self._spilled += n
                else:
                    self._stolen += n
        done = BatchDone(worker.name, flight.incarnation, flight.batch_id, n, int(service * 1e6))
        self._at(end, self._finish, (worker, done))

    def _finish(self, now: Seconds, what: tuple[_Worker, BatchDone]) -> None:
        worker, done = what
        self._at(now + self._settings.delays.back, self._done, done)
        worker.working = False
        self._computing -= worker.threads
        if worker.waiting:
            self._compute(now, worker, worker.waiting.popleft())

    # ---- the figures --------------------------------------------------------------------------------------------

    def row(self, name: str) -> LoadRow:
        settings = self._settings
        window = settings.seconds - settings.warm_up
        batches = sum(worker.batches for worker in self._workers.values())
        sequences = sum(worker.sequences for worker in self._workers.values())
        tokens = sum(worker.tokens for worker in self._workers.values())
        padded = sum(worker.padded for worker in self._workers.values())
        return LoadRow(
            name=name,
            seconds=window,
            per_second=round(self._answered / window, 3),
            goodput_per_second=round(self._good / window, 3),
            goodput_ms=settings.goodput_ms,
            latency=latency([took for each in self._latencies.values() for took in each]),
            classes={kind: latency(each) for kind, each in sorted(self._latencies.items())},
            refused=dict(sorted(self._refused.items())),
            batch_mean=round(sequences / batches, 4) if batches else None,
            padding_ratio=round(1.0 - tokens / padded, 6) if padded else None,
            spilled=self._spilled,
            stolen=self._stolen,
            instances=[_instance_row(worker, window) for worker in self._workers.values()],
        )


def _instance_row(worker: _Worker, window: Seconds) -> InstanceRow:
    return InstanceRow(
        worker.name,
        worker.threads,
        round(worker.busy / window, 5),
        worker.sequences,
        round(worker.sequences / worker.batches, 4) if worker.batches else 0.0,
        round(1.0 - worker.tokens / worker.padded, 6) if worker.padded else 0.0,
    )


def capacity(
    plan: Plan, costs: TrueCosts, shares: Sequence[tuple[int, float]], crossing: frozenset[str] = frozenset()
) -> float:
    """Sequences per second if every instance always computed, one at a time, the mix that `shares` gives as (length, share)."""
    known: dict[tuple[int, bool], float] = {}
    total = 0.0
    for planned in plan.instances:
        key = (planned.threads, planned.name in crossing)
        if key not in known:
            known[key] = 1.0 / sum(share * costs.seconds(*key, 1, length) for length, share in shares)
        total += known[key]
    return total


def crossing_instances(plan: Plan, node_of: Mapping[int, int | None]) -> frozenset[str]:
    """Names of the instances whose cores lie on more than one NUMA node."""
    return frozenset(planned.name for planned in plan.instances if len({node_of.get(cpu) for cpu in planned.cpus}) > 1)
