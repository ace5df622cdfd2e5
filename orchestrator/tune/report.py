"""How is told what was found: to people, to programs, and in the layout file itself? Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.bench.rows import CLASSES
from orchestrator.tune.goal import Figures, Goal, Load, Verified
from orchestrator.tune.proposal import Entrant

TIE: Final = 1.03
"""Served layouts whose figures are nearer than this are equally good: five rounds on an idle machine differ by as much."""


UNREST: Final = 1.5
"""Rounds of one layout that differ by more were disturbed."""


@dataclass(frozen=True)
class Candidate:
    """A layout that came to the end."""

    entrant: Entrant
    simulated: Figures
    """By the goal: under the given load, or at the highest rate at which its limits hold."""
    simulated_alike: Figures | None = None
    """Under the load that it was served with."""
    measured: Verified | None = None

    @property
    def name(self) -> str:
        return self.entrant.name


@dataclass(frozen=True)
class Outcome:
    """All that was found."""

    when: str
    machine: str
    cores: int
    model: str
    forms: Sequence[str]
    """What was searched over, each with its mean cosine to fp32."""
    mix: str
    goal: Goal
    load: Load
    limits: Mapping[str, float]
    chosen: Candidate
    default: Candidate
    candidates: Sequence[Candidate]
    """The best by simulation first."""
    looked_at: int
    simulated: int
    seconds: Mapping[str, float]
    """That measuring, searching and serving took."""
    not_here: str = ""
    """Where the machine is not this one: what it was worked out from."""
    notes: Sequence[str] = field(default_factory=tuple)


def chosen(goal: Goal, candidates: Sequence[Candidate]) -> tuple[Candidate, list[str]]:
    """By what was measured, where it was, and what is to be said of it. The first candidate is what the simulation says."""
    served = [one for one in candidates if one.measured is not None]
    if not served:
        return candidates[0], []
    ranked = sorted(served, key=lambda one: (-worth(goal, one), one.entrant.plainness))
    best = min(
        (one for one in ranked if worth(goal, one) * TIE >= worth(goal, ranked[0])),
        key=lambda one: (one.entrant.plainness, -worth(goal, one)),
    )
    notes = []
    first = candidates[0]
    if best is not first:
        if first.measured is None:
            notes.append(f"the best by simulation ({first.name}) was not served, so another one was chosen")
        elif worth(goal, best) > worth(goal, first) * TIE:
            notes.append(
                f"the simulation had another order: it put ({first.name}) first, which served {first.measured.ratio:.2f} × the "
                f"default's requests/s at a pressure of {first.measured.figures.pressure:.2f}; ({best.name}) "
                f"{_measured(best).ratio:.2f} × at {_measured(best).figures.pressure:.2f}"
            )
        else:
            notes.append(f"({first.name}), first by simulation, served as well; ({best.name}) is simpler")
    return best, notes


def unrest(candidates: Sequence[Candidate]) -> str | None:
    """What is to be said where equal rounds of one layout differ by far more than layouts do.

    Of clients that wait for their answers: in an open loop chance decides how many come in a round.
    """
    closed = [
        one.measured.rounds for one in candidates if one.measured and one.measured.figures.load.in_flight is not None
    ]
    most = max((max(rounds) / max(min(rounds), 1e-9) for rounds in closed), default=1.0)
    if most <= UNREST:
        return None
    return (
        f"the rounds differ by {min(most, 99.0):.1f} × with one and the same layout: something else used this machine while layouts were "
        "served, and their order is not to be relied on"
    )


def _measured(one: Candidate) -> Verified:
    assert one.measured is not None
    return one.measured


def worth(goal: Goal, one: Candidate) -> float:
    """Of what was measured: the higher the better. Rates by their ratio to the default's, which a slow minute does not change."""
    measured = _measured(one)
    pressure = max(measured.figures.pressure, 1e-6)
    if goal == "latency":
        return 1.0 / pressure
    return measured.ratio / max(1.0, pressure)


def head(of: Outcome) -> list[str]:
    """Comment lines for the top of the file."""
    lines = [
        f"Found by `orchestrator tune` on {of.when}. Every CPU is named: this file gives the same plan on the same machine.",
        f"machine: {of.machine}, {of.cores} cores" + (f"; {of.not_here}" if of.not_here else ""),
        f"model:   {of.model}, computing in {' or '.join(of.forms)}",
        f"lengths: {of.mix}",
        f"goal:    {goal_in_words(of)}",
        "",
        *table(of),
    ]
    if of.not_here:
        lines += ["", "Nothing of this was measured by serving: figures are those of a simulation."]
    elif of.chosen.measured is None:
        lines += [
            "",
            "Not served (--no-verify, or a task that a benchmark has no requests for): figures are those of a simulation.",
        ]
    return [*lines, *(f"note: {note}" for note in of.notes), ""]


