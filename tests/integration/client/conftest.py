"""The router double of tests/integration/gateway, for the client that needs no gateway."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

_path = Path(__file__).parents[1] / "gateway" / "conftest.py"
_spec = importlib.util.spec_from_file_location("gateway_doubles_for_client", _path)
assert _spec is not None
assert _spec.loader is not None
_doubles = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_doubles)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    """By ZeroMQ, as everybody outside speaks with the router."""
    return f"ipc://{tmp_path}/front.sock"


own_router = _doubles.own_router
kit = _doubles.kit
