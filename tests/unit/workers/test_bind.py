"""What does binding say when it cannot? (What it does is proven on real processes in tests/integration.)"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest

from workers import bind
from workers.bind import BindError, PolicyForbiddenError, allowed_nodes, bind_memory, nodes_with_memory


def test_nodes_with_memory_are_read_from_the_kernel_in_any_numbering(tmp_path: Path) -> None:
    (tmp_path / "online").write_text("0-1,12\n")
    assert nodes_with_memory(tmp_path) == {0, 1, 12}
    (tmp_path / "has_memory").write_text("1,12-13\n")
    assert nodes_with_memory(tmp_path) == {1, 12, 13}
    (tmp_path / "has_memory").write_text("\n")
    assert nodes_with_memory(tmp_path) == set()


def test_a_kernel_without_numa_has_one_node(tmp_path: Path) -> None:
    assert nodes_with_memory(tmp_path / "absent") == {0}
    (tmp_path / "status").write_text("Name:\tpython\nCpus_allowed_list:\t0-3\n")
    assert allowed_nodes(tmp_path / "status") == {0}


def test_a_node_outside_the_cpuset_is_refused_before_libnuma_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libnuma would make a null mask of it, and crash."""
    (tmp_path / "status").write_text("Mems_allowed:\t2\nMems_allowed_list:\t1\n")
    assert allowed_nodes(tmp_path / "status") == {1}
    monkeypatch.setattr(bind, "libnuma", object)
    monkeypatch.setattr(bind, "nodes_with_memory", lambda: {0, 1})
    monkeypatch.setattr(bind, "allowed_nodes", lambda: {1})
    with pytest.raises(BindError, match=r"memory node \[0\] .* outside this container's cpuset; .* memory of \[1\]"):
        bind_memory([0], nodes_on_machine=2)


def test_without_libnuma_one_node_needs_none_and_several_say_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise BindError("libnuma is not usable (AttributeError); install it: apt-get install libnuma1")

    monkeypatch.setattr(bind, "libnuma", absent)
    binding = bind_memory([0], nodes_on_machine=1)
    assert binding.policy == "default"
    assert "one node needs no policy" in binding.notes[0]
    with pytest.raises(BindError, match="apt-get install libnuma1"):
        bind_memory([1], nodes_on_machine=2)


def test_where_every_memory_policy_is_forbidden_it_runs_without_one_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As under the seccomp profile of container engines, where get_mempolicy(2) gives EPERM: libnuma is there and of no use."""
    useless = SimpleNamespace(info=SimpleNamespace(numa_available=lambda: False))
    monkeypatch.setitem(sys.modules, "numa", useless)
    with pytest.raises(PolicyForbiddenError, match="CAP_SYS_NICE"):
        bind.libnuma()
    binding = bind_memory([1], nodes_on_machine=2)
    assert binding.policy == "default"
    assert "refused" in binding.notes[0]
    assert "node of the thread that touches it first" in binding.notes[1]


@pytest.mark.parametrize(("answer", "notes"), [(0, 0), (3, 0), (-1, 1)])
def test_pages_touched_before_binding_are_moved_and_a_refusal_is_a_note(answer: int, notes: int) -> None:
    asked: list[tuple[object, ...]] = []

    def migrate(*arguments: object) -> int:
        asked.append(arguments)
        return answer

    library = SimpleNamespace(numa_migrate_pages=migrate, numa_parse_nodestring=lambda text: text)
    numa = cast(ModuleType, SimpleNamespace(LIBNUMA=library, bitmask_t=ctypes.c_int))
    said = bind.move_early_pages(numa, [0, 2])
    assert asked == [(0, b"all", b"0,2")]
    assert len(said) == notes
