"""Which memory allocator and pages does a layout give each instance, and can they work together? Pure.

`tcmalloc` and `jemalloc` take the place of malloc by LD_PRELOAD. OpenVINO frees with one what it allocated with the other and aborts
("invalid pointer"; seen with 2026.4.1 and either library), so it is never given to an instance that has one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from orchestrator.config.problem import Problem
from orchestrator.config.schema import Allocator, Engine, HugePages, InstanceGroup, Layout, Precision


class Allocation(Struct, frozen=True):
    """What one instance allocates with."""

    allocator: Allocator = "system"
    huge_pages: HugePages = "system"


def allocation_of(layout: Layout, group: InstanceGroup | None = None) -> Allocation:
    """Of an entry of `instances`; None: of the instances of a layout that lists none."""
    own = group if group is not None else layout
    return Allocation(own.allocator or layout.allocator, own.huge_pages or layout.huge_pages)


def wish_of(layout: Layout, group: InstanceGroup | None) -> tuple[Engine, Precision]:
    """What an entry of `instances` shall compute with; None: the instances of a layout that lists none."""
    if group is None:
        return layout.engine, layout.precision
    return group.engine or layout.engine, group.precision or layout.precision


def openvino_may_serve(layout: Layout) -> bool:
    """Whether any instance may compute on openvino as far as the allocators go."""
    groups = layout.instances or (None,)
    return any(allocation_of(layout, group).allocator == "system" for group in groups)


def allocation_problems(layout: Layout) -> Iterator[Problem]:
    """Allocators, pages and engines that cannot work together, each at its place in the file."""
    told: set[tuple[str, str]] = set()
    for index, group in enumerate(layout.instances or (None,)):
        engine, precision = wish_of(layout, group)
        for key, *said in _contradictions(allocation_of(layout, group), engine, precision):
            inside = group is not None and getattr(group, key) is not None
            where = f"instances[{index}].{key}" if inside else key
            if (where, said[0]) not in told:
                told.add((where, said[0]))
                yield problem_at(layout, where, *said)


def problem_at(layout: Layout, where: str, what: str, why: str = "", next_: str = "") -> Problem:
    """A problem with its line and column; without them where the layout came from no file."""
    place = layout.places.of(where)
    line, column = (place.line, place.column) if place is not None else (None, None)
    return Problem(layout.places.file or "layout", line, column, where, what, why, next_)


def _contradictions(
    allocation: Allocation, engine: Engine, precision: Precision
) -> Iterator[tuple[str, str, str, str]]:
    """(key, what, why, next)."""
    allocator, pages = allocation.allocator, allocation.huge_pages
    if allocator != "system" and (engine == "openvino" or precision == "bf16"):
        asked = "engine openvino" if engine == "openvino" else "precision bf16, which openvino alone computes"
        yield (
            "allocator",
            f"{allocator} does not go with {asked}",
            "openvino aborts at its start with tcmalloc or jemalloc preloaded (invalid pointer)",
            "say `allocator: system`, or use onnxruntime",
        )
    if allocator == "tcmalloc" and pages != "system":
        yield (
            "huge_pages",
            f"tcmalloc has no setting for {pages} huge pages",
            "it takes what the kernel gives (/sys/kernel/mm/transparent_hugepage/enabled)",
            "leave huge_pages out, or use another allocator",
        )
    if allocator == "jemalloc" and pages == "reserved":
        yield (
            "huge_pages",
            "jemalloc takes no pages from vm.nr_hugepages",
            "",
            "say `huge_pages: transparent`, or `allocator: system`",
        )
