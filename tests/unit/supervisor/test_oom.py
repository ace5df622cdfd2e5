"""Is a kill for want of memory told from any other, in cgroups of both versions?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.supervisor.oom import Witness, room_bytes

V2 = "29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
# A container of cgroup v2 without a namespace of its own sees its own cgroup as the root of the mount.
BOUND = "29 22 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw"

World = Callable[..., Path]


@pytest.fixture
def world(tmp_path: Path) -> World:
    def make(mount: str, cgroups: str, files: dict[str, str]) -> Path:
        for name, text in {"proc/7/cgroup": cgroups, "proc/self/mountinfo": mount + "\n", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


EVENTS = "low 0\nhigh 0\nmax 12\noom 1\noom_kill {}\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(
    ("mount", "cgroups", "counts", "form", "limits"),
    [
        (V2, "0::/a.slice/b.service\n", "sys/fs/cgroup/a.slice/b.service/memory.events", EVENTS, "memory.max"),
        (BOUND, "0::/docker/abc\n", "sys/fs/cgroup/memory.events", EVENTS, "memory.max"),
        (f"{V2}\n{V1}", "4:memory:/x\n0::/\n", "sys/fs/cgroup/memory/x/memory.oom_control", CONTROL,
         "memory.limit_in_bytes"),
    ],
    ids=["v2", "v2 in a container", "v1 beside v2"],
)  # fmt: skip
def test_a_count_that_rose_is_quoted_with_its_file_and_the_limit(
    world: World, mount: str, cgroups: str, counts: str, form: str, limits: str
) -> None:
    root = world(mount, cgroups, {counts: form.format(3), str(Path(counts).with_name(limits)): f"{512 << 20}\n"})
    witness = Witness(7, 0.0, root)
    assert witness.testimony(1.0) is None
    (root / counts).write_text(form.format(4))
    said = witness.testimony(2.0)
    assert said is not None
    assert f"{counts} rose from 3 to 4, the limit is 512 MiB" in said


def test_an_old_kill_of_another_process_proves_nothing(world: World) -> None:
    counts = "sys/fs/cgroup/memory.events"
    root = world(V2, "0::/\n", {counts: EVENTS.format(0), "sys/fs/cgroup/memory.max": "max\n"})
    witness = Witness(7, 0.0, root)
    (root / counts).write_text(EVENTS.format(1))
    witness.look(5.0)
    assert witness.testimony(6.0) is not None
    assert witness.testimony(16.0) is None


def test_an_exiting_process_that_is_shown_in_the_root_is_remembered_where_it_was(world: World) -> None:
    """Seen on a real kernel: between SIGKILL and the end /proc/PID/cgroup of version 1 says `/`."""
    counts = "sys/fs/cgroup/memory/x/memory.oom_control"
    root = world(
        V1, "4:memory:/x\n", {counts: CONTROL.format(0), "sys/fs/cgroup/memory/memory.oom_control": CONTROL.format(0)}
    )
    witness = Witness(7, 0.0, root)
    (root / counts).write_text(CONTROL.format(1))
    (root / "proc/7/cgroup").write_text("4:memory:/\n")
    witness.look(0.5)
    said = witness.testimony(1.0)
    assert said is not None
    assert counts in said


def test_without_a_cgroup_that_counts_the_machine_does(world: World) -> None:
    root = world(V2, "0::/\n", {"proc/vmstat": "nr_free_pages 5\noom_kill 1\n"})
    witness = Witness(7, 0.0, root)
    (root / "proc/vmstat").write_text("nr_free_pages 5\noom_kill 2\n")
    said = witness.testimony(1.0)
    assert said is not None
    assert "vmstat rose from 1 to 2; give" in said


def test_a_kernel_that_says_nothing_accuses_nobody(world: World) -> None:
    root = world(V2, "0::/gone\n", {})
    assert Witness(7, 0.0, root).testimony(1.0) is None
    assert Witness(8, 0.0, root).testimony(1.0) is None


@pytest.mark.parametrize(
    ("limit", "used", "room"), [("1000000", "400000", 600_000), ("1000", "2000", 0), ("max", "400000", None)]
)
def test_what_a_cgroup_still_allows_is_its_limit_less_what_is_used(
    world: World, limit: str, used: str, room: int | None
) -> None:
    files = {"memory.events": EVENTS.format(0), "memory.max": f"{limit}\n", "memory.current": f"{used}\n"}
    root = world(V2, "0::/\n", {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert room_bytes("0::/\n", root) == room


def test_without_a_file_of_what_is_used_nothing_is_known(world: World) -> None:
    files = {"memory.oom_control": CONTROL.format(0), "memory.limit_in_bytes": "1000\n"}
    root = world(
        f"{V2}\n{V1}", "4:memory:/x\n0::/\n", {f"sys/fs/cgroup/memory/x/{name}": text for name, text in files.items()}
    )
    assert room_bytes("4:memory:/x\n0::/\n", root) is None
