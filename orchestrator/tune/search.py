"""Which layout is best for these lengths on this machine, by simulation? Pure, and the same for the same seed.

Theory of operation
-------------------
1. All proposals (`tune.space`) are ranked by what they could do at most and about (`tune.estimate`); the best `Effort.field` go on.
2. Successive halving (Jamieson and Talwalkar, AISTATS 2016) on simulated requests: all are simulated under the same load with the same
   requests at the same times (common random numbers), the better part goes on to a longer simulation under a load nearer
   to what the best still bears. What a small change of the best would do is tried among them.
3. The last few, and always the layout that `plan` would choose, are judged by the goal itself: for throughput the highest rate at which
   the limits hold, by bisection. The requests are others than before (two more seeds, the mean of which counts), so that nobody wins by
   having been chosen for the luck of one.
4. What is within `TIE` of the best is as good, and the simplest of these wins.

A machine of several nodes is simulated node by node until step 3: a *slice* of it, with its share of the cores and of the load. Fewer
servers wait longer at the same load (so a slice is the harder test), and the order of layouts hardly changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from orchestrator.config.schema import Layout
from orchestrator.plan.model import PlanError
from orchestrator.simulate.mixes import Mix
from orchestrator.simulate.traffic import ClosedLoop, OpenLoop, Traffic
from orchestrator.simulate.world import Delays, Settings, World, crossing_instances
from orchestrator.tune.estimate import Shares, bound, bound_of, pressure, queues, reach
from orchestrator.tune.goal import Figures, Goal, Load, figures, mean, score
from orchestrator.tune.lengths import kinds, shares
from orchestrator.tune.proposal import Entrant, Form, Proposal, entrant
from orchestrator.tune.space import filled, neighbours, proposals, sizes_within
from topology.model import Machine

HORIZON: Final = 2.0
"""Times the longest limit that requests come for, at least: a queue that grows must be seen to grow."""
MOST_REQUESTS: Final = 40_000
"""The horizon of a large machine gives way to this, or one simulation takes a minute."""
RESOLUTION: Final = 1.02
"""Of a highest rate."""
TIE: Final = 1.02
FRONT_CPU: Final = 0.25e-3
"""Gateway, router and messages per request, where they share cores with instances: 130, 55 and 26 µs were measured, and tokenizing."""
_SLICE_CORES: Final = 8
"""Fewer make no slice: buckets of a few cores each would be rounded beyond recognition."""
_LEAST_SHARE: Final = 1e-3
"""Of the bound: who breaks the limits at so little breaks them at any rate."""
_WARM_UP: Final = 0.15
_NOISE: Final = 0.08

Progress = Callable[[str, int, int], None]
"""What is done, how many of how many simulations."""


class Effort(msgspec.Struct, frozen=True):
    """How much is simulated."""

    field: int = 40
    """Layouts that are simulated at all."""
    rungs: tuple[tuple[int, int], ...] = ((1200, 14), (2500, 5), (5000, 3))
    """Requests, and how many go on."""
    final_requests: int = 6000
    final_seeds: int = 2

    @property
    def runs(self) -> int:
        """About."""
        return self.field + sum(keep for _, keep in self.rungs) + 8 + 24 * self.final_seeds


EFFORT: Final = Effort()


@dataclass(frozen=True)
class Problem:
    """What is to be found, and for what."""

    machine: Machine
    forms: Mapping[str, Form]
    mix: Mix
    limits: Mapping[str, float]
    """Milliseconds for the p99 of each class."""
    default: Entrant
    """What `plan` chooses, and whose cores are to be given out."""
    base: Layout
    """What every layout says besides: model, task, the longest sequence."""
    goal: Goal = "throughput"
    load: Load = field(default_factory=Load)
    """Empty for the highest rate."""
    seed: int = 1
    effort: Effort = EFFORT

    @property
    def longest(self) -> int:
        return max(instance.max_seqlen for instance in self.default.plan.instances)


@dataclass(frozen=True)
class Judged:
    """A layout with what it did in the last round it was in."""

    entrant: Entrant
    figures: Figures
    score: float
    """By `goal.score`; of equals in one round only."""


@dataclass(frozen=True)
class Found:
    best: Judged
    default: Judged
    finalists: list[Judged]
    """From the best on, the default among them."""
    looked_at: int
    """Proposals."""
    unplaceable: int
    simulated: int
    """Runs of the simulator."""
    slices: int
    notes: list[str] = field(default_factory=list)


def search(problem: Problem, progress: Progress = lambda *_: None) -> Found:
    """Never worse than the default, in its own measure. PlanError if nothing at all can be placed."""
    return _Search(problem, progress).run()


class _Search:
    def __init__(self, problem: Problem, progress: Progress) -> None:
        self._of = problem
        self._progress = progress
        self._shares: Shares = shares(problem.mix)
        plan = problem.default.plan
        node_of = {cpu.cpu: cpu.node for cpu in problem.machine.cpus}
        by_node: dict[int | None, int] = {}
        for instance in plan.instances:
            for cpu in instance.cpus:
                by_node[node_of[cpu]] = by_node.get(node_of[cpu], 0) + 1
        self._node_of = node_of
        self._cores = sum(by_node.values())
        self._slices = len(by_node) if self._cores // len(by_node) >= _SLICE_CORES else 1
        self._sliced_cores = self._cores // self._slices
        self._sizes = sizes_within(min(max(by_node.values()), self._sliced_cores))
        self._simulated = 0
        self._expected = problem.effort.runs
        self._unplaceable = 0
        self._known: dict[tuple[int, Load], Figures] = {}

    def run(self) -> Found:
        field, looked_at = self._field()
        load = self._first_load(field)
        placed = self._placed(field)
        tried = {proposal for proposal, _ in placed}
        ranked: list[tuple[Proposal, Figures]] = []
        for rung, (requests, keep) in enumerate(self._of.effort.rungs):
            judged = [(proposal, self._simulate(each, load, requests)) for proposal, each in placed]
            if rung == 1 and judged:
                near = self._near(min(judged, key=lambda one: _order(*one))[0], tried)
                placed += near
                judged += [(proposal, self._simulate(each, load, requests)) for proposal, each in near]
            ranked = _going_on(judged, keep)
            going = {proposal for proposal, _ in ranked}
            placed = [one for one in placed if one[0] in going]
            load = self._next_load(load, [found.pressure for _, found in ranked])
        finalists = [self._of.default]
        for proposal, _ in ranked:
            try:
                whole = self._whole(proposal)
            except PlanError:
                self._unplaceable += 1
                continue
            if not any(_same(whole, other) for other in finalists):
                finalists.append(whole)
        judged_whole = self._judged(finalists, load)
        judged_whole.sort(key=lambda one: (-one.score, one.entrant.plainness))
        best = min(
            (one for one in judged_whole if one.score * TIE >= judged_whole[0].score),
            key=lambda one: (one.entrant.plainness, -one.score),
        )
        default = next(one for one in judged_whole if one.entrant is self._of.default)
        # Of those that did the same to the last digit only the simplest is told of, and served.
        judged_whole = [
            one
            for at, one in enumerate(judged_whole)
            if one is default or one is best or not any(one.figures == other.figures for other in judged_whole[:at])
        ]
        if best.score < default.score:
            best = default
        ordered = [best, *(one for one in judged_whole if one is not best)]
        return Found(
            best, default, ordered, looked_at, self._unplaceable, self._simulated, self._slices,
            [] if self._slices == 1 else [f"searched on one of {self._slices} slices of the machine, judged on the whole of it"],
        )  # fmt: skip

    # ---- who is simulated at all

    def _field(self) -> tuple[list[Proposal], int]:
        of = self._of
        every = list(proposals(self._sliced_cores, self._sizes, self._shares, of.forms, of.longest))
        longest = kinds(of.mix)
        ranked = []
        for place, proposal in enumerate(every):
            waiting = queues(proposal, self._shares, of.forms, longest, of.limits)
            most = bound(proposal, self._shares, of.forms)
            if of.goal == "throughput":
                value = -reach(waiting, most)
            else:
                value = pressure(waiting, min(self._per_slice(of.load).rate or 0.5 * most, 0.97 * most))
            ranked.append((value, proposal.plainness, place))
        ranked.sort()
        return [every[place] for *_, place in ranked[: of.effort.field]], len(every)

    def _placed(self, field: Sequence[Proposal]) -> list[tuple[Proposal, Entrant]]:
        """Those that the planner places on a slice."""
        placed = []
        for proposal in field:
            try:
                placed.append((proposal, entrant(proposal, self._of.base, self._of.forms, self._of.machine)))
            except PlanError:
                self._unplaceable += 1
        return placed

    def _near(self, best: Proposal, tried: set[Proposal]) -> list[tuple[Proposal, Entrant]]:
        fresh = []
        for one in neighbours(best, self._sliced_cores, self._sizes, self._shares, self._of.forms):
            if one not in tried:
                tried.add(one)
                fresh.append(one)
        return self._placed(fresh)

    def _whole(self, proposal: Proposal) -> Entrant:
        """On all slices. Where cores left over lie where nothing fits, with fewer instances. PlanError."""
        whole = filled(proposal, self._cores, self._slices) if self._slices > 1 else proposal
        while True:
            try:
                return entrant(whole, self._of.base, self._of.forms, self._of.machine)
            except PlanError:
                at = max(range(len(whole.groups)), key=lambda at: whole.groups[at].replicas)
                group = whole.groups[at]
                if self._slices == 1 or group.replicas < proposal.groups[at].replicas * (self._slices - 1):
                    raise
                groups = list(whole.groups)
                groups[at] = msgspec.structs.replace(group, replicas=group.replicas - 1)
                whole = msgspec.structs.replace(whole, groups=tuple(groups))

    # ---- under which load

    def _per_slice(self, load: Load) -> Load:
        if load.in_flight is not None:
            return Load(in_flight=max(1, round(load.in_flight / self._slices)))
        return Load(None if load.rate is None else load.rate / self._slices)

    def _first_load(self, field: Sequence[Proposal]) -> Load:
        of = self._of
        if of.load != Load():
            return self._per_slice(of.load)
        longest = kinds(of.mix)
        best = max(
            reach(queues(one, self._shares, of.forms, longest, of.limits), bound(one, self._shares, of.forms))
            for one in field
        )
        # Where even a lone request breaks the limits the estimate is next to nothing; half of what the cores bear is a load to judge by.
        return Load(max(best, 0.5 * max(bound(one, self._shares, of.forms) for one in field)))

    def _next_load(self, load: Load, pressures: Sequence[float]) -> Load:
        """Nearer to where the best just holds its limits."""
        if self._of.load != Load() or load.rate is None or not pressures:
            return load
        return Load(load.rate * min(1.15, max(0.7, (1.0 / max(min(pressures), 1e-3)) ** 0.15)))

    # ---- the judgement

    def _judged(self, finalists: Sequence[Entrant], load: Load) -> list[Judged]:
        of = self._of
        if of.load != Load():
            found = [self._final(each, of.load) for each in finalists]
        else:
            start = (load.rate or 1.0) * self._slices
            found = [self._highest(each, start) for each in finalists]
        return [Judged(each, its, score(of.goal, its)) for each, its in zip(finalists, found, strict=True)]

    def _highest(self, each: Entrant, start: float) -> Figures:
        """At the highest rate at which the limits hold; at next to no load if they hold at none.

        No rate above the bound is tried: a simulation of a few seconds may bear it by luck, and no layout does.
        """
        plan = each.plan
        kinds = {(instance.threads, each.form_of[instance.name]) for instance in plan.instances}
        cores = sum(instance.threads for instance in plan.instances)
        most = bound_of(kinds, cores, plan.max_batch_tokens, self._shares, self._of.forms)
        rate, up, down = min(start, most), 1.12, 1.3
        holding: Figures | None = None
        breaking: Figures | None = None
        while holding is None or breaking is None:
            found = self._final(each, Load(rate))
            if found.holds:
                holding = found
                if rate >= most:
                    return found
                low, rate, up = rate, min(most, rate * up), min(2.0, up * up)
            else:
                breaking, high = found, rate
                rate, down = rate / down, min(4.0, down * 1.3)
                if holding is None and rate < _LEAST_SHARE * most:
                    return found
        while high > low * RESOLUTION:
            middle = (low * high) ** 0.5
            found = self._final(each, Load(middle))
            if found.holds:
                holding, low = found, middle
            else:
                high = middle
        return holding

    def _final(self, each: Entrant, load: Load) -> Figures:
        key = (id(each), load)
        if (known := self._known.get(key)) is None:
            effort = self._of.effort
            known = self._known[key] = mean(
                [self._simulate(each, load, effort.final_requests, seed) for seed in range(1, effort.final_seeds + 1)]
            )
        return known

    def _simulate(self, each: Entrant, load: Load, requests: int, seed: int = 0) -> Figures:
        self._simulated += 1
        self._progress(each.name, self._simulated, max(self._expected, self._simulated))
        return simulated(each, self._of, load, requests, self._node_of, self._of.seed * 1000 + seed)


def served(problem: Problem, entrants: Sequence[Entrant], load: Load) -> list[Figures]:
    """What each does under a load that all of them get."""
    node_of = {cpu.cpu: cpu.node for cpu in problem.machine.cpus}
    return [
        mean(
            [
                simulated(each, problem, load, problem.effort.final_requests, node_of, problem.seed * 1000 + seed)
                for seed in range(1, problem.effort.final_seeds + 1)
            ]
        )
        for each in entrants
    ]


def clients(problem: Problem, best: Entrant, most: int = 512) -> int:
    """How many that wait for their answers this layout bears within its limits; 1 if none."""
    count = 1
    while count * 2 <= most:
        (found,) = served(problem, [best], Load(in_flight=count * 2))
        if not found.holds:
            break
        count *= 2
    return count


def simulated(
    each: Entrant, problem: Problem, load: Load, requests: int, node_of: Mapping[int, int | None], seed: int
) -> Figures:
    """Under this load, for about so many requests or `HORIZON` times the longest limit, whichever is longer."""
    horizon = HORIZON * max(problem.limits.values()) / 1e3
    traffic: Traffic
    if load.in_flight is not None:
        # So many clients get about so many answers in this time if each takes a fifth of its limit.
        seconds = max(horizon, requests / load.in_flight * horizon / HORIZON / 5)
        traffic = ClosedLoop(load.in_flight, problem.mix, seconds)
    else:
        rate = load.rate or 1.0
        seconds = max(requests / rate, min(horizon, MOST_REQUESTS / rate))
        traffic = OpenLoop(rate, problem.mix, seconds)
    settings = Settings(
        seconds=seconds,
        warm_up=_WARM_UP * seconds,
        seed=seed,
        noise=_NOISE,
        delays=Delays(front_cpu=FRONT_CPU),
    )
    world = World(
        each.plan,
        each.costs,
        traffic,
        settings,
        crossing=crossing_instances(each.plan, node_of),
        of_instance=each.of_instance,
    )
    world.run()
    return figures(world.row(each.name), load, problem.limits)


def _order(proposal: Proposal, found: Figures) -> tuple[float, tuple[int, int, int, int]]:
    """The better first: of open load the pressure tells, of clients that wait the answers as well."""
    if found.load.in_flight is not None:
        return -score("throughput", found), proposal.plainness
    return found.pressure, proposal.plainness


def _going_on(judged: Sequence[tuple[Proposal, Figures]], keep: int) -> list[tuple[Proposal, Figures]]:
    """The best so many, and the best with each number of buckets, so that the end is no family of one. Of those that did the same to the
    last digit (a limit on batches that none reached) only the simplest."""
    different: dict[tuple[object, ...], tuple[Proposal, Figures]] = {}
    for one in sorted(judged, key=lambda one: _order(*one)):
        found = one[1]
        different.setdefault((found.per_second, *sorted(found.p99_ms.items()), *sorted(found.p50_ms.items())), one)
    ranked = list(different.values())
    going = ranked[:keep]
    counts = {len(proposal.groups) for proposal, _ in going}
    for one in ranked[keep:]:
        if len(one[0].groups) not in counts:
            counts.add(len(one[0].groups))
            going.append(one)
    return going


def _same(one: Entrant, other: Entrant) -> bool:
    def said(of: Entrant) -> list[object]:
        by_name = of.of_instance
        return [of.plan.policy, of.plan.max_batch_tokens] + [
            (each.cpus, each.bucket, id(by_name.get(each.name, of.costs))) for each in of.plan.instances
        ]

    return said(one) == said(other)
