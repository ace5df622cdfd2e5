"""Does `orchestrator topology` print what the contract names and end with the right exit code?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main

OnDisk = Callable[[dict[str, str]], Path]
Builder = Callable[..., Any]


def test_json_is_one_document_with_the_fields_of_the_contract(
    two_sockets: Builder, on_disk: OnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = two_sockets()
    builder.threads[15].online = False
    code = main(["topology", "--sysroot", str(on_disk(builder.files())), "--json"])
    out, err = capsys.readouterr()
    document = json.loads(out)

    assert (code, err) == (0, "")
    assert {key: document["cpus"][9][key] for key in ("cpu", "online", "package", "node", "core", "smt_rank")} == {
        "cpu": 9,
        "online": True,
        "package": 0,
        "node": 0,
        "core": 1,
        "smt_rank": 1,
    }
    assert {"die", "l2", "l3", "kind", "allowed"} <= document["cpus"][9].keys()
    assert document["cpus"][15]["online"] is False
    assert document["cpus"][15]["core"] is None
    assert document["nodes"][1]["distances"] == {"0": 21, "1": 10}
    assert document["nodes"][1]["memory_bytes"] == 131072 * 1024
    assert document["packages"][1] == {"package": 1, "cpus": [4, 5, 6, 7, 12, 13, 14]}
    assert (document["smt"], document["quota_cpus"], document["model_name"]) == (2, None, "A CPU")
    assert (document["isa"], document["warnings"]) == (["avx2", "avx512f"], [])


def test_people_get_lines_within_their_terminal(
    two_sockets: Builder, on_disk: OnDisk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")

    assert main(["topology", "--sysroot", str(on_disk(two_sockets().files()))]) == 0
    out = capsys.readouterr().out
    assert "package 1" in out
    assert max(map(len, out.splitlines())) <= 50


def test_a_capture_is_written_and_readable_through_sysroot(
    two_sockets: Builder, on_disk: OnDisk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, archive = on_disk(two_sockets().files()), tmp_path / "here.tar.gz"

    assert main(["topology", "--sysroot", str(root), "--capture", str(archive)]) == 0
    assert str(archive) in capsys.readouterr().err
    assert main(["topology", "--sysroot", str(root), "--json"]) == 0
    from_tree = capsys.readouterr().out
    assert main(["topology", "--sysroot", str(archive), "--json"]) == 0
    assert capsys.readouterr().out == from_tree


def test_a_sysroot_that_does_not_exist_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "--sysroot", "no/such/tree"]) == 2
    assert "no/such/tree: no such file or directory" in capsys.readouterr().err


def test_a_damaged_tree_fails_with_one_line_and_no_output(
    two_sockets: Builder, on_disk: OnDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    root = on_disk({**two_sockets().files(), "sys/devices/system/cpu/online": "0-\n"})

    assert main(["topology", "--sysroot", str(root), "--json"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("orchestrator topology: ")
    assert "sys/devices/system/cpu/online: not a CPU list" in err
    assert len(err.splitlines()) == 1


def test_json_and_capture_together_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["topology", "--json", "--capture", str(tmp_path / "x.tar.gz")])
    assert caught.value.code == 2
