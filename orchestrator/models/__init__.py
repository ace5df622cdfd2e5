"""Which artefact serves a model on this machine?"""

from __future__ import annotations

from orchestrator.models.errors import ModelError
from orchestrator.models.preparation import Prepared, prepare
from workers.engines import private as private  # what is imported later may import an engine

__all__ = ["ModelError", "Prepared", "prepare"]
