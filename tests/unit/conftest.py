"""Unit tests are pure: whoever reaches for the network, a process or the clock here is told so."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import Any, NoReturn

import pytest

from orchestrator.plan.model import Bucket
from orchestrator.status import (
    GatewayStatus,
    InstanceStatus,
    MachineStatus,
    ModelStatus,
    Quantiles,
    RouterStatus,
    Status,
    Verified,
)


@pytest.fixture(autouse=True)
def _nothing_but_logic(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(what: str) -> Any:
        def refused(*_: object, **__: object) -> NoReturn:
            raise AssertionError(f"a unit test must not use {what}; move it to tests/integration")

        return refused

    monkeypatch.setattr(socket.socket, "connect", refuse("socket.connect"))
    monkeypatch.setattr(socket.socket, "bind", refuse("socket.bind"))
    monkeypatch.setattr(subprocess, "Popen", refuse("subprocess.Popen"))
    monkeypatch.setattr(time, "sleep", refuse("time.sleep"))


class Documents:
    """Status documents of a small orchestrator that began at 1,000,000 s since the epoch; each field can be given otherwise."""

    def instance(self, name: str = "short-0", **given: Any) -> InstanceStatus:
        fields: dict[str, Any] = {
            "name": name, "cpus": [0, 1], "node": 0, "membind": [0], "threads": 2, "bucket": Bucket(1, 64),
            "max_seqlen": 64, "reasons": [], "state": "ready", "pid": 4000, "incarnation": 1, "restarts": 0,
            "verified": Verified([0, 1], [0], "bind", 5, matches_plan=True), "ready_seconds": 2.4, "last_error": None,
            "rss_bytes": 312 << 20, "precision": "fp32", "engine": "onnxruntime",
            **given,
        }  # fmt: skip
        return InstanceStatus(**fields)

    def status(self, uptime: float = 600.0, *instances: InstanceStatus, **given: Any) -> Status:
        fields: dict[str, Any] = {
            "version": "0.1.0", "state": "ready", "time_unix": 1e6 + uptime, "uptime_seconds": uptime,
            "window_seconds": 10.0, "pid": 3999, "endpoint": "http://127.0.0.1:8080", "policy": "by-seqlen",
            "model": ModelStatus(
                "org/all-MiniLM", "sentence-embedding", "bert", "fp32", "onnxruntime", 256, 384, "0f3c", "cache/0f3c"
            ),
            "router": RouterStatus("ready", pid=3998, submitted=90, queued=3, in_flight=2, settled=85),
            "gateways": [
                GatewayStatus(
                    "gateway-0", "ready", pid=3997, requests_per_second=38.0, latency_ms=Quantiles(4.2, 31.0, 58.0)
                )
            ],
            "instances": list(instances), "housekeeping_cpus": [0], "unused_cpus": [],
            "machine": MachineStatus("2-core Xeon", 1, 1, 2, []), "warnings": [],
            **given,
        }  # fmt: skip
        return Status(**fields)


@pytest.fixture
def documents() -> Documents:
    return Documents()
