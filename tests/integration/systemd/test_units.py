"""Are the units clean, sandboxed, and in accord with what the supervisor gives? Of systemd/ and of `orchestrator systemd` alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.config.declared import option
from orchestrator.units import generic

PROJECT = Path(__file__).parents[3]
FOLDER = "etc/systemd/system"
LAYOUT = 'version: 1\nport: 8123\nsupervision: {drain_timeout_s: 7}\ninstances:\n  - {name: all, cpus: "0"}\n'


@pytest.fixture(scope="module")
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        reason = "no systemd-analyze on PATH: apt-get install systemd"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def orchestrator(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "systemd", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=PROJECT,
    )  # fmt: skip


def settings(text: str) -> dict[str, list[str]]:
    """KEY → its values in order; a unit may name a key more than once."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the plain service and one named blue."""
    root = tmp_path_factory.mktemp("root")
    layout = root / "blue.yaml"
    layout.write_text(LAYOUT)
    for arguments in ((), ("--name", "blue", "--layout", str(layout))):
        done = orchestrator("--install", "--root", str(root), *arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
    return root


def test_the_units_of_the_repository_are_those_that_the_program_makes() -> None:
    made = {file.path: file.text for file in generic(float(option("supervision.drain_timeout_s").default))}
    kept = {path.name: path.read_text() for path in (PROJECT / "systemd").iterdir()}
    assert kept == made, "write them anew: python -m orchestrator.units systemd"


@pytest.mark.parametrize(
    "unit",
    [
        "orchestrator.service",
        "orchestrator.socket",
        "orchestrator.slice",
        "orchestrator@blue.service",
        "orchestrator@blue.socket",
    ],
)
def test_installed_units_with_their_drop_ins_are_clean_under_systemd_analyze_verify(
    analyze: str, installed: Path, unit: str
) -> None:
    done = subprocess.run(
        [analyze, "verify", "--man=no", unit],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{installed / FOLDER}:"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", ["orchestrator.service", "orchestrator@.service"])
def test_the_exposure_of_each_service_is_at_most_two_and_a_half(analyze: str, installed: Path, unit: str) -> None:
    done = subprocess.run(
        [analyze, "security", "--offline=true", f"--root={installed}", "--threshold=25", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


def test_the_service_notifies_feeds_its_watchdog_and_does_not_retry_what_cannot_work(installed: Path) -> None:
    service = settings((installed / FOLDER / "orchestrator.service").read_text())
    assert service["Type"] == ["notify"]
    assert int(service["WatchdogSec"][0]) > 0
    assert service["RestartPreventExitStatus"] == ["78"]
    assert service["KillMode"] == ["mixed"]
    assert service["OOMPolicy"] == ["continue"]
    assert service["CapabilityBoundingSet"] == [""]


def test_a_drop_in_says_what_follows_from_the_layout(installed: Path) -> None:
    drop_in = settings((installed / FOLDER / "orchestrator@blue.service.d" / "10-host.conf").read_text())
    assert drop_in["TimeoutStopSec"] == ["44"]  # two drains of 7 s, and 30
    assert drop_in["ExecStart"][0] == ""
    assert drop_in["ExecStart"][1].endswith(f"up --layout {installed}/blue.yaml")
    assert drop_in["Requires"] == ["orchestrator@blue.socket"]
    assert str(installed / "blue.yaml") in drop_in["BindReadOnlyPaths"]  # it lies below /tmp, which the sandbox hides
    socket = settings((installed / FOLDER / "orchestrator@blue.socket").read_text())
    assert socket["ListenStream"] == ["127.0.0.1:8123"]


def test_writing_again_changes_nothing_and_a_changed_unit_is_kept_unless_forced(tmp_path: Path) -> None:
    assert orchestrator("--install", "--root", str(tmp_path)).stdout.count("wrote ") == 4
    assert orchestrator("--install", "--root", str(tmp_path)).stdout == ""
    unit = tmp_path / FOLDER / "orchestrator.service"
    unit.write_text(unit.read_text().replace("RestartSec=1", "RestartSec=9"))
    slice_unit = tmp_path / FOLDER / "orchestrator.slice"
    slice_unit.unlink()
    refused = orchestrator("--install", "--root", str(tmp_path))
    assert refused.returncode == 1
    assert f"{unit} was not written by this command, or changed since" in refused.stderr
    assert "RestartSec=9" in unit.read_text()
    assert not slice_unit.exists()  # all or nothing
    assert orchestrator("--install", "--force", "--root", str(tmp_path)).returncode == 0
    assert "RestartSec=1\n" in unit.read_text()


def test_a_masked_unit_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "orchestrator.service").symlink_to("/dev/null")
    refused = orchestrator("--install", "--root", str(tmp_path))
    assert refused.returncode == 1
    assert "(masked)" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--name", "Blue"), 2, "lower-case letters"),
        (("--name", "a" * 19), 2, "at most 18"),
        (("--name", "nobody-wrote-it"), 78, "/etc/orchestrator/nobody-wrote-it.yaml: no such file"),
        (("--program", "/nowhere/orchestrator"), 2, "no such program"),
        (("--print", "--install"), 2, "not allowed with"),
        (("--layout", "/nowhere.yaml"), 78, "/nowhere.yaml"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = orchestrator(*arguments)
    assert done.returncode == code, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_the_service_could_not_read_and_what_is_left_over_is_said(tmp_path: Path) -> None:
    layout = tmp_path / "l.yaml"
    layout.write_text("version: 1\n")
    layout.chmod(0o600)
    done = orchestrator("--install", "--root", str(tmp_path), "--layout", str(layout))
    assert f"warning: {layout}: the service's user cannot read it; chmod o+r {layout}" in done.stderr
    layout.write_text("version: 1\nport: 0\n")
    done = orchestrator("--install", "--root", str(tmp_path), "--layout", str(layout))
    assert "systemctl disable --now orchestrator.socket" in done.stderr


def test_printing_shows_each_file_under_its_path_and_writes_nothing(tmp_path: Path) -> None:
    layout = tmp_path / "l.yaml"
    layout.write_text("version: 1\nport: 0\n")
    printed = orchestrator("--print", "--layout", str(layout)).stdout
    assert "# /etc/systemd/system/orchestrator.service\n" in printed
    assert "# /etc/systemd/system/orchestrator.service.d/10-host.conf\n" in printed
    assert "[Socket]" not in printed  # port 0 is another one at each start


def test_who_may_not_write_there_is_told_to_use_sudo() -> None:
    done = orchestrator("--install", "--root", "/sys")  # where not even root makes a folder
    assert done.returncode == 1, done
    assert "sudo" in done.stderr
    assert "Traceback" not in done.stderr
