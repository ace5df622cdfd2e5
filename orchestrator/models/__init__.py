"""Which artefact serves a model on this machine?"""

from __future__ import annotations

from orchestrator.models.errors import ModelError
from orchestrator.models.preparation import Prepared, prepare

__all__ = ["ModelError", "Prepared", "prepare"]
