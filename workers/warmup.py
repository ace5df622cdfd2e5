"""Which batches does a worker run before it says that it is ready? Real ones: a wrong graph fails here, not on a user."""

from __future__ import annotations

import numpy as np

from workers.engines.base import Engine, LoadError, run_pixels
from workers.spec import WorkerSpec


def warm_up(engine: Engine, spec: WorkerSpec) -> None:
    """Runs every shape of the specification; LoadError if an answer has the wrong shape or is not finite."""
    artefact = spec.artefact
    vocabulary = artefact.vocab_size if artefact else 1000
    token_types = artefact is not None and artefact.token_types
    for batch, length in spec.warmup:
        if artefact is not None and artefact.pixels is not None:
            rows = run_pixels(engine, np.zeros((batch, *artefact.pixels), np.float32))
        else:
            ids = (np.arange(batch * length, dtype=np.int32).reshape(batch, length) * 7 + 11) % vocabulary
            mask = np.ones_like(ids)
            rows = engine.run(ids.astype(np.int32), mask, np.zeros_like(ids) if token_types else None)
        if artefact is not None:
            expected = (batch, length, artefact.width) if artefact.per_token else (batch, artefact.width)
            if rows.shape != expected:
                raise LoadError(f"{artefact.path}: {batch}×{length} tokens gave {rows.shape}, expected {expected}")
        if not np.isfinite(rows).all():
            raise LoadError(
                f"{artefact.path if artefact else 'fake'}: {batch}×{length} tokens gave numbers that are not finite"
            )
