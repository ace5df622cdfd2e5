"""Which engines, and what else, does this installation have?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Final

ENGINES: Final = ("onnxruntime", "openvino")


def installed(packages: Sequence[str] = ENGINES) -> dict[str, str]:
    """Package → version, of those that are installed; none of them is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
