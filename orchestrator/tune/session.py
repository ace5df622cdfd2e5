"""From a model, lengths and a goal to a layout, on this machine: measure, search, serve in turns, choose.

Each step uses what the one before found; what is left out on the way (a form that does not load, a layout that does not start) is said,
and the rest goes on. Nothing is written here but what the cache keeps of measurements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from orchestrator.bench.matrix import nodes_of, subjects_of
from orchestrator.bench.placements import DoesNotFit
from orchestrator.bench.running import DidNotStart
from orchestrator.bench.target import ROUTES
from orchestrator.config.schema import CachesConfig, Layout
from orchestrator.models.choose import NoVariantError, candidates
from orchestrator.models.errors import ModelError
from orchestrator.models.optimize import Tuned
from orchestrator.models.progress import Show, Step
from orchestrator.models.variants import Variant
from orchestrator.plan.model import Plan, PlanError
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.simulate.costs import CostFile, TrueCosts
from orchestrator.simulate.mixes import Mix
from orchestrator.tune.goal import Goal, Load, limits_of
from orchestrator.tune.lengths import kinds, shares
from orchestrator.tune.measure import (
    Keep,
    Measured,
    cells_for,
    contenders,
    least_seconds,
    lengths_for,
    measure,
    missing,
)
from orchestrator.tune.proposal import Entrant, Form, as_planned
from orchestrator.tune.report import Candidate, Outcome, chosen, head, unrest
from orchestrator.tune.search import EFFORT, Found, Problem, clients, search, served
from orchestrator.tune.verify import TASKS, Contestant, round_seconds, texts_of, usual_seconds, verify
from orchestrator.tune.verify import least_seconds as least_to_serve
from orchestrator.tune.write import reasons, text_of
from topology.model import Machine

SERVED: int = 3
"""Layouts that are served in turns: the default and the best two others."""


class TuneError(Exception):
    """It cannot be tuned: says what, why and what to do. `wrong_usage`: what was asked for contradicts itself or cannot be."""

    def __init__(self, message: str, *, wrong_usage: bool = False) -> None:
        super().__init__(message)
        self.wrong_usage = wrong_usage


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    mix: Mix
    mix_in_words: str
    goal: Goal
    load: Load
    p99_ms: float | None
    when: str
    seed: int = 1


@dataclass(frozen=True)
class Live:
    """This machine with this model."""

    machine: Machine
    tuned: Tuned
    base: Layout
    """What every layout says besides: model, task, the longest sequence."""
    cache: Path
    budget: float | None
    """Seconds for measuring and serving; None: as long as is usual."""
    serve: bool


def tuned_here(live: Live, wanted: Wanted, say: Callable[[str], None], show: Show) -> tuple[Outcome, str]:
    """What was found, and the layout file. TuneError, ModelError, PlanError."""
    longest = live.tuned.prepared.status.max_seqlen
    started = time.monotonic()
    try:
        usable = candidates(live.tuned.study, live.tuned.wish)
    except NoVariantError as error:
        raise TuneError(f"nothing can compute this model: {error}") from None
    planned = plan(live.machine, PlanRequest(max_seqlen=longest))
    default_variants = _of_default(planned, live.tuned)
    variants = contenders(usable)
    by_name = {one.name: one for one in (*variants, *default_variants.values())}
    variants = list(by_name.values())
    lengths = lengths_for([length for length, _ in shares(wanted.mix)], longest)
    measured, serving = _measured(live, variants, lengths, say, show)
    forms = {
        variant.name: _form(variant, measured.files[variant.name])
        for variant in variants
        if variant.name in measured.files
    }
    if not forms:
        raise TuneError(
            "nothing could be measured of any form of this model; what was said above tells why, `orchestrator doctor` what this host lacks"
        )
    measuring = time.monotonic() - started
    form_of = {
        name: variant.name if variant.name in forms else next(iter(forms)) for name, variant in default_variants.items()
    }
    default = as_planned(planned, live.base, form_of, forms)
    problem = problem_of(live.machine, forms, wanted, default, live.base)
    started = time.monotonic()
    found = _searched(problem, show)
    searching = time.monotonic() - started
    candidates_ = [Candidate(each.entrant, each.figures) for each in found.finalists]
    started = time.monotonic()
    notes = list(found.notes)
    if measured.noisy:
        notes.append(
            f"{measured.noisy} of {measured.new} shapes were disturbed by something else on these CPUs while they were measured"
        )
    if live.serve and live.tuned.prepared.status.task not in TASKS:
        notes.append(f"not served: a benchmark has no requests for {live.tuned.prepared.status.task}")
    elif live.serve:
        candidates_ = _served(live, problem, found, candidates_, serving, say, show, notes)
    seconds = {"measuring": measuring, "searching": searching, "serving": time.monotonic() - started}
    return outcome(problem, wanted, found, candidates_, forms, live.tuned.study.model, seconds, notes)


def problem_of(machine: Machine, forms: dict[str, Form], wanted: Wanted, default: Entrant, base: Layout) -> Problem:
    def alone(length: int) -> float:
        return min(form.costs.seconds(1, False, 1, length) for form in forms.values())

    limits = limits_of(kinds(wanted.mix), alone, wanted.p99_ms)
    return Problem(machine, forms, wanted.mix, limits, default, base, wanted.goal, wanted.load, wanted.seed, EFFORT)


def outcome(
    problem: Problem,
    wanted: Wanted,
    found: Found,
    candidates_: Sequence[Candidate],
    forms: dict[str, Form],
    model: str,
    seconds: dict[str, float],
    notes: Sequence[str],
    not_here: str = "",
) -> tuple[Outcome, str]:
    """The choice among these, and the file that says it."""
    best, said = chosen(wanted.goal, candidates_)
    if (disturbed := unrest(candidates_)) is not None:
        said.append(disturbed)
    default = next(one for one in candidates_ if one.entrant is problem.default)
    used = dict.fromkeys(best.entrant.form_of.values())
    result = Outcome(
        when=wanted.when,
        machine=problem.machine.model_name,
        cores=sum(instance.threads for instance in problem.default.plan.instances),
        model=model,
        forms=[
            f"{name} (mean cosine to fp32 {forms[name].exactness:.4f})" if forms[name].exactness < 1 else name
            for name in used
        ],
        mix=wanted.mix_in_words,
        goal=wanted.goal,
        load=wanted.load,
        limits=problem.limits,
        chosen=best,
        default=default,
        candidates=candidates_,
        looked_at=found.looked_at,
        simulated=found.simulated,
        seconds=seconds,
        not_here=not_here,
        notes=[*notes, *said],
    )
    why = reasons(best.entrant.plan, forms, best.entrant.form_of, shares(wanted.mix))
    return result, text_of(best.entrant.plan, best.entrant.layout, problem.machine, head(result), why)


def _of_default(planned: Plan, tuned: Tuned) -> dict[str, Variant]:
    """What `up` would choose for each instance."""
    found = {}
    for instance in planned.instances:
        low, high = (instance.bucket.min, instance.bucket.max) if instance.bucket else (1, instance.max_seqlen)
        found[str(instance.name)] = tuned.choose(low, min(high, instance.max_seqlen)).variant
    return found


def _form(variant: Variant, file: CostFile) -> Form:
    exactness = variant.accuracy.mean_cosine if variant.accuracy is not None else 1.0
    return Form(variant.precision, variant.engine, TrueCosts(file, variant.name), exactness)


def _measured(
    live: Live, variants: Sequence[Variant], lengths: Sequence[int], say: Callable[[str], None], show: Show
) -> tuple[Measured, float | None]:
    """What was measured, and the seconds that are left for serving (None: as many as is usual). TuneError if the budget is too small."""
    try:
        cells = cells_for(live.machine, variants, lengths)
    except DoesNotFit as error:
        raise TuneError(f"there is nowhere to measure: {error}") from None
    keep = Keep(live.cache, live.tuned, live.machine)
    wanted = [
        left
        for one in variants
        for left in missing([c for c in cells if c.variant is one], keep.read(one, lambda _: None))
    ]
    serving = least_to_serve(SERVED) if live.serve else 0.0
    least = least_seconds(wanted) + serving
    if live.budget is not None and live.budget < least:
        parts = f"{least_seconds(wanted):.0f} to measure {sum(len(each.shapes) for each in wanted)} shapes"
        also = (
            f" and {serving:.0f} to serve {SERVED} layouts in turns (--no-verify leaves that out)" if live.serve else ""
        )
        raise TuneError(
            f"--seconds {live.budget:g}: too little; it takes {least:.0f} at least: {parts}{also}", wrong_usage=True
        )
    left = None if live.budget is None else live.budget - least_seconds(wanted)
    for_serving = None if left is None else min(usual_seconds(SERVED), max(serving, 0.5 * left)) if live.serve else 0.0
    try:
        subjects = list(
            zip(
                variants,
                subjects_of(live.tuned, variants, nodes_of([each.placement for each in cells]), say),
                strict=True,
            )
        )
    except ModelError as error:
        raise TuneError(str(error)) from None
    budget = None if live.budget is None or for_serving is None else live.budget - for_serving
    return measure(cells, subjects, keep, budget, say, show), for_serving


def _searched(problem: Problem, show: Show) -> Found:
    try:
        return search(problem, lambda _, done, total: show(Step("simulating layouts", done, total)))
    except PlanError as error:
        raise TuneError(f"no layout can be placed on this machine: {error}") from None


def _served(
    live: Live,
    problem: Problem,
    found: Found,
    candidates_: Sequence[Candidate],
    budget: float | None,
    say: Callable[[str], None],
    show: Show,
    notes: list[str],
) -> list[Candidate]:
    """The default and the best others with what they did when they were served."""
    others = [one for one in candidates_ if one.entrant is not problem.default][: SERVED - 1]
    default = next(one for one in candidates_ if one.entrant is problem.default)
    if not others:
        notes.append("not served: nothing but the default came to the end")
        return list(candidates_)
    # A rate that only the simulation knows may be more than the machine bears, and then says nothing: clients that wait adapt.
    load = problem.load if problem.load != Load() else Load(in_flight=clients(problem, found.best.entrant))
    contestants = [Contestant(one.name, _to_serve(one.entrant, live.machine)) for one in (default, *others)]
    seconds = round_seconds(len(contestants), budget)
    say(
        f"serving {len(contestants)} layouts in turns, {load.words}: about {len(contestants) * (8 + 5 * seconds):.0f} s"
    )
    texts = texts_of(live.tuned.prepared, problem.mix, problem.seed)
    route = ROUTES[live.tuned.prepared.status.task] or ""
    try:
        verified = verify(contestants, route, texts, load, problem.limits, seconds, live.cache, say, show)
    except DidNotStart as error:
        raise TuneError(
            f"the default layout cannot be served here, so nothing can be compared with it:\n{error}"
        ) from None
    alike = dict(
        zip(
            (one.name for one in (default, *others)),
            served(problem, [one.entrant for one in (default, *others)], load),
            strict=True,
        )
    )
    return [Candidate(one.entrant, one.simulated, alike.get(one.name), verified.get(one.name)) for one in candidates_]


def _to_serve(entrant: Entrant, machine: Machine) -> str:
    """Its file without a cache of tokens: the benchmark asks the same texts again and again, and each shall cost what a new one does."""
    layout = msgspec.structs.replace(entrant.layout, caches=CachesConfig(tokens_mb=0))
    return text_of(entrant.plan, layout, machine, ["a contestant of `orchestrator tune`"], {})
