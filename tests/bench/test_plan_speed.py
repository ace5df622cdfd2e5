"""How long does it take to plan a large machine? Wanted: 64 instances on 1,024 CPUs in under 200 ms."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import parse_layout
from orchestrator.plan.pinned import to_yaml
from orchestrator.plan.solve import PlanRequest, plan

build: Any = runpy.run_path(str(Path(__file__).parents[1] / "support" / "machines.py"))["build"]


@pytest.fixture(scope="module")
def large() -> Any:
    """8 sockets of 2 nodes, 512 cores, 1,024 CPUs, cache domains of 8 cores."""
    return build(packages=8, nodes_per_package=2, cores_per_node=32, smt=2, cores_per_llc=8)


@pytest.mark.speed
def test_planning_64_instances_on_1024_cpus(benchmark: Any, large: Any) -> None:
    result = benchmark(plan, large, PlanRequest(instances=64))
    assert len(result.instances) == 64
    assert benchmark.stats.stats.median < 0.2


@pytest.mark.speed
def test_planning_and_checking_64_explicit_instances_on_1024_cpus(benchmark: Any, large: Any) -> None:
    text = to_yaml(plan(large, PlanRequest(instances=64)))
    layout = parse_layout(text.encode(), "pinned.yaml")
    result = benchmark(plan, large, PlanRequest(layout=layout))
    assert len(result.instances) == 64
    assert benchmark.stats.stats.median < 0.2


def test_loading_a_layout_of_64_instances(benchmark: Any, large: Any) -> None:
    text = to_yaml(plan(large, PlanRequest(instances=64))).encode()
    layout = benchmark(parse_layout, text, "pinned.yaml")
    assert len(layout.instances) == 64
