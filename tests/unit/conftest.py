"""Unit tests are pure: whoever reaches for the network, a process or the clock here is told so."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import Any, NoReturn

import pytest


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
