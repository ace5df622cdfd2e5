"""Which machines and costs do tests of `tune` stand on? Round numbers, so that the best layout is known by reason."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.schema import Layout
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.simulate.costs import CostFile, Crowd, Point, Scaling, TrueCosts
from orchestrator.simulate.mixes import LengthClass, Mix
from orchestrator.tune.goal import Goal, Load, limits_of
from orchestrator.tune.lengths import kinds
from orchestrator.tune.proposal import Form, as_planned
from orchestrator.tune.search import Effort, Problem

LITTLE = Effort(field=10, rungs=((200, 5), (400, 2)), final_requests=500, final_seeds=1)


@pytest.fixture(scope="session")
def build() -> Any:
    return runpy.run_path(str(Path(__file__).parents[2] / "support" / "machines.py"))["build"]


@pytest.fixture(scope="session")
def form() -> Callable[..., Form]:
    def make(
        *, serial: float = 1.0, per_token: float = 1e-4, call: float = 0.0, precision: Any = "fp32", engine: Any = "onnxruntime",
        exactness: float = 1.0, crowded: float = 1.0,
    ) -> Form:  # fmt: skip
        """`call` seconds for each sequence and so much for each token, so that batches gain nothing; `serial` of it does not get shorter
        with more threads."""
        points = [Point(1, n, length, n * (call + length * per_token)) for n in (1, 8) for length in (10, 500)]
        file = CostFile(
            version=1, model="a model", engine=engine, engine_version="1", precision=precision, cpu="a CPU",
            scaling=Scaling(serial, 0.0), points=points, crowded=[Crowd(10, crowded)] if crowded > 1.0 else [],
        )  # fmt: skip
        return Form(precision, engine, TrueCosts(file), exactness)

    return make


@pytest.fixture(scope="session")
def two_kinds() -> Mix:
    return Mix([LengthClass("short", 10, 20, 80), LengthClass("long", 400, 480, 20)])


@pytest.fixture(scope="session")
def problem() -> Callable[..., Problem]:
    def make(
        machine: Any, forms: list[Form], mix: Mix, *, goal: Goal = "throughput", load: Load | None = None, seed: int = 1,
        p99_ms: float | None = None, effort: Effort = LITTLE,
    ) -> Problem:  # fmt: skip
        by_name = {each.name: each for each in forms}
        planned = plan(machine, PlanRequest(max_seqlen=512))
        base = Layout(version=1, max_seqlen=512)
        default = as_planned(planned, base, {str(each.name): forms[0].name for each in planned.instances}, by_name)
        limits = limits_of(kinds(mix), lambda length: forms[0].costs.seconds(1, False, 1, length), p99_ms)
        return Problem(machine, by_name, mix, limits, default, base, goal, load or Load(), seed, effort)

    return make
