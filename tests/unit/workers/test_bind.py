"""What does binding say when it cannot? (What it does is proven on real processes in tests/integration.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from workers import bind
from workers.bind import BindError, bind_memory, nodes_with_memory


def test_nodes_with_memory_are_read_from_the_kernel_in_any_numbering(tmp_path: Path) -> None:
    (tmp_path / "online").write_text("0-1,12\n")
    assert nodes_with_memory(tmp_path) == {0, 1, 12}
    (tmp_path / "has_memory").write_text("1,12-13\n")
    assert nodes_with_memory(tmp_path) == {1, 12, 13}
    (tmp_path / "has_memory").write_text("\n")
    assert nodes_with_memory(tmp_path) == set()


def test_a_kernel_without_numa_has_one_node(tmp_path: Path) -> None:
    assert nodes_with_memory(tmp_path / "absent") == {0}


def test_without_libnuma_one_node_needs_none_and_several_say_how_to_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise BindError("libnuma is not usable (AttributeError); install it: apt-get install libnuma1")

    monkeypatch.setattr(bind, "libnuma", absent)
    binding = bind_memory([0], nodes_on_machine=1)
    assert binding.policy == "default"
    assert "one node needs no policy" in binding.notes[0]
    with pytest.raises(BindError, match="apt-get install libnuma1"):
        bind_memory([1], nodes_on_machine=2)