def goal_in_words(of: Outcome) -> str:
    limits = ", ".join(f"{kind} {limit:g}" for kind, limit in _ordered(of.limits))
    if of.goal == "latency":
        return f"the lowest p99 at {of.load.words}, in parts of {limits} ms"
    what = f"the most answers at {of.load.words}" if of.load != Load() else "the highest rate of Poisson arrivals"
    return f"{what} with the p99 within {limits} ms"


def table(of: Outcome) -> list[str]:
    """Who came to the end with what, aligned."""
    kinds = [kind for kind, _ in _ordered(of.limits)]
    rows = [["", "requests/s", *(f"{kind} p99 ms" for kind in kinds), "p99 / limit"]]
    rows += [_row(f"{_mark(of, one)}, simulated", one.simulated, kinds) for one in _told(of)]
    served = [one for one in _told(of) if one.measured is not None]
    rows += [
        _row(f"{_mark(of, one)}, simulated, {alike.load.words}", alike, kinds)
        for one in served
        if (alike := one.simulated_alike) is not None and alike != one.simulated
    ]
    for one in served:
        found = _measured(one)
        rows.append(
            [
                *_row(f"{_mark(of, one)}, served, {found.figures.load.words}", found.figures, kinds),
                f"{found.ratio:.2f} × default",
            ]
        )
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(max(map(len, rows)))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]
    return [*lines, *(f"{_mark(of, one)}: {one.name}" for one in _told(of))]


def _told(of: Outcome) -> list[Candidate]:
    """The chosen one, the default, the runner-up; each once."""
    others = [one for one in of.candidates if one is not of.chosen and one is not of.default]
    return [of.chosen, *([] if of.default is of.chosen else [of.default]), *others[:1]]


def _mark(of: Outcome, one: Candidate) -> str:
    if one is of.chosen:
        return "this layout" if one is not of.default else "this layout, the default"
    return "default" if one is of.default else "runner-up"


def _row(name: str, found: Figures, kinds: Sequence[str]) -> list[str]:
    return [
        name,
        f"{found.per_second:.1f}",
        *(f"{found.p99_ms[kind]:.1f}" if kind in found.p99_ms else "-" for kind in kinds),
        f"{found.pressure:.2f}",
    ]


def _ordered(limits: Mapping[str, float]) -> list[tuple[str, float]]:
    known = [kind for kind in CLASSES if kind in limits]
    return [(kind, limits[kind]) for kind in [*known, *sorted(set(limits) - set(known))]]


def printed(of: Outcome) -> str:
    """For people, on standard error."""
    lines = [f"goal: {goal_in_words(of)}", "", *table(of), *(f"note: {note}" for note in of.notes)]
    spent = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in of.seconds.items())
    return "\n".join([*lines, f"{of.looked_at} layouts looked at, {of.simulated} simulations; {spent}"])


def document(of: Outcome, layout: str, out: str | None) -> dict[str, Any]:
    """One JSON document."""
    return {
        "when": of.when,
        "machine": of.machine,
        "cores": of.cores,
        "worked_out_from": of.not_here or None,
        "model": of.model,
        "forms": list(of.forms),
        "mix": of.mix,
        "goal": of.goal,
        "load": of.load,
        "limits_ms": dict(of.limits),
        "out": out,
        "layout": layout,
        "chosen": of.chosen.name,
        "default": of.default.name,
        "candidates": [
            {
                "name": one.name,
                "chosen": one is of.chosen,
                "default": one is of.default,
                "policy": one.entrant.plan.policy,
                "instances": [
                    {
                        "name": each.name,
                        "cpus": each.cpus,
                        "bucket": each.bucket,
                        "form": one.entrant.form_of[each.name],
                    }
                    for each in one.entrant.plan.instances
                ],
                "simulated": one.simulated,
                "simulated_at_the_load_served": one.simulated_alike,
                "served": None
                if one.measured is None
                else {
                    "figures": one.measured.figures,
                    "ratio_to_default": one.measured.ratio,
                    "rounds": one.measured.rounds,
                },
            }
            for one in of.candidates
        ],
        "looked_at": of.looked_at,
        "simulations": of.simulated,
        "seconds": dict(of.seconds),
        "notes": list(of.notes),
    }
