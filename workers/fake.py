"""What stands in for an engine in tests of router and supervisor? It computes nothing, and fails on demand.

`spec.fake` may hold: `seconds_per_token` (busy time of a batch), `width`, `crash_on` (a token id that kills the process),
`fail_on` (a token id that raises EngineError), `hang_on` (a token id that never returns), `load_error` (text).
The row of a sequence is [sum of its ids, its length, 0, …], so that a test can tell whose answer it is.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np

from workers.engines.base import EngineError, Ids, LoadError, Rows
from workers.spec import WorkerSpec


class FakeEngine:
    def __init__(self, spec: WorkerSpec) -> None:
        options = spec.fake
        if "load_error" in options:
            raise LoadError(str(options["load_error"]))
        self._width = int(options.get("width", 4))
        self._seconds_per_token = float(options.get("seconds_per_token", 0.0))
        self._crash_on, self._fail_on, self._hang_on = (
            options.get(name) for name in ("crash_on", "fail_on", "hang_on")
        )

    def run(self, input_ids: Ids, attention_mask: Ids, token_type_ids: Ids | None) -> Rows:  # noqa: ARG002 - the protocol's
        if self._crash_on is not None and (input_ids == self._crash_on).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if self._hang_on is not None and (input_ids == self._hang_on).any():
            threading.Event().wait()
        if self._fail_on is not None and (input_ids == self._fail_on).any():
            raise EngineError(f"token {self._fail_on} was asked to fail")
        if self._seconds_per_token:
            time.sleep(self._seconds_per_token * input_ids.size)
        rows = np.zeros((len(input_ids), self._width), np.float32)
        rows[:, 0] = (input_ids * attention_mask).sum(axis=1)
        rows[:, 1] = attention_mask.sum(axis=1)
        return rows


def load(spec: WorkerSpec) -> FakeEngine:
    return FakeEngine(spec)
