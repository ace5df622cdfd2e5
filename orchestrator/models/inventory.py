"""What lies in the cache of artefacts, and what of it is of no use any more?"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from orchestrator.models import manifest as manifests
from orchestrator.models.build import BUILDER_VERSION
from orchestrator.models.manifest import Manifest

STUDY_SUFFIX = ".study.json"


class Entry(msgspec.Struct, frozen=True):
    name: str
    bytes: int
    """On the disk; a data file that two artefacts share by a hard link counts for both."""
    manifest: Manifest | None
    """None: a leftover, or an artefact that cannot be read."""
    stale: str | None
    """Why it will never be used again; None if it may be."""


def entries(root: Path) -> list[Entry]:
    """By name. Empty where there is no cache yet."""
    if not root.is_dir():
        return []
    manifest_of = {folder.name: _manifest(folder) for folder in root.iterdir() if folder.is_dir()}
    found = []
    for name, manifest in sorted(manifest_of.items()):
        size = sum(file.stat().st_size for file in (root / name).rglob("*") if file.is_file())
        found.append(Entry(name, size, manifest, _stale(name, manifest, manifest_of)))
    for path in sorted(root.glob(f"*{STUDY_SUFFIX}")):
        base = path.name.removesuffix(STUDY_SUFFIX).rpartition("-")[0]
        gone = None if manifest_of.get(base) is not None else "the model that it is about has gone"
        found.append(Entry(path.name, path.stat().st_size, None, gone))
    return found


def _manifest(folder: Path) -> Manifest | None:
    try:
        return manifests.decode(manifests.path_of(folder).read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _stale(name: str, manifest: Manifest | None, others: dict[str, Manifest | None]) -> str | None:
    if name.startswith("."):
        return "left unfinished"
    if manifest is None:
        return "its manifest cannot be read"
    if manifest.format != manifests.FORMAT or manifest.builder != BUILDER_VERSION:
        return "made by another release"
    if manifest.parent is not None:
        parent = others.get(manifest.parent)
        if parent is None:
            return "the artefact that it was made from has gone"
        if _stale(manifest.parent, parent, others) is not None:
            return "the artefact that it was made from is of no use any more"
    return None


def remove(root: Path, entry: Entry) -> None:
    """OSError as the file system raises it. A worker that has it loaded keeps its pages until it ends."""
    path = root / entry.name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
