"""Which engines does this installation have?"""

from __future__ import annotations

from importlib import metadata
from typing import Final

ENGINES: Final = ("onnxruntime", "openvino")


def installed() -> dict[str, str]:
    """Engine → version, of those that are installed; none of them is imported."""
    found = {}
    for package in ENGINES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
