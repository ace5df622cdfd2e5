"""Which file does a worker load whose memory is on this node?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from orchestrator.models.errors import ModelError
from orchestrator.models.optimize import Tuned
from orchestrator.models.share import shared
from orchestrator.models.variants import Variant
from workers.spec import Artefact


@dataclass(frozen=True)
class Loadable:
    """One variant."""

    artefacts: dict[int, Artefact]
    """By memory node."""
    warning: str | None = None
    """Why each worker holds a copy of its own of the weights."""


def loadable(tuned: Tuned, variant: Variant, nodes: Sequence[int]) -> Loadable:
    """Under onnxruntime the graph whose weights all workers of a node share, where it can be made; else the variant's own."""
    own = variant.artefact(tuned.prepared.artefact, str(tuned.root))
    if variant.engine != "onnxruntime":
        return Loadable(dict.fromkeys(nodes, own))
    try:
        paths = shared(tuned.root, variant.graph.partition("/")[0], tuned.study.tools["onnxruntime"], nodes)
    except ModelError as error:
        return Loadable(dict.fromkeys(nodes, own), str(error))
    return Loadable({node: msgspec.structs.replace(own, path=str(path)) for node, path in paths.items()})
