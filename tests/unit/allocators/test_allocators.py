"""Does each worker get the allocator and the pages that its layout says, and does its memory map tell?"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from orchestrator.allocators import (
    allocator_of,
    huge_bytes,
    install_line,
    mapped_allocator,
    preloaded_allocators,
    without_allocators,
    worker_environment,
)
from orchestrator.config.allocation import openvino_may_serve
from orchestrator.config.load import parse_layout
from orchestrator.config.schema import InstanceGroup, Layout
from orchestrator.plan.allocation import with_allocators
from orchestrator.plan.model import InstanceName, PlannedInstance
from orchestrator.plan.pinned import to_yaml
from orchestrator.plan.solve import PlanRequest, plan
from orchestrator.preload import os_release
from orchestrator.supervisor.verify import verify

TCMALLOC = "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4"


def instance(name: str) -> PlannedInstance:
    return PlannedInstance(InstanceName(name), [0], 0, [0], 1, None, 128, [])


def test_the_layouts_allocator_is_preloaded_before_what_is_preloaded_already() -> None:
    base = {"LD_PRELOAD": "/lib/libfaketime.so.1 /lib/libjemalloc.so.2"}
    assert worker_environment("tcmalloc", "system", TCMALLOC, "onnxruntime", base) == {
        "LD_PRELOAD": f"{TCMALLOC}:/lib/libfaketime.so.1"
    }


def test_a_worker_on_openvino_starts_without_an_inherited_allocator_and_keeps_the_rest() -> None:
    base = {"LD_PRELOAD": f"{TCMALLOC}:/lib/libfaketime.so.1"}
    assert worker_environment("system", "system", None, "openvino", base) == {"LD_PRELOAD": "/lib/libfaketime.so.1"}
    assert worker_environment("system", "system", None, "onnxruntime", base) == {}
    assert without_allocators(base) == {"LD_PRELOAD": "/lib/libfaketime.so.1"}
    assert without_allocators({"A": "1"}) == {"A": "1"}


@pytest.mark.parametrize(("pages", "value"), [("transparent", 1), ("reserved", 2)])
def test_huge_pages_of_the_c_library_are_a_tunable_beside_others(pages: str, value: int) -> None:
    base = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0:glibc.malloc.arena_max=2"}
    assert worker_environment("system", pages, None, "onnxruntime", base) == {  # type: ignore[arg-type]
        "GLIBC_TUNABLES": f"glibc.malloc.arena_max=2:glibc.malloc.hugetlb={value}"
    }


def test_huge_pages_of_jemalloc_are_its_own_option_and_go_last_so_that_they_count() -> None:
    wanted = worker_environment(
        "jemalloc", "transparent", "/lib/libjemalloc.so.2", "onnxruntime", {"MALLOC_CONF": "thp:never"}
    )
    assert wanted == {"LD_PRELOAD": "/lib/libjemalloc.so.2", "MALLOC_CONF": "thp:never,thp:always"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (TCMALLOC, "tcmalloc"),
        ("/usr/lib64/libtcmalloc.so.4.5.10", "tcmalloc"),
        ("/opt/lib/libjemalloc.so.2", "jemalloc"),
        ("/lib/libjemalloc.so.2 (deleted)", "jemalloc"),
        ("/home/libjemalloc/libm.so.6", None),
        ("/lib/notlibjemalloc.so.2", None),
    ],
)
def test_an_allocator_is_known_by_the_name_of_its_library(path: str, name: str | None) -> None:
    assert allocator_of(path.removesuffix(" (deleted)")) == name
    line = f"7f0000000000-7f0000001000 r-xp 00000000 08:01 1234                       {path}\n"
    assert mapped_allocator(line) == (name or "system")
    assert allocator_of(path.rpartition("/")[2].removesuffix(" (deleted)")) == name
    assert preloaded_allocators({"LD_PRELOAD": path.removesuffix(" (deleted)")}) == ([name] if name else [])


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ({"ID": "debian", "VERSION_ID": "12"}, "apt-get install libtcmalloc-minimal4"),
        ({"ID": "debian", "VERSION_ID": "13"}, "apt-get install libtcmalloc-minimal4t64"),
        ({"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": "22.04"}, "apt-get install libtcmalloc-minimal4"),
        ({"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": "24.04"}, "apt-get install libtcmalloc-minimal4t64"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install gperftools-libs"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "zypper install libtcmalloc_minimal4"),
        ({}, "apt-get install libtcmalloc-minimal4 or dnf install gperftools-libs"),
    ],
)
def test_a_missing_library_names_the_package_of_this_distribution(release: dict[str, str], line: str) -> None:
    assert install_line("tcmalloc", release) == line


def test_the_distribution_is_read_with_and_without_quotes(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text("# comment\nID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian'\n")
    assert os_release(path) == {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian"}
    assert os_release(tmp_path / "absent") == {}


def test_an_instances_own_allocator_goes_before_the_layouts_and_replicas_share_it() -> None:
    layout = Layout(
        version=1,
        allocator="tcmalloc",
        instances=(
            InstanceGroup(name="a", cores=1, replicas=2),
            InstanceGroup(name="b", cores=1, allocator="system", huge_pages="transparent"),
        ),
    )
    given = with_allocators([instance("a-0"), instance("a-1"), instance("b-0")], layout)
    assert [(each.allocator, each.huge_pages) for each in given] == [
        ("tcmalloc", "system"),
        ("tcmalloc", "system"),
        ("system", "transparent"),
    ]
    assert "openvino" in given[0].reasons[-1]
    assert given[2].reasons == []
    assert openvino_may_serve(layout)
    assert not openvino_may_serve(Layout(version=1, allocator="jemalloc"))


def test_a_plan_that_is_pinned_down_keeps_its_allocators() -> None:
    machine = runpy.run_path(str(Path(__file__).parents[2] / "support" / "machines.py"))["article"]()
    layout = parse_layout(
        b"version: 1\nallocator: tcmalloc\ninstances: [{name: a, cores: 2, max_seqlen: 64}, {name: b, cores: 2, allocator: system}]\n",
        "layout.yaml",
    )
    made = plan(machine, PlanRequest(layout=layout))
    again = plan(machine, PlanRequest(layout=parse_layout(to_yaml(made, layout).encode(), "pinned.yaml")))
    assert [each.allocator for each in made.instances] == ["tcmalloc", "system"]
    assert [each.allocator for each in again.instances] == ["tcmalloc", "system"]


def test_null_for_an_instances_allocator_means_the_layouts() -> None:
    layout = parse_layout(
        b"version: 1\nallocator: jemalloc\ninstances: [{name: a, cores: 1, allocator: null}]\n", "layout.yaml"
    )
    assert with_allocators([instance("a-0")], layout)[0].allocator == "jemalloc"


def process(proc: Path, maps: str) -> None:
    root = proc / "77"
    (root / "task" / "77").mkdir(parents=True)
    (root / "task" / "77" / "status").write_text("Cpus_allowed_list:\t0\nMems_allowed_list:\t0\n")
    (root / "numa_maps").write_text("00400000 bind:0 file=/usr/bin/python3\n")
    (root / "maps").write_text(maps)
    (root / "smaps_rollup").write_text(
        "55-7f ---p 0 0:0 0 [rollup]\nRss:    90000 kB\nAnonHugePages:     4096 kB\nFilePmdMapped:  8 kB\n"
        "Shared_Hugetlb:        0 kB\nPrivate_Hugetlb:     2048 kB\n"
    )


def test_a_library_that_was_not_preloaded_is_told_and_one_that_was_is_shown(tmp_path: Path) -> None:
    process(tmp_path, f"7f-80 r-xp 0 08:01 5   {TCMALLOC}.5.10\n")
    found = verify(77, [0], [0], [], tmp_path, allocator="tcmalloc")
    assert (found.allocator, found.matches_plan, found.huge_page_bytes) == ("tcmalloc", True, None)
    found = verify(77, [0], [0], [], tmp_path, allocator="jemalloc", huge_pages="transparent")
    assert found.allocator == "tcmalloc"
    assert not found.matches_plan
    assert "jemalloc was to be preloaded and is not mapped" in found.notes[0]
    assert found.huge_page_bytes == 6 << 20


def test_a_rollup_of_nonsense_holds_no_huge_pages() -> None:
    assert huge_bytes("AnonHugePages: many kB\n") == 0
