"""Where do log files lie if nobody says it?"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.paths import log_folder, point_to_logs, pointed_logs

USUAL = Path("/run/orchestrator")
HOME = {"XDG_STATE_HOME": "/home/ann/state", "XDG_RUNTIME_DIR": "/run/user/7"}


@pytest.mark.parametrize(
    ("chosen", "environment", "uid", "runtime", "expected"),
    [
        ("/a", {"ORCHESTRATOR_LOG_DIR": "/b", "LOGS_DIRECTORY": "/c"}, 0, USUAL, "/a"),
        (None, {"ORCHESTRATOR_LOG_DIR": "/b", "LOGS_DIRECTORY": "/c"}, 0, USUAL, "/b"),
        (None, {"LOGS_DIRECTORY": "/c:/d"}, 0, USUAL, "/c"),
        (None, {}, 0, USUAL, "/var/log/orchestrator"),
        (None, {}, 0, Path("/tmp/try"), "/tmp/try/log"),
        (None, HOME, 7, Path("/run/user/7/orchestrator"), "/home/ann/state/orchestrator/log"),
        (None, HOME, 7, Path("/tmp/try"), "/tmp/try/log"),
    ],
)
def test_the_folder_is_the_one_that_was_named_last(
    chosen: str | None, environment: dict[str, str], uid: int, runtime: Path, expected: str
) -> None:
    assert log_folder(chosen, environment, uid, runtime) == Path(expected)


def test_a_user_without_a_home_has_them_in_the_runtime_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    usual = Path("/tmp/orchestrator-7")
    assert log_folder(None, {}, 7, usual) == usual / "log"


def test_the_runtime_folder_leads_to_the_logs_wherever_they_went_last(tmp_path: Path) -> None:
    assert pointed_logs(tmp_path) is None
    for folder in ("one", "two"):
        point_to_logs(tmp_path, tmp_path / folder)
        assert pointed_logs(tmp_path) == tmp_path / folder
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
