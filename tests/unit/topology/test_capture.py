"""Does a capture read back as the same machine, and does it keep what is the user's own?"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from topology import capture
from topology.capture import write_capture
from topology.model import TopologyError
from topology.sysfs import read_machine

OnDisk = Callable[[dict[str, str]], Path]
Builder = Callable[..., Any]


def contents(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        return {
            member.name: file.read().decode()
            for member in tar.getmembers()
            if (file := tar.extractfile(member)) is not None
        }


def with_secrets(files: dict[str, str]) -> dict[str, str]:
    """The tree with what a real host has beside: a serial number, host names, processes, mounts."""
    return {
        **files,
        "proc/cpuinfo": files["proc/cpuinfo"] + "Serial\t\t: 00000000SECRET\nHardware\t: SECRETBOARD\n",
        "proc/self/status": "Name:\tSECRET\nPid:\t4711\nCpus_allowed_list:\t0-11\nMems_allowed_list:\t0-1\n",
        "proc/self/cgroup": "4:memory:/SECRET\n3:cpuset:/work\n0::/\n",
        "proc/self/mountinfo": (
            "30 1 0:9 / /home rw - nfs SECRET.example:/home rw\n"
            "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        ),
        "sys/fs/cgroup/cpuset/work/cpuset.cpus": "0-13\n",
        "sys/devices/system/cpu/cpu0/topology/ppin": "0xSECRET\n",
        "etc/hostname": "SECRET\n",
    }


def test_a_capture_reads_back_equal(two_sockets: Builder, on_disk: OnDisk, tmp_path: Path) -> None:
    builder = two_sockets()
    builder.threads[14].online = False
    files = with_secrets(builder.files())
    del files["sys/devices/system/cpu/cpu14/online"]
    files["sys/devices/system/cpu/cpu14/node1/x"] = ""  # an offline CPU known by its link alone
    root = on_disk(files)
    archive = tmp_path / "machine.tar.gz"

    assert write_capture(root, archive) == read_machine(root) == read_machine(archive)
    assert read_machine(archive).cpu(14).node == 1
    assert read_machine(archive).cpu(12).why_not == "not in the CPU affinity of this process"


def test_a_capture_unpacked_reads_like_the_archive(two_sockets: Builder, on_disk: OnDisk, tmp_path: Path) -> None:
    archive = tmp_path / "machine.tar.gz"
    write_capture(on_disk(with_secrets(two_sockets().files())), archive)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")

    assert read_machine(tmp_path / "unpacked") == read_machine(archive)


def test_a_capture_holds_nothing_of_the_user(two_sockets: Builder, on_disk: OnDisk, tmp_path: Path) -> None:
    archive = tmp_path / "machine.tar.gz"
    write_capture(on_disk(with_secrets(two_sockets().files())), archive)
    files = contents(archive)

    assert not {path: text for path, text in files.items() if "SECRET" in text or "4711" in text}
    assert "etc/hostname" not in files
    assert files["proc/self/cgroup"] == "3:cpuset:/work\n0::/\n"
    with tarfile.open(archive) as tar:
        assert {(member.uid, member.uname, member.mtime) for member in tar.getmembers()} == {(0, "", 0)}


def test_the_same_machine_gives_the_same_bytes(two_sockets: Builder, on_disk: OnDisk, tmp_path: Path) -> None:
    root = on_disk(two_sockets().files())
    write_capture(root, tmp_path / "one.tar.gz")
    write_capture(root, tmp_path / "two.tar.gz")

    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_the_live_machine_can_be_captured_with_the_affinity_of_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = min(cpu.cpu for cpu in read_machine().cpus if cpu.allowed)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {first})
    archive = tmp_path / "live.tar.gz"

    machine = write_capture(Path("/"), archive)
    assert read_machine(archive) == machine
    assert [cpu.cpu for cpu in machine.cpus if cpu.allowed] == [first]


def test_a_capture_that_would_read_back_differently_is_not_written(
    two_sockets: Builder, on_disk: OnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "sanitized", lambda _: "")

    with pytest.raises(TopologyError, match="not written: the capture would read back as another machine"):
        write_capture(on_disk(two_sockets().files()), tmp_path / "machine.tar.gz")
    assert not list(tmp_path.glob("*.tar.gz*"))


def test_a_failed_write_leaves_the_old_capture_and_no_pieces(
    two_sockets: Builder, on_disk: OnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "machine.tar.gz"
    archive.write_bytes(b"the old one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TopologyError, match="cannot be written: No space left on device"):
        write_capture(on_disk(two_sockets().files()), archive)
    assert archive.read_bytes() == b"the old one"
    assert [path.name for path in tmp_path.iterdir() if path.name != "tree"] == ["machine.tar.gz"]


def test_a_directory_that_does_not_exist_is_named(two_sockets: Builder, on_disk: OnDisk, tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"nowhere/machine.tar.gz: cannot be written: No such file or directory"):
        write_capture(on_disk(two_sockets().files()), tmp_path / "nowhere" / "machine.tar.gz")
