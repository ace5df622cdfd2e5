"""Do keys guard what computes, and can they be changed while it serves?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONE, OTHER = "the-key-of-the-first-client", "the-key-of-the-second-client"


def test_without_a_known_key_nothing_is_computed_and_a_reload_changes_the_keys(
    start_system: Callable[..., Any], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(ONE)
    keys.chmod(0o600)
    system = start_system("--instances", "1", "--keys-file", str(keys))

    status, headers, body = system.post("/embed", {"inputs": "rain"})
    assert (status, body["error_type"], headers["www-authenticate"]) == (401, "unauthorized", "Bearer")
    status, _, body = system.post("/v1/embeddings", {"input": "rain", "model": "any"}, Authorization=f"Bearer {OTHER}")
    assert (status, body["error"]["code"]) == (401, "unauthorized")
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["rain"]}
    for path in ("/v2/models/all-MiniLM-L6-v2/infer", "/v2/models/other/infer"):
        status, _, body = system.post(path, {"inputs": [tensor]})
        assert (status, body["error_type"]) == (401, "unauthorized")
    for path in ("/info", "/v1/models", "/v2", "/v2/models/all-MiniLM-L6-v2"):
        assert system.get(path)[0] == 401
    for path in (
        "/health",
        "/openapi.json",
        "/v2/models/all-MiniLM-L6-v2/ready",
        "/metrics",
        "/api/state",
        "/api/history",
        "/dashboard",
    ):
        assert system.get(path)[0] == 200
    assert system.post("/embed", {"inputs": "rain"}, Authorization=f"Bearer {ONE}")[0] == 200

    keys.write_text(OTHER)
    reload = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.main", "reload", "--runtime-dir", str(system.runtime), "--json"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(reload.stdout)["gateways"] == ["keys"]
    assert system.post("/embed", {"inputs": "rain"}, **{"x-api-key": OTHER})[0] == 200
    assert system.post("/embed", {"inputs": "rain"}, **{"x-api-key": ONE})[0] == 401
    system.until("two were computed and no more", lambda status: status.instances[0].served == 2)
    for key in (ONE, OTHER):
        assert key not in system.said()


def test_a_file_of_keys_that_cannot_be_used_ends_the_start_with_78(
    start_system: Callable[..., Any], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("short")
    keys.chmod(0o600)
    system = start_system("--instances", "1", "--keys-file", str(keys), ready=False)
    assert system.process.wait(60) == 78
    assert f"keys_file {keys}:1: a key is 16 or more" in system.said()
