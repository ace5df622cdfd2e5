"""Where do the tests of models get their tiny models from?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DATA = Path(__file__).parents[2] / "data" / "models"


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """tests/data/models/tiny_models.py"""
    spec = importlib.util.spec_from_file_location("tiny_models", DATA / "tiny_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
