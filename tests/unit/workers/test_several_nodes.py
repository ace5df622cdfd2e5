"""May `up` start on several nodes where memory cannot be bound? Without libnuma no, where policies are forbidden yes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import assemble
from topology.sysfs import read_machine
from workers.bind import BindError, PolicyForbiddenError

TWO_NODES = read_machine(Path(__file__).parents[2] / "data" / "topology" / "two-sockets.tar.gz")


def raising(error: BindError) -> object:
    def libnuma() -> None:
        raise error

    return libnuma


def test_several_nodes_without_libnuma_cannot_work_and_say_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "libnuma", raising(BindError("install it: apt-get install libnuma1")))
    with pytest.raises(
        assemble.AppError, match=r"one of the nodes \[0, 1\], but .* apt-get install libnuma1"
    ) as refused:
        assemble._several_nodes_need_libnuma(TWO_NODES)
    assert refused.value.unworkable


def test_several_nodes_where_policies_are_forbidden_serve_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "libnuma", raising(PolicyForbiddenError("refused by a container")))
    assemble._several_nodes_need_libnuma(TWO_NODES)
